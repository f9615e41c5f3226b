"""Options of data_collect/request.py: what is asked of whom, and which options each kind of feedback has of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from utils.arguments.choices import refuse_other_choices
from utils.arguments.declarations import BELOW_ONE, NOT_NEGATIVE, expect, option, overwriting
from utils.errors import UserError
from utils.feedback import KINDS
from utils.feedback.forms import STRUCTURED
from utils.llm.asking import RateLimits

# Fields of a body that --extra_body leaves to the options, to the rows, or to the code that reads replies.
OTHERWISE_GIVEN = {
    "model": "--api_type", "messages": "the rows", "system": "--prompt_file", "temperature": "--temperature",
    "max_tokens": "--max_tokens", "max_completion_tokens": "--max_tokens", "reasoning_effort": "--reasoning_effort",
    "response_format": "--structured",
}  # fmt: skip
UNREADABLE = ("stream", "n")


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
    draw: int | None = option(help="rows to draw at random; of those of --nums; None: all")
    seed: int = option(0, help="seed of --draw and of =Nrows")
    samples: int = option(
        1, help="answers to each request; each is a row of the output", only={"kind": (*(set(KINDS) - {"label"}), None)}
    )
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
    temperature: float | None = option(
        help="sampling temperature; None: none is sent, and the server takes its own", title="Questions", first=True
    )
    max_tokens: int | None = option(
        help="longest reply in tokens; thinking included; None: the server's own limit, and with --max_usd one for "
        "each kind"
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = option(
        help="how long the model thinks; not every model knows every word; None: its own"
    )
    extra_body: str | None = option(help="further fields of every request; as a JSON object")
    api_key_env: str | None = option(
        help="environment variable that holds the server's key; None: OPENAI_API_KEY or ANTHROPIC_API_KEY, which go to "
        "their own servers alone"
    )
    prices: str | None = option(
        help="file of prices and short names; as utils/llm/providers/prices.json; None: prices.json beside the ledger"
    )
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
            raise UserError(f"--kind {self.kind} is unknown; known: {', '.join(KINDS)}")
        expect(self, NOT_NEGATIVE, "temperature", "start_index", "ff")
        expect(self, "1 or more", "max_tokens", "draw", "samples")
        expect(self, "above 0 and at most 1", "data_fraction")
        self.extra = extra_fields(self.extra_body)
        if not self.input_files and self.kind != "label" and not self.objectives:
            raise UserError("--input_files is missing; name the file of rows to ask about")
        if self.output_file is None and self.kind != "label":
            raise UserError("--output_file is missing; name the file to write")
        refuse_other_choices(self)


def extra_fields(text: str | None) -> dict[str, Any]:
    """Return the fields of --extra_body. Raises UserError."""
    try:
        fields = json.loads(text or "{}")
    except ValueError as error:
        raise UserError(f"--extra_body {text[:60]}: not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UserError(f"--extra_body is {text[:60]!r}; expected a JSON object, as '{{\"top_p\": 0.9}}'")
    for name in fields:
        if name in OTHERWISE_GIVEN:
            raise UserError(f"--extra_body: {name!r} comes from {OTHERWISE_GIVEN[name]}; leave it out")
        if name in UNREADABLE:
            raise UserError(f"--extra_body: {name!r} asks for a reply of another form; leave it out")
    return fields


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
