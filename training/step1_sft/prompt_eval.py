"""Show a model's answers, side by side with those of the model that it was trained from.

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

from utils.answering.inference_model import InferenceModel
from utils.answering.output import join_ranks
from utils.arguments import parse
from utils.arguments.inference import ReaderArguments
from utils.arguments.options import option, overwriting, required
from utils.engine import ranks
from utils.errors import UserError
from utils.generation.generate import generate
from utils.generation.request import GenerationRequest
from utils.generation.sampling import Sampling
from utils.outputs import claim
from utils.provenance import model_files
from utils.raw_datasets.whole import records_of
from utils.records import Message, Record
from utils.reporting import run_program, say, write_json

PROMPTS = {
    "English": ("Explain to a child why the sky is blue.", "Write a short poem about the sea in winter."),
    "Chinese": ("请用简单的话解释天空为什么是蓝色的。", "写一首关于冬天的海的短诗。"),
    "Japanese": ("空が青い理由を子どもにもわかるように説明してください。", "冬の海について短い詩を書いてください。"),
}
STYLES = {"prompt": "dim", "baseline": "yellow", "response": "green"}


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
    reads = [args.local_data_files or "", *model_files(first, "prompt_eval.py"), *model_files(second, "prompt_eval.py")]
    claim("prompt_eval.py", {"--output_path": args.output_path}, reads=reads, overwrite=args.overwrite)
    records = read_prompts(args)
    rows = [{"prompt": record.prompt[-1].content} for record in records]
    models = {"response": first}
    if second:
        models = {"baseline": first, "response": second}
    for column, name in models.items():
        for row, texts in zip(rows, answers(name, records, args), strict=True):
            row[column] = texts
    shown = rows
    if args.output_path:
        # The file holds all of them.
        shown = rows[:5]
    for row in shown:
        for column, text in row.items():
            say(f"{column}: {text}", style=STYLES[column])
    if args.output_path and ranks.rank() == 0:
        write_json(Path(args.output_path), rows)
        say(f"written to {args.output_path}")


def read_prompts(args: PromptEvalArguments) -> list[Record]:
    """Return up to --max_samples prompts of --local_data_files, or the built-in ones of --language."""
    if not args.local_data_files:
        return [Record((Message("user", prompt),)) for prompt in PROMPTS[args.language][: args.max_samples]]
    spec = f"{args.dataset_name}:{args.local_data_files}" if args.dataset_name else args.local_data_files
    return list(itertools.islice(records_of(spec), args.max_samples))


def answers(name: str, records: list[Record], args: PromptEvalArguments) -> list[str | list[str]]:
    """Return a text for each prompt, or a list of texts when several are asked for. A collective."""
    model = InferenceModel(ReaderArguments(name, template=args.template, bf16=args.bf16))
    sampling = Sampling(args.max_new_tokens, temperature=args.temperature, top_k=args.top_k, num_beams=args.num_beams,
                        num_samples=args.num_return_sequences, seed=args.seed)  # fmt: skip
    prompts = [model.prompt(record, args.max_prompt_seq_len) for record in records]
    request = GenerationRequest(model.renderer, prompts, sampling)
    # The ranks divide the prompts among them, since each has the whole model.
    found = generate(model.model, request, args.batch_size, spread=True, title=model.name)
    texts: list[str | list[str]] = []
    for completions in found:
        several = [completion.text for completion in completions]
        # A text instead of a list of one: the format of the file that --output_path names.
        texts.append(several if len(several) > 1 else several[0])
    return texts


if __name__ == "__main__":
    run_program(main)
