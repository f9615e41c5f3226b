"""The cells of matrix.py: a stage with one value of every factor, and which of them the programs refuse.

Every layout (ZeRO stage x ranks x full or LoRA) meets every other value, and every two other values meet, in at least
one cell: a covering array, not the whole product.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# ---- factors: name -> value -> flags. The first value is the default; the word WORLD stands for the folder of
# the toy models and data.

STAGES = {"sft": "step1_sft", "reward": "step2_reward", "dpo": "step3_dpo", "ppo": "step3_ppo"}
LORA = ("--lora_dim", "4")
LAYOUTS = {
    f"zero{zero}-{ranks}rank{'s' * (ranks > 1)}-{tuning}": ("--zero_stage", str(zero), *flags)
    for zero in range(4)
    for ranks in (1, 2)
    for tuning, flags in (("full", ()), ("lora", LORA))
}
SAMPLES = ("--sample_during_eval", "3", "--sample_max_new_tokens", "6")
REWARD_MODEL = ("--reward_model_name_or_path", "WORLD/reward")
SAMPLING = {"": (), "sampling": SAMPLES, "sampling+reward": (*SAMPLES, *REWARD_MODEL)}
BY_FUNCTION = ("--reward_fn", "WORLD/rewards.py:yes", "--true_reward_fn", "WORLD/rewards.py:short")
NONE_FINISHED = ("--unfinished", "mask", "--truncate_at", "unheard-of")
COMMON = {
    "layout": LAYOUTS,
    "dtype": {"fp32": (), "bf16": ("--bf16",)},
    "offload": {"": (), "offload": ("--offload",)},
    "embeddings": {"": (), "tied": ()},  # which model it starts from
    "activations": {"": (), "recompute": ("--gradient_checkpointing",)},
    "batches": {"": (), "budget": ("--tokens_per_micro_batch", "64")},
    "average": {"": (), "ema": ("--ema_decay", "0.5")},
    "pace": {"": (), "every-step": ("--eval_every", "1", "--save_every", "1")},
    "end": {"": (), "continued": ("--checkpoint_every", "2")},  # again from the checkpoint of step 2
}
FACTORS = {
    "sft": {**COMMON, "sampling": SAMPLING},
    "reward": COMMON,
    "dpo": {
        **COMMON,
        "sampling": SAMPLING,
        "reference": {"": (), "other-reference": ("--reference_model_name_or_path", "WORLD/other")},
    },
    "ppo": {
        **COMMON,
        "advantage": {"": (), "rloo": ("--advantage", "rloo"), "group": ("--advantage", "group")},
        "kl": {"": (), "kl-in-loss": ("--kl_in", "loss", "--kl_estimate", "k3")},
        "unfinished": {"": (), "mask": ("--unfinished", "mask"), "none-finished": NONE_FINISHED},
        "ptx": {"": (), "ptx": ("--ptx_data_path", "WORLD/demos", "--ptx_coef", "1", "--ptx_batch_size", "4")},
        "rollouts": {"": (), "sharded": ("--no_enable_hybrid_engine",)},
        "scoring": {"": REWARD_MODEL, "function": BY_FUNCTION},
        "frozen": {"": (), "frozen-on-cpu": ("--offload_reference_and_reward",)},
    },
}
# Three steps in one epoch; five held-out prompts divide neither by two ranks nor by batches of two.
ALWAYS = ("--num_train_epochs", "1", "--max_eval_samples", "5", "--per_device_eval_batch_size", "2")
PPO = (
    "--max_answer_seq_len", "6", "--prompts_per_rollout", "8", "--samples_per_prompt", "2", "--minibatches", "2",
    "--ppo_epochs", "1", "--generation_batch_size", "2",
)  # fmt: skip
STEPS = 3
TOLERANCE = 1e-4  # of metrics in float32 between layouts: sums in another order, three updates of Adam


@dataclass(frozen=True)
class Cell:
    """A stage with one value of each of its factors."""

    stage: str
    values: tuple[str, ...]  # one for each factor of the stage, in its order

    @property
    def chosen(self) -> dict[str, str]:
        """The value of each factor."""
        return dict(zip(FACTORS[self.stage], self.values, strict=True))

    def __getitem__(self, factor: str) -> str:
        return self.chosen.get(factor, "")

    @property
    def name(self) -> str:
        return "-".join([self.stage, *filter(None, self.values)])

    @property
    def ranks(self) -> int:
        return int(self["layout"][6])

    @property
    def evaluated(self) -> list[int]:
        return list(range(STEPS + 1)) if self["pace"] else [0, STEPS]

    @property
    def learns(self) -> bool:
        """Does the policy get an update? Not when every answer is masked and there is nothing beside them."""
        return self["unfinished"] != "none-finished" or bool(self["ptx"])

    def flags(self, world: Path) -> list[str]:
        given = [*ALWAYS, *(PPO if self.stage == "ppo" else ())]
        for name, value in self.chosen.items():
            given += FACTORS[self.stage][name][value]
        given += [] if self["end"] else ["--checkpoint_every", "0"]
        return [word.replace("WORLD", str(world)) for word in given]


def cell(stage: str, **values: str) -> Cell:
    """The cell with these values, and the default of every other factor."""
    unknown = set(values) - set(FACTORS[stage])
    if unknown:
        raise ValueError(f"{stage} has no factor {unknown.pop()}")
    return Cell(stage, tuple(values.get(name, next(iter(factor))) for name, factor in FACTORS[stage].items()))


def refusal(values: dict[str, str]) -> str | None:
    """What the programs' reason begins with where they refuse these values of some factors; None where they run."""
    zero = values.get("layout", "")[:5]
    if zero == "zero0" and values.get("dtype") == "bf16":
        return "--bf16 needs --zero_stage 1, 2 or 3"
    if zero == "zero0" and values.get("offload"):
        return "--offload needs --zero_stage 1, 2 or 3"
    if zero in ("zero0", "zero1", "zero2") and values.get("rollouts") == "sharded":
        return "--no_enable_hybrid_engine is for ZeRO-3"
    return None


# ---- the covering array

Pair = tuple[tuple[str, str], tuple[str, str]]


def pairs_of(values: dict[str, str]) -> list[Pair]:
    return list(itertools.combinations(values.items(), 2))


def covering(factors: dict[str, dict], first: Sequence[dict[str, str]] = ()) -> list[dict[str, str]]:
    """Rows in which every two values of any two factors meet, unless they are refused; it begins with `first`. Greedy,
    the best of fifty random rows each time: Cohen et al. 1997, "The AETG System"."""
    draw = random.Random(0)
    every = (dict(pair) for f in itertools.combinations(factors, 2) for pair in _values(f, factors))
    missing = dict.fromkeys(pair for values in every if not refusal(values) for pair in pairs_of(values))
    rows = []
    for row in first:
        rows.append(row)
        _strike(missing, row)
    while missing:
        found = [_candidate(factors, missing, draw) for _ in range(50)]
        rows.append(max(found, key=lambda row: sum(pair in missing for pair in pairs_of(row))))
        _strike(missing, rows[-1])
    return rows


def _values(names: Sequence[str], factors: dict[str, dict]):
    return itertools.product(*([(name, value) for value in factors[name]] for name in names))


def _strike(missing: dict[Pair, None], row: dict[str, str]) -> None:
    for pair in pairs_of(row):
        missing.pop(pair, None)


def _candidate(factors: dict[str, dict], missing: dict[Pair, None], draw: random.Random) -> dict[str, str]:
    row = dict(draw.choice(list(missing)))
    for name in draw.sample(list(factors), len(factors)):
        if name in row:
            continue
        possible = [value for value in factors[name] if not refusal(row | {name: value})]
        gains = [_gain(row, (name, value), factors, missing) for value in possible]
        row[name] = draw.choice([v for v, gain in zip(possible, gains, strict=True) if gain == max(gains)])
    return {name: row[name] for name in factors}


def _gain(row: dict[str, str], new: tuple[str, str], factors: dict[str, dict], missing: dict[Pair, None]) -> int:
    """How many missing pairs a further value adds to a row."""
    order = list(factors)
    return sum(tuple(sorted((old, new), key=lambda known: order.index(known[0]))) in missing for old in row.items())


TWINS = {  # layouts whose metrics must agree, in float32, with evaluation and sampling at every step
    "full": ["zero0-1rank-full", "zero0-2ranks-full", "zero2-2ranks-full", "zero3-1rank-full", "zero3-2ranks-full"],
    "lora": ["zero0-1rank-lora", "zero2-2ranks-lora", "zero3-2ranks-lora"],
}


def twins(stage: str) -> list[list[Cell]]:
    more = {"sampling": "sampling+reward"} if "sampling" in FACTORS[stage] else {}
    return [
        [cell(stage, layout=layout, pace="every-step", average="ema", **more) for layout in group]
        for group in TWINS.values()
    ]


@functools.cache
def cells() -> list[Cell]:
    """Every cell: those that are compared, the rest of the covering array, those that must be refused."""
    found = []
    for stage, factors in FACTORS.items():
        first = [one.chosen for group in twins(stage) for one in group]
        found += [cell(stage, **row) for row in covering(factors, first)]
        for names in itertools.combinations(factors, 2):
            found += [cell(stage, **dict(pair)) for pair in _values(names, factors) if refusal(dict(pair))]
    return sorted(found, key=lambda one: (list(STAGES).index(one.stage), one["layout"]))
