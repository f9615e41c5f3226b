"""Options of data_collect/request.py: what is asked of whom, and which options each kind of feedback has of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from utils.arguments.declarations import BELOW_ONE, NOT_NEGATIVE, expect, option, overwriting, refuse_other_choices
from utils.errors import UserError
from utils.feedback import KINDS
from utils.feedback.cases import unknown_kind
from utils.feedback.forms import STRUCTURED
from utils.llm.asking import RateLimits

ALIASES = {"gpt4": "gpt-4o", "chatgpt": "gpt-4o-mini", "claude": "claude-sonnet-4-20250514"}


@dataclass
class RequestArguments:
    input_files: list[str] = option(
        [],
        help="rows to ask about; for --kind label two generators'",
        aliases=["--input_csv"],
        title="Files",
        first=True,
    )
    output_file: str | None = option(
        help="file to write; .jsonl, .txt, .csv or .json", aliases=["--save_feedback_csv"], first=True
    )
    api_type: str = option(
        "gpt4",
        help="model to ask; gpt4, chatgpt and claude are short names",
        aliases=["--gpt_version", "--llm", "--ai_model"],
        title="Questions",
        first=True,
    )
    provider: Literal["openai", "anthropic", "replay"] | None = option(help="provider; None: by the model's name")
    base_url: str | None = option(help="another server of the same API; for replay the file of saved answers")
    kind: str | None = option(
        help="kind of feedback; "
        + "; ".join(f"{k.name}: {k.about}" for k in KINDS.values())
        + "; None: each row's feedback_type",
        first=True,
    )
    base_models: str | None = option(
        help="models of the answers, as a,b; whose answers are asked about",
        aliases=["--base_model"],
        title="Rows",
        first=True,
        only={"kind": tuple({name for name, kind in KINDS.items() if kind.answers} - {"label"} | {None})},
    )
    nums: str | None = option(help="rows to take; n: the first n; a,b: row a up to b, from 0; None: all", first=True)
    start_index: int = option(0, help="rows to leave out at the start")
    columns: list[str] = option(
        [], help="names of columns, as prompt=question", title="Rows", only={"kind": (*(set(KINDS) - {"label"}), None)}
    )
    prompt_file: list[str] = option(
        [],
        help="prompts of your own; files of them; None: data_collect/prompts",
        title="Questions",
        first=True,
    )
    overwrite: bool = overwriting(title="Files")
    ledger: str | None = option(help="file that keeps replies; None: <output_file>.ledger", first=True)
    temperature: float = option(0.0, help="sampling temperature", title="Questions", first=True)
    max_tokens: int | None = option(help="longest reply in tokens; None: the provider's own limit, with --max_usd 4096")
    structured: bool = option(
        False,
        help="ask for JSON replies by a schema, where the server has them; not for free texts",
        title="Questions",
        only={"kind": (*(name for name, kind in KINDS.items() if set(kind.forms) & set(STRUCTURED)), None)},
    )
    scale: str | None = option(help="lowest and highest rating; None: 1,7", only={"kind": ("rating",)}, first=True)
    orders: Literal["both", "random", "fixed"] | None = option(
        help="order of two answers; which is shown first; None: both, for label and --listwise random",
        only={"kind": ("label", "preference", "ranking", None)},
        first=True,
    )
    listwise: bool = option(
        False, help="ask for one order of all; instead of pairs of answers", only={"kind": ("ranking",)}, first=True
    )
    objectives: str | None = option(
        help="file of learning objectives; one a line", only={"kind": ("conversation",)}, first=True
    )
    data_fraction: float | None = option(
        help="share of the rows to take; from the first on; None: all", only={"kind": ("completion",)}, first=True
    )
    ff: int | None = option(help="rows of that share to skip; None: 0", only={"kind": ("completion",)})

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise unknown_kind(self.kind)
        expect(self, NOT_NEGATIVE, "temperature", "start_index", "ff")
        expect(self, "1 or more", "max_tokens")
        expect(self, "above 0 and at most 1", "data_fraction")
        self.model = ALIASES.get(self.api_type, self.api_type)
        self.provider = self.provider or ("anthropic" if self.model.startswith("claude") else "openai")
        if not self.input_files and self.kind != "label" and not self.objectives:
            raise UserError("--input_files is missing; name the file of rows to ask about")
        if self.output_file is None and self.kind != "label":
            raise UserError("--output_file is missing; name the file to write")
        refuse_other_choices(self)


@dataclass
class LabelArguments:
    """Two generators compared, in <base_dir>/comparisons_LLM/M1_vs_M2/annotations.json."""

    model1_name: str | None = option(
        help="generator in question, output_2 of the annotations; None: temp1.0",
        title="Only with --kind label",
        first=True,
    )
    model2_name: str | None = option(help="generator it is compared with, output_1; None: chatgpt")
    base_dir: str | None = option(help="folder of both generators' answers; also of the annotations", first=True)
    max_num_comparisons: int | None = option(help="most comparisons; None: 200")
    filter_out_fraction: float | None = option(help="share of the prompts to leave out, from the first; None: 0")

    def __post_init__(self) -> None:
        expect(self, "1 or more", "max_num_comparisons")
        expect(self, BELOW_ONE, "filter_out_fraction")

    @property
    def names(self) -> tuple[str, str]:
        return self.model1_name or "temp1.0", self.model2_name or "chatgpt"


@dataclass
class RequestLimits(RateLimits):
    concurrency: int = option(
        32, help="requests in flight at most", aliases=["--n_workers"], title="Limits and retries", first=True
    )
