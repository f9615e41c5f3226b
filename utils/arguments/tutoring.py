"""Options of inference/tutoring.py, one class a mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from utils.arguments.declarations import NOT_NEGATIVE, expect, option, overwriting, required
from utils.arguments.inference import AnswerArguments, DrawArguments, FileArguments, ReaderArguments
from utils.errors import UserError


@dataclass
class TutorGenerateArguments(DrawArguments, AnswerArguments, FileArguments, ReaderArguments):
    temperature: float = option(0.3, help="temperature of the answers; 0 is greedy", title="Sampling", first=True)
    max_prompt_seq_len: int = option(3584, help="longest prompt in tokens; longer ones lose their start", first=True)
    max_new_tokens: int = option(512, help="longest answer in tokens", first=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_files()
        expect(self, NOT_NEGATIVE, "temperature")
        if not self.output_path.endswith(".csv"):
            raise UserError(f"--output_path is {self.output_path!r}; expected the name of a .csv file")


@dataclass(kw_only=True)
class TutorMetricsArguments:
    response_file: str = required("responses.csv; its columns are prompt, response (the model's turn), gpt (expected)")
    first_turns: Literal["skip", "keep"] = option(
        "skip", help="turns without a tutor's turn before them; skip leaves them out, keep counts them", first=True
    )
    quirk: bool = option(
        False,
        help="leave the first label out of macro-F1, as Tutorbot-Spock's script; not the empty one alone",
        first=True,
    )
    json: str | None = option(help="JSON file for the numbers", first=True)
    seed: int = option(0, help="seed of the bootstrap over conversations", first=True)
    overwrite: bool = overwriting()


@dataclass(kw_only=True)
class TutorPerplexityArguments(ReaderArguments):
    data_path: str = required("conversations whose last two turns are a tutor's turn and an alternative to it")
    max_seq_len: int = option(
        0, help="longest prompt with one answer in tokens; 0: the model's limit", title="Files", first=True
    )
    batch_size: int = option(8, help="conversations at a time", first=True)
    quirk: bool = option(False, help="divide by one token less for each turn, as Tutorbot-Spock's script", first=True)
    json: str | None = option(help="JSON file for the numbers", first=True)
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        expect(self, "1 or more", "batch_size")
