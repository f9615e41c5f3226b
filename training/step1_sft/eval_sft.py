"""Two samples of every prompt, for a judge, a person or rw_eval.py to compare.

    python training/step1_sft/eval_sft.py --model_name_or_path output/tutor/sft --data_path prompts.jsonl

Writes JSON Lines of {"instruction", "output_1", "output_2"}.
"""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import asdict, dataclass

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.answering.output import join_ranks
from utils.answering.reader import Reader, answering, model_facts, open_files, samplings, work_on
from utils.arguments import parse
from utils.arguments.inference import AnswerArguments, DrawArguments, FileArguments, ReaderArguments
from utils.arguments.options import option
from utils.errors import UserError
from utils.reporting import run_program


@dataclass
class SftEvalArguments(DrawArguments, AnswerArguments, FileArguments, ReaderArguments):
    max_new_tokens: int = option(200, help="longest answer in tokens")
    top_p: float = option(
        0.9, help="sample from the likeliest tokens that together have this probability (top-p)", title="Sampling"
    )
    top_k: int = option(50, help="sample from the k likeliest tokens (top-k); 0: from all")
    temperature: float = option(1.0, help="temperature of the answers; below 1 sharpens the distribution")

    def __post_init__(self) -> None:
        self.check_files()
        if self.temperature <= 0:
            raise UserError(f"--temperature is {self.temperature}; expected above 0: two samples are drawn")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([SftEvalArguments], argv, __doc__)
    join_ranks()
    drawn = {"top_p": args.top_p, "top_k": args.top_k, "seed": args.seed}
    how = samplings(args, [args.temperature], num_samples=2, **drawn)
    rows, output = open_files(args, "two", "eval_sft.py")

    def make():
        return answering(
            Reader(args), rows, how, args.max_prompt_seq_len,
            lambda row, two: {"instruction": row.instruction, "output_1": two[0].text, "output_2": two[1].text},
        )  # fmt: skip

    facts = {"what": "sampling", **asdict(how[0]), "max_prompt_seq_len": args.max_prompt_seq_len, **model_facts(args)}
    work_on(rows, args, output, facts, make)


if __name__ == "__main__":
    run_program(main)
