"""DeepSpeed's configuration: a file of ds_configs/ with what the options decide; what contradicts them is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from utils.arguments.options import TrainingArguments
from utils.engine import internals
from utils.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "ds_configs"


def config_of(args: TrainingArguments, world: int) -> dict[str, Any]:
    """Return DeepSpeed's config: a file of ds_configs/ (or --deepspeed FILE) with what the options decide filled in.
    `world`: the number of ranks. Raises UserError where file and options contradict each other."""
    suffix = "_offload" if args.offload else ""
    path = Path(args.deepspeed or CONFIGS / f"zero{args.zero_stage}{suffix}.json")
    if args.offload and args.zero_stage == 0 and not args.deepspeed:
        raise UserError("--offload needs --zero_stage 1, 2 or 3: at stage 0 there is nothing sharded to move")
    if not path.is_file():
        raise UserError(f"--deepspeed {path}: no such file")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    _check_blocks(config, path)
    if _on(config, "fp16"):
        raise UserError(f"{path}: fp16 is not supported; use --bf16 (log-probs overflow in fp16)")
    if _on(config, "bf16") and not args.bf16:
        raise UserError(f"{path}: its bf16 block is on; give --bf16, which decides")
    if config.get("gradient_clipping", "auto") not in ("auto", args.gradient_clipping):
        raise UserError(
            f"{path}: gradient_clipping is {config['gradient_clipping']}; give --gradient_clipping, which decides"
        )
    if _on(config, "torch_autocast") and config["zero_optimization"]["stage"] == 3 and world > 1:
        raise UserError(f"{path}: torch_autocast with ZeRO-3 on several ranks does not resume exactly; use --bf16")
    if args.bf16 and config["zero_optimization"]["stage"] == 0:
        raise UserError(f"{path}: --bf16 needs ZeRO stage 1 or more: stage 0 would round the master weights")
    for block in ("optimizer", "scheduler"):
        if block in config:
            raise UserError(f"{path}: remove the {block!r} block; --learning_rate and its neighbours set it")
    config["bf16"] = {"enabled": args.bf16}
    if args.bf16:
        # DeepSpeed's default sums micro-batches in bfloat16: of 512 equal ones a quarter of the norm is lost.
        config["data_types"] = {"grad_accum_dtype": "fp32"}
        config.setdefault("communication_data_type", "fp32")  # else ranks would add in bfloat16
    config["gradient_clipping"] = args.gradient_clipping  # DeepSpeed clips to 1.0 when this is left out
    # The trainer forms forward passes by tokens, so their number varies: its call of step() ends the accumulation, and
    # DeepSpeed only checks that these three sizes fit each other.
    config["managed_gradient_accumulation"] = False
    config["train_micro_batch_size_per_gpu"] = config["gradient_accumulation_steps"] = 1
    config["train_batch_size"] = world
    config.setdefault("steps_per_print", 10**9)  # never: the trainer reports each step itself
    return config


def _check_blocks(config: Any, path: Path) -> None:
    """Raise UserError for a block of the wrong form, and for what DeepSpeed itself would refuse in the ZeRO block, but
    before any model is loaded."""
    zero = None
    if isinstance(config, dict):
        zero = config.setdefault("zero_optimization", {"stage": 0})
    if not isinstance(zero, dict) or "stage" not in zero:
        raise UserError(f"{path}: expected a JSON object with zero_optimization.stage")
    for name in ("fp16", "bf16", "torch_autocast"):
        if not isinstance(config.get(name, {}), dict):
            raise UserError(f'{path}: {name} is {config[name]!r}; expected an object, as {{"enabled": false}}')
    try:
        internals.check_zero_block(zero)
    except ValueError as error:  # pydantic's
        (where, *_), found = error.errors()[0]["loc"], error.errors()[0]
        raise UserError(f"{path}: zero_optimization.{where} is {found['input']!r}: {found['msg']}") from None


def _on(config: dict[str, Any], block: str) -> bool:
    return config.get(block, {}).get("enabled") is True
