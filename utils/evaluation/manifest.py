"""What must be equal in two evaluations whose numbers are compared: protocol, judge, template, decoding, reference.

A difference between two win rates says something of the models only where nothing else changed. Each evaluation keeps
these facts in `manifest` of its JSON file, and `refuse_mismatch` names every one that differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.evaluation.comparisons import UNKNOWN

# The facts of <answers>.args.json that say how a model was asked; models, data and sizes of batches are not among them.
DECODING = ("max_new_tokens", "min_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty",
            "no_repeat_ngram_size", "num_beams", "stop_strings", "max_prompt_seq_len")  # fmt: skip


def of_answers(answers: Path) -> dict[str, Any]:
    """Return template and decoding of a file of answers, from the .args.json that chatbot.py wrote beside it.

    Raises:
        UserError: there is no such file, or it is not of generated answers.
    """
    path = answers.with_name(f"{answers.name}.args.json")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; expected what chatbot.py --mode generate wrote") from error
    if not isinstance(facts, dict) or facts.get("what") != "generating":
        raise UserError(f"{path}: found no settings of generated answers; name an output of chatbot.py --mode generate")
    decoding = {name: facts[name] for name in DECODING if name in facts}
    return {"template": facts.get("template") or "the tokenizer's", "decoding": [json.dumps(decoding, sort_keys=True)]}


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return an evaluation that win_rate.py or eval_alpaca.py wrote with --json.

    Raises:
        UserError: it cannot be read, or lacks manifest or outcomes.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(found.get(name), dict) for name in ("manifest", "outcomes")):
        raise UserError(f"{path}: has no manifest and outcomes; expected what win_rate.py wrote with --json")
    return found


def mismatches(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return "name: value, value" for each fact that two manifests do not share."""
    found = []
    for name in dict.fromkeys([*first, *second]):
        values = [each.get(name, UNKNOWN) for each in (first, second)]
        if values[0] != values[1]:
            found.append(f"{name}: {_text(values[0])}, {_text(values[1])}")
    return found


def unknown_facts(manifest: Mapping[str, Any]) -> list[str]:
    """Return the names of facts that are not known, of which equality cannot be checked."""
    names = []
    for name in ("judge", "template", "decoding"):
        value = manifest.get(name, UNKNOWN)
        if value == UNKNOWN or value == [UNKNOWN]:
            names.append(name)
    return names


def refuse_mismatch(first: tuple[Path, dict], second: tuple[Path, dict]) -> None:
    """Refuse two evaluations, each (path, manifest), whose manifests differ. Raises UserError."""
    (path, manifest), (other_path, other) = first, second
    differing = mismatches(manifest, other)
    if differing:
        raise UserError(
            f"{path} and {other_path} were not evaluated alike ({'; '.join(differing)}); evaluate both in the same way"
        )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value))
    return str(value)
