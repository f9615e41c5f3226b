"""Options of rerank.py."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from utils.arguments.declarations import expect, option
from utils.arguments.inference import (
    AnswerArguments,
    DrawArguments,
    FileArguments,
    GeneratorArguments,
    LengthArguments,
    ReaderArguments,
)
from utils.errors import UserError

SAMPLES = 64  # answers to a prompt, as in Bansal et al. 2023, arXiv:2308.15812
NEEDS = {  # a way to score -> the option that it cannot do without
    "reward": "model_name_or_path",
    "implicit": "reference_model_name_or_path",
    "perplexity": "model_name_or_path",
    "judge": "judge",
    "function": "reward_fn",
}


@dataclass
class PolicyArguments(GeneratorArguments, DrawArguments, AnswerArguments):
    """Options of the model that answers."""

    temperature: float = option(1.0, help="temperature of the answers", title="Sampling", first=True)

    def sampled(self) -> list[str]:
        """Return the options of sampling that were changed."""
        names = []
        for field in dataclasses.fields(PolicyArguments):
            # A name can be given to answers that were not sampled here.
            if field.name != "generator" and getattr(self, field.name) != field.default:
                names.append(field.name)
        return names


@dataclass
class RerankArguments(PolicyArguments, LengthArguments, FileArguments, ReaderArguments):
    model_name_or_path: str = option(
        "",
        help="model that scores the answers; a reward model, for implicit the trained policy, for perplexity a "
        "language model; None: they have scores",
        aliases=["--reward_model_name_or_path"],
        title="Model",
        first=True,
    )
    policy_name_or_path: str | None = option(
        help="model that samples the answers; None: the data has them", title="Model", first=True
    )
    reference_model_name_or_path: str | None = option(
        help="reference of the implicit reward; what the policy was trained from", first=True
    )
    score_by: Literal["reward", "implicit", "perplexity", "judge", "function"] | None = option(
        help="what scores an answer; None: what the other options name", title="Scores", first=True
    )
    beta: float = option(1.0, help="factor of the implicit reward; β (log π − log ρ)")
    reward_fn: str | None = option(
        help="function; module:name or FILE.py:name, it takes a record and returns a number for each answer", first=True
    )
    judge: str | None = option(help="language model that rates answers; through a ledger, as request.py", first=True)
    provider: Literal["openai", "anthropic", "replay"] | None = option(help="provider; None: by the judge's name")
    base_url: str | None = option(help="another server of the same API")
    ledger: str | None = option(help="file that keeps the judge's replies; None: beside the output")
    scorer: str | None = option(help="scores to go by; of those that the answers have; None: the only ones")
    n: str = option(
        "",
        help=f"number of answers to choose from, or several, as 1,4,16; None: {SAMPLES} sampled, or all that every "
        "prompt has",
        title="Choice",
        first=True,
    )
    with_references: bool = option(
        False, help="choose also among the answers that the data came with, beside the sampled ones"
    )
    leave_out: list[str] = option([], help="values of the column dataset; rows to leave out, as selfinstruct")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_files()
        expect(self, "above 0", "temperature", "beta")
        if self.n and not all(word.strip().isdigit() and int(word) > 0 for word in self.n.split(",")):
            raise UserError(f"--n is {self.n!r}; expected numbers from 1 on, as 1,4,16")
        changed = self.sampled()
        if changed and not self.policy_name_or_path:
            raise UserError(f"--{changed[0]} is for sampling; give --policy_name_or_path, or leave it out")
        self._choose_scores()

    def _choose_scores(self) -> None:
        """Set `score_by`, and refuse options of another way to score."""
        given = [way for way in ("implicit", "judge", "function") if getattr(self, NEEDS[way])]
        if self.score_by:
            given = list(dict.fromkeys([self.score_by, *given]))
        if len(given) > 1:
            raise UserError(f"--{NEEDS[given[1]]} is for --score_by {given[1]}; leave it out with {given[0]}")
        way = given[0] if given else None
        if way is None and self.model_name_or_path:
            way = "reward"
        if way in ("judge", "function") and self.model_name_or_path:
            raise UserError(f"--model_name_or_path is not used with --score_by {way}; leave it out")
        if way == "perplexity" and not self.model_name_or_path:
            self.model_name_or_path = self.policy_name_or_path or ""
        if way and not getattr(self, NEEDS[way]):
            raise UserError(f"--{NEEDS[way]} is missing; --score_by {way} needs it")
        if way == "implicit" and not self.model_name_or_path:
            raise UserError("--model_name_or_path is missing; expected the policy whose implicit reward is computed")
        for name, its_way in (("beta", "implicit"), ("provider", "judge"), ("base_url", "judge"), ("ledger", "judge")):
            if way != its_way and getattr(self, name) not in (None, 1.0):
                raise UserError(f"--{name} is for --score_by {its_way}; leave it out")
        if self.policy_name_or_path and not way:
            raise UserError(
                "nothing scores the sampled answers; give --reward_model_name_or_path or another --score_by"
            )
        if way and self.scorer:
            raise UserError("--scorer names scores that the answers have; leave it out where they are scored anew")
        self.score_by = way

    @property
    def counts(self) -> list[int]:
        """The values of --n, ascending; [] where it is not given and nothing is sampled."""
        words = self.n.split(",") if self.n else []
        if not words and self.policy_name_or_path:
            return [SAMPLES]
        return sorted({int(word) for word in words})
