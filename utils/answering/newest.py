"""What `--mode rm` takes when it is not told: the newest reward model, and the newest answers, under output/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from utils.answering.output import MADE_BY
from utils.errors import UserError
from utils.reporting import say


def newest_reward_model(output: Path) -> Path:
    """Return the newest folder of a reward model under `output`. Raises UserError when there is none."""
    configs = []
    for file in _under(output, "config.json"):
        config = _json(file)
        # PPO's critic, in critic/ of its run, has the architecture of a reward model, but predicts values.
        critic = config.get("is_critic") or file.parent.name == "critic"
        if "SequenceClassification" in str(config.get("architectures")) and not critic:
            configs.append(file)
    return _newest(
        configs, f"reward model under {output}", flag="--model_name_or_path", example="output/tutor/reward"
    ).parent


def newest_answers(output: Path) -> Path:
    """Return the newest file that --mode generate finished under `output`. Raises UserError when there is none."""
    files = []
    for made in _under(output, f"*{MADE_BY}"):
        answers = made.with_name(made.name.removesuffix(MADE_BY))
        if _json(made).get("what") == "generating" and answers.is_file():
            files.append(answers)
    return _newest(files, f"generated answers under {output}", flag="--data_path", example="output/tutor/answers.jsonl")


def _under(output: Path, pattern: str) -> list[Path]:
    # Models in checkpoints and copies in caches are no results.
    return [file for file in output.rglob(pattern) if not {"cache", "checkpoints"} & set(file.parts)]


def _json(file: Path) -> dict[str, Any]:
    """Return the object in a file, or {} if it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def _newest(found: list[Path], what: str, flag: str, example: str) -> Path:
    """Return the newest file, and print its name. Raises UserError that asks for `flag` when there is none."""
    if not found:
        raise UserError(f"no {what}; name one with {flag}, as in "
                        f"python inference/chatbot.py --mode rm {flag} {example}")  # fmt: skip
    newest = max(found, key=lambda path: path.stat().st_mtime)
    say(f"newest {what.partition(' under ')[0]}: {newest.parent if newest.name == 'config.json' else newest}")
    return newest
