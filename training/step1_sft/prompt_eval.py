"""Look at a model's answers, side by side with those of the model it was made from.

    python training/step1_sft/prompt_eval.py --model_name_or_path_baseline base --model_name_or_path_finetune output/sft

Shows prompts and answers; with --output_path also writes them, a JSON list of {"prompt", "response"}; with two models
also "baseline", the answer of the first.
"""

from __future__ import annotations

import itertools
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.answering.output import join_ranks
from utils.answering.reader import Reader
from utils.arguments import parse
from utils.arguments.inference import ReaderArguments
from utils.arguments.options import option, overwriting, required
from utils.engine import ranks
from utils.errors import UserError
from utils.generation import generate
from utils.generation.sampling import Sampling
from utils.outputs import claim, model_files
from utils.raw_datasets import records_of
from utils.records import Message, Record
from utils.reporting import run_program, say, write_json

PROMPTS = {
    "English": ("Explain to a child why the sky is blue.", "Write a short poem about the sea in winter."),
    "Chinese": ("请用简单的话解释天空为什么是蓝色的。", "写一首关于冬天的海的短诗。"),
    "Japanese": ("空が青い理由を子どもにもわかるように説明してください。", "冬の海について短い詩を書いてください。"),
}


@dataclass
class PromptEvalArguments:
    model_name_or_path_baseline: str = required("the model before training, or the only one", title="Models")
    model_name_or_path_finetune: str | None = option(help="the model after training")
    template: str | None = option(help="prompt template; by its name in docs/data.md; None: each tokenizer's")
    dataset_name: str | None = option(
        help="data-set class of --local_data_files; None: found by its columns", title="Files"
    )
    local_data_files: str | None = option(help="file or folder of prompts; None: a few built-in ones")
    language: Literal["English", "Chinese", "Japanese"] = option("English", help="language of the built-in prompts")
    max_samples: int = option(20, help="most prompts to answer")
    output_path: str | None = option(help="JSON file to write; None: the answers are only shown")
    overwrite: bool = overwriting()
    batch_size: int = option(8, help="prompts at a time")
    max_prompt_seq_len: int = option(
        384, help="longest prompt in tokens; longer ones lose their start", title="Answers"
    )
    max_new_tokens: int = option(100, help="longest answer in tokens")
    num_beams: int = option(3, help="beams of beam search; 1: none, answers are sampled")
    num_return_sequences: int = option(1, help="answers to each prompt, at most as many as beams")
    temperature: float = option(0.95, help="temperature of the answers; 0 does not sample")
    top_k: int = option(30, help="sample from the k likeliest tokens (top-k); 0: from all")
    bf16: bool = option(False, help="read in bfloat16", title="Models")
    seed: int = option(42, help="seed of sampling", title="Answers")

    def __post_init__(self) -> None:
        if self.dataset_name and not self.local_data_files:
            raise UserError("--dataset_name says how to read --local_data_files, which is missing; give both")
        if min(self.batch_size, self.max_samples) < 1:
            raise UserError(f"--batch_size is {self.batch_size}, --max_samples {self.max_samples}; expected 1 or more")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([PromptEvalArguments], argv, __doc__)
    join_ranks()
    first, second = args.model_name_or_path_baseline, args.model_name_or_path_finetune
    models = [file for name in (first, second) for file in model_files(name, "prompt_eval.py")]
    reads = [args.local_data_files or "", *models]
    claim("prompt_eval.py", {"--output_path": args.output_path}, reads=reads, overwrite=args.overwrite)
    records = read_prompts(args)
    names = {"baseline": first, "response": second} if second else {"response": first}
    found = {column: answers(name, records, args) for column, name in names.items()}
    prompts = [record.prompt[-1].content for record in records]
    rows = [dict(zip(("prompt", *found), texts, strict=True)) for texts in zip(prompts, *found.values(), strict=True)]
    for row in rows[:5] if args.output_path else rows:
        for column, text in row.items():
            say(f"{column}: {text}", style={"prompt": "dim", "response": "green"}.get(column, "yellow"))
    if args.output_path and ranks.rank() == 0:
        write_json(Path(args.output_path), rows)
        say(f"written to {args.output_path}")


def read_prompts(args: PromptEvalArguments) -> list[Record]:
    if not args.local_data_files:
        return [Record((Message("user", prompt),)) for prompt in PROMPTS[args.language][: args.max_samples]]
    spec = f"{args.dataset_name}:{args.local_data_files}" if args.dataset_name else args.local_data_files
    return list(itertools.islice(records_of(spec), args.max_samples))


def answers(name: str, records: list[Record], args: PromptEvalArguments) -> list[str | list[str]]:
    """A text for each prompt; a list of texts when several are asked for."""
    reader = Reader(ReaderArguments(name, template=args.template, bf16=args.bf16))
    how = Sampling(args.max_new_tokens, temperature=args.temperature, top_k=args.top_k, num_beams=args.num_beams,
                   num_samples=args.num_return_sequences, seed=args.seed)  # fmt: skip
    prompts = [reader.prompt(record, args.max_prompt_seq_len) for record in records]
    found = generate(reader.model, reader.renderer, prompts, how, args.batch_size, spread=True, title=reader.name)
    return [[c.text for c in several] if len(several) > 1 else several[0].text for several in found]


if __name__ == "__main__":
    run_program(main)
