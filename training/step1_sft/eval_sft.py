"""Draw two answers to every prompt, for a judge, a person or rw_eval.py to compare.

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

from utils.answering.files import open_files
from utils.answering.inference_model import InferenceModel
from utils.answering.jobs import RowJob, generation_job, model_facts, run_job, sampling_of
from utils.answering.output import join_ranks
from utils.answering.rows import AnswerRow
from utils.arguments import parse
from utils.arguments.inference import AnswerArguments, DrawArguments, FileArguments, ReaderArguments
from utils.arguments.options import option
from utils.errors import UserError
from utils.records import Answer
from utils.reporting import run_program


@dataclass
class TwoAnswersArguments(DrawArguments, AnswerArguments, FileArguments, ReaderArguments):
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
    (args,) = parse([TwoAnswersArguments], argv, __doc__)
    join_ranks()
    sampling = sampling_of(args, args.temperature, num_samples=2, draw=args)
    rows, output = open_files(args, "two", "eval_sft.py")

    def finish(row: AnswerRow, answers: list[Answer]) -> dict[str, str]:
        first, second = answers
        return {"instruction": row.instruction, "output_1": first.text, "output_2": second.text}

    def load() -> RowJob:
        # Loaded only now: a finished output needs no model.
        model, longest = InferenceModel(args), args.max_prompt_seq_len
        return generation_job(model, rows, [sampling], max_prompt_seq_len=longest, finish=finish)

    facts = {"what": "sampling", **asdict(sampling), "max_prompt_seq_len": args.max_prompt_seq_len, **model_facts(args)}
    run_job(rows, args, output, facts=facts, load=load)


if __name__ == "__main__":
    run_program(main)
