"""Options of the programs that read models: chatbot.py (one class a mode), rerank.py and the evaluators."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import Any, Literal

from utils.arguments import parse
from utils.arguments.options import expect_backend, option
from utils.errors import UserError

BACKENDS = ("shared", "hf", "vllm")  # utils/generation
Mode = Literal["generate", "ppl", "rm", "chat"]


@dataclass
class ReaderArguments:
    model_name_or_path: str = option("", help="Hugging Face name or local folder of the model")
    config_name_or_path: str | None = option(help="folder whose config.json is read instead of the model's own")
    tokenizer_name_or_path: str | None = option(help="tokenizer, when it is not beside the model")
    template: str | None = option(
        help="prompt template by name (docs/data.md); None uses the tokenizer's chat template; "
        "plain takes a prompt's text as it stands"
    )
    bf16: bool = option(False, help="read in bfloat16; log-probs and scores stay float32")
    deepspeed: bool = option(False, help="the ranks are started by the deepspeed launcher (torchrun says so itself)")


@dataclass
class FileArguments:
    data_path: list[str] = option(
        [],
        help="data sets, each [CLASS:]PATH_OR_NAME (docs/data.md), and globs of files",
        aliases=["--input_file", "--input_files"],
    )
    output_path: str = option(
        "", help="file to write; none: beside the input, named by what was done", aliases=["--outfile_name_or_path"]
    )
    batch_size: int = option(8, help="prompts at a time, each with all its answers; it does not change what is written")
    data_fraction: float = option(1.0, help="this share of the rows, from --offset on")
    offset: int = option(0, help="rows to leave out at the front")
    overwrite: bool = option(False, help="replace an output that was made with other options, or not by this program")

    def check_files(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"--batch_size is {self.batch_size}; expected 1 or more")
        if not 0 < self.data_fraction <= 1:
            raise UserError(f"--data_fraction is {self.data_fraction}; expected above 0 and at most 1")
        if self.offset < 0:
            raise UserError(f"--offset is {self.offset}; expected 0 or more")


@dataclass
class AnswerArguments:
    max_prompt_seq_len: int = option(384, help="longest prompt in tokens; longer ones lose their start")
    max_new_tokens: int = option(256, help="longest answer in tokens")
    min_new_tokens: int = option(0, help="no stop token before so many")
    repetition_penalty: float = option(1.0, help="above 1 makes tokens that were said already less likely")
    no_repeat_ngram_size: int = option(0, help="no sequence of so many tokens twice; 0: off")
    generation_backend: str = option("shared", help="what computes the answers: shared | hf | vllm (utils/generation)")
    additional_human_stopword: bool = option(False, help='an answer also ends where it goes on with "\\n\\nHuman:"')

    def __post_init__(self) -> None:
        expect_backend(self.generation_backend, *BACKENDS)


@dataclass
class DrawArguments:
    top_p: float = option(1.0, help="draw from the likeliest tokens that together have this probability")
    top_k: int = option(0, help="draw from so many of the likeliest tokens; 0: from all")
    seed: int = option(42, help="seed of what is drawn; a row's answers depend on it and on the row's number")


@dataclass
class LengthArguments:
    max_seq_len: int = option(
        0, help="longest prompt with one answer in tokens; prompts lose their start; 0: the model's limit"
    )
    tokens_per_batch: int = option(
        16_384, help="most tokens of a forward pass; a prompt with many answers is split; 0: no limit"
    )


@dataclass
class GenerateArguments(DrawArguments, AnswerArguments, FileArguments, ReaderArguments):
    mode: Mode = option("generate", help="generate | ppl | rm | chat; --mode NAME --help shows the options of one")
    num_samples: int = option(0, help="answers drawn for a prompt at each temperature; 0: one greedy answer")
    temperature: list[float] = option([1.0], help="one or several; below 1 sharpens the distribution")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_files()
        if self.num_samples < 0:
            raise UserError(f"--num_samples is {self.num_samples}; expected 0 (greedy) or more")
        if self.num_samples and min(self.temperature) <= 0:
            found = f"--temperature is {min(self.temperature):g}; expected above 0"
            raise UserError(f"{found}; for one greedy answer give --num_samples 0 alone")
        if not self.num_samples:
            for name, kept in (("temperature", [1.0]), ("top_p", 1.0), ("top_k", 0), ("seed", 42)):
                if getattr(self, name) != kept:
                    raise UserError(
                        f"--{name} has no effect on a greedy answer; give --num_samples above 0, or leave it out"
                    )


@dataclass
class PplArguments(LengthArguments, AnswerArguments, FileArguments, ReaderArguments):
    mode: Mode = option("ppl", help="generate | ppl | rm | chat")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_files()


@dataclass
class RmArguments(LengthArguments, FileArguments, ReaderArguments):
    mode: Mode = option("rm", help="generate | ppl | rm | chat")

    def __post_init__(self) -> None:
        self.check_files()


@dataclass
class ChatArguments(DrawArguments, AnswerArguments, ReaderArguments):
    mode: Mode = option("chat", help="generate | ppl | rm | chat")
    temperature: float = option(0.7, help="0 is greedy")
    system: str = option("", help="system message to begin with")
    reward_model_name_or_path: str | None = option(help="a reward model that scores every answer")


MODES: dict[str, type] = {"generate": GenerateArguments, "ppl": PplArguments, "rm": RmArguments, "chat": ChatArguments}


def parse_mode(argv: list[str] | None, description: str) -> Any:
    """The options of the mode that --mode names. Raises UserError, also for an option that only other modes use."""
    argv = list(sys.argv[1:] if argv is None else argv)
    words = [word.replace("=", " ", 1).split(" ", 1) for word in argv]
    at = next((i for i, word in enumerate(words) if word[0] == "--mode"), None)
    mode = None if at is None else words[at][1] if len(words[at]) > 1 else (argv[at + 1] if at + 1 < len(argv) else "")
    if mode is None and not {"--help", "-h"} & set(argv):
        raise UserError("--mode is missing; expected --mode generate, ppl, rm or chat")
    if mode is not None and mode not in MODES:
        raise UserError(f"--mode {mode}: no such mode; expected generate, ppl, rm or chat")
    group = MODES[mode or "generate"]
    mine = _flags(group)
    for flag in (word[0].replace("-", "_").replace("__", "--", 1) for word in words if word[0].startswith("--")):
        others = [name for name, other in MODES.items() if flag in _flags(other)]
        if flag not in mine and others:
            raise UserError(f"{flag} is used by --mode {' and '.join(others)}, not by --mode {mode}; leave it out")
    (args,) = parse([group], argv, description)
    return args


def _flags(group: type) -> set[str]:
    return {flag for f in fields(group) for flag in (f"--{f.name}", *f.metadata.get("aliases", []))}
