"""Options of the programs that read models: chatbot.py (one class a mode), rerank.py and the evaluators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from utils.arguments.choices import expect_backend
from utils.arguments.declarations import option, overwriting, required
from utils.errors import UserError

BACKENDS = ("shared", "hf", "vllm")  # utils/generation
Mode = Literal["generate", "ppl", "rm", "chat", "arena"]


@dataclass
class ReaderArguments:
    """Options of a model that is read."""

    model_name_or_path: str = option(
        "", help="model to read; a Hugging Face name or a local folder", title="Model", first=True
    )
    config_name_or_path: str | None = option(help="folder whose config.json is read; None: the model's own")
    tokenizer_name_or_path: str | None = option(help="folder of the tokenizer; None: that of the model")
    template: str | None = option(
        help="prompt template; by its name in docs/data.md, or plain, which takes a prompt's text as it is; "
        "None: the tokenizer's",
        first=True,
    )
    bf16: bool = option(False, help="read in bfloat16; log-probs and scores stay float32", first=True)
    deepspeed: bool = option(False, help="the deepspeed launcher starts the ranks; with torchrun it is known")


@dataclass
class FileArguments:
    """Options of the files that are read and written."""

    data_path: list[str] = option(
        [],
        help="data to read; data sets, each [CLASS:]PATH_OR_NAME (docs/data.md), and globs of files",
        aliases=["--input_file", "--input_files"],
        title="Files",
        first=True,
    )
    output_path: str = option(
        "",
        help="file to write; None: beside the input, named by what was done",
        aliases=["--outfile_name_or_path"],
        first=True,
    )
    # Answers of different prompts do not see each other: the size changes memory and speed alone.
    batch_size: int = option(
        8, help="prompts at a time; each with all its answers; it does not change what is written", first=True
    )
    data_fraction: float = option(1.0, help="share of the rows to read, from --offset on", first=True)
    offset: int = option(0, help="rows to leave out at the front")
    overwrite: bool = overwriting("replace an output of other options; also one that this program did not write")

    def check_files(self) -> None:
        """Refuse values out of range: classes that inherit this one have a `__post_init__` of their own."""
        if self.batch_size < 1:
            raise UserError(f"--batch_size is {self.batch_size}; expected 1 or more")
        if not 0 < self.data_fraction <= 1:
            raise UserError(f"--data_fraction is {self.data_fraction}; expected above 0 and at most 1")
        if self.offset < 0:
            raise UserError(f"--offset is {self.offset}; expected 0 or more")


@dataclass
class AnswerArguments:
    """Options of answers that a model generates."""

    max_prompt_seq_len: int = option(
        384, help="longest prompt in tokens; longer ones lose their start", title="Answers", first=True
    )
    max_new_tokens: int = option(256, help="longest answer in tokens", first=True)
    min_new_tokens: int = option(0, help="tokens before which an answer does not end")
    repetition_penalty: float = option(1.0, help="above 1 makes tokens that occurred already less likely")
    no_repeat_ngram_size: int = option(0, help="length of token sequences that do not occur twice; 0: off")
    generation_backend: str = option("shared", help="what computes the answers; shared, hf or vllm (utils/generation)")
    additional_human_stopword: bool = option(False, help='end an answer where it goes on with "\\n\\nHuman:"')

    def __post_init__(self) -> None:
        expect_backend(self.generation_backend, *BACKENDS)


@dataclass
class DrawArguments:
    """Options of sampling."""

    top_p: float = option(
        1.0,
        help="sample from the likeliest tokens that together have this probability (top-p)",
        title="Sampling",
        first=True,
    )
    top_k: int = option(0, help="sample from the k likeliest tokens (top-k); 0: from all", first=True)
    seed: int = option(42, help="seed of sampling; a row's answers depend on it and on the row's number", first=True)


@dataclass
class LengthArguments:
    """Options of the lengths of what is scored."""

    max_seq_len: int = option(
        0,
        help="longest prompt with one answer in tokens; prompts lose their start; 0: the model's limit",
        title="Lengths",
        first=True,
    )
    tokens_per_batch: int = option(
        16_384, help="most tokens of a forward pass; a prompt with many answers is split; 0: no limit"
    )


@dataclass
class GeneratorArguments:
    """The name that answers are signed with."""

    generator: str | None = option(
        help="name of the model; what answers are signed with; None: end of its path", title="Files"
    )


MODE = "generate answers, ppl (perplexity), rm (scores), chat, or arena (compare)"


@dataclass
class GenerateArguments(GeneratorArguments, DrawArguments, AnswerArguments, FileArguments, ReaderArguments):
    """Options of --mode generate."""

    mode: Mode = option("generate", help=MODE, title="Mode", first=True)
    num_samples: int = option(
        0, help="answers sampled for a prompt at each temperature; 0: one greedy answer", title="Sampling", first=True
    )
    temperature: list[float] = option(
        [1.0], help="one temperature or several; below 1 sharpens the distribution", first=True
    )

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
    """Options of --mode ppl."""

    mode: Mode = option("ppl", help=MODE, title="Mode", first=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_files()


@dataclass
class RmArguments(LengthArguments, FileArguments, ReaderArguments):
    """Options of --mode rm."""

    mode: Mode = option("rm", help=MODE, title="Mode", first=True)

    def __post_init__(self) -> None:
        self.check_files()


@dataclass
class ChatArguments(DrawArguments, AnswerArguments, ReaderArguments):
    """Options of --mode chat."""

    mode: Mode = option("chat", help=MODE, title="Mode", first=True)
    temperature: float = option(0.7, help="temperature of the answers; 0 is greedy", title="Sampling", first=True)
    system: str = option("", help="system message to begin with", title="Chat", first=True)
    reward_model_name_or_path: str | None = option(help="reward model that scores every answer", first=True)


@dataclass
class ArenaArguments:
    """Options of --mode arena."""

    answers: list[str] = required(
        "the answers of two models, each NAME=FILE, as --mode generate wrote them", title="Arena"
    )
    output_path: str = required("file for the comparisons; those that it has are not asked again")
    mode: Mode = option("arena", help=MODE, first=True)
    judge: str = option("person", help="your name in the comparisons")
    ratings: bool = option(False, help="also rate every answer from 1 to 7")
    num_prompts: int = option(0, help="prompts to compare, from the front; 0: all")
    seed: int = option(42, help="seed of which answer is shown first")
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        if len(self.answers) != 2:
            raise UserError(f"--answers has {len(self.answers)} files; expected two, as in sft=a.jsonl dpo=b.jsonl")
        if self.num_prompts < 0:
            raise UserError(f"--num_prompts is {self.num_prompts}; expected 0 (all) or more")


MODES: dict[str, type] = {
    "generate": GenerateArguments,
    "ppl": PplArguments,
    "rm": RmArguments,
    "chat": ChatArguments,
    "arena": ArenaArguments,
}
