"""Tutoring data of coded turns: the split of the conversations, and pairs from a model's own answers.

    python data_collect/tutor.py split --data_dir datasets
    python data_collect/tutor.py pairs --response_file responses.csv --data_file datasets/bio_dpo_pairs.json

split   bio-dataset-1.json, -2, -3 -> bio-sft.json, bio-dpo.json, bio-test.json (conversations) and
        bio-dpo_formatted.json, bio-test_formatted.json (columns: prompt, chosen)
pairs   responses.csv (prompt, response, gpt) -> columns: prompt, chosen (the teacher's turn), rejected (the model's),
        reason (unparsable, incomplete, or what differs: evaluation, action, state)
"""

from __future__ import annotations

import random
import re
from argparse import ArgumentParser
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments.modes import parse_mode
from utils.arguments.options import NOT_NEGATIVE, expect, option, overwriting, required
from utils.errors import UserError
from utils.feedback.tutor_turns import INSTRUCTION, REASONS, cleaned, is_valid_reference, prompts_and_turns, why_worse
from utils.outputs import claim
from utils.raw_datasets.sources import open_source
from utils.raw_datasets.tutoring import literal
from utils.records import Message, RecordError
from utils.records.lines import read_jsonl
from utils.reporting import run_program, say, warn, write_json


@dataclass
class SplitArguments:
    data_dir: str = option("datasets", help="folder of bio-dataset-1.json, -2.json, …; the output goes there, too")
    num_sft: int = option(200, help="conversations of each file for supervised fine-tuning")
    num_dpo: int = option(200, help="conversations of each file for preference data")
    num_test: int = option(150, help="conversations of each file for testing, at most")
    instruction_file: str | None = option(
        help="file of the text that replaces every conversation's instruction; None: built in"
    )
    seed: int = option(42, help="seed of the draw")
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        expect(self, NOT_NEGATIVE, "num_sft", "num_dpo", "num_test")


@dataclass
class TutorPairsArguments:
    response_file: str = required(
        "file of responses.csv; its columns are prompt, response (the model's turn), gpt (the teacher's)",
    )
    data_file: str = required("JSON file of columns to write")
    use_all: bool = option(False, help="keep every row whose reference is valid, whatever the model answered")
    overwrite: bool = overwriting()


MODES = {"split": SplitArguments, "pairs": TutorPairsArguments}


def main(argv: list[str] | None = None) -> None:
    """Run one of MODES."""
    mode, args = parse_mode(MODES, argv, __doc__)
    {"split": split, "pairs": pairs}[mode](args)


# ---- split


def split(args: SplitArguments) -> None:
    """Draw from each file, divide the draw in three, clean it and write it."""
    folder, instruction = Path(args.data_dir), _instruction(args.instruction_file)
    data_sets = _data_sets(folder)
    files = [folder / f"bio-{name}.json" for name in ("sft", "dpo", "test", "dpo_formatted", "test_formatted")]
    reads = [*data_sets, args.instruction_file or ""]
    claim("tutor.py", {"--data_dir": files}, reads=reads, overwrite=args.overwrite)
    sets: dict[str, list[tuple[dict, str]]] = {"sft": [], "dpo": [], "test": []}
    sizes = [args.num_sft, args.num_dpo, args.num_test]
    # One generator for all files, in their order.
    draw = random.Random(args.seed)
    for path in data_sets:
        rows = [_checked(row, where) for row, where in read_jsonl(path)]
        # Two turns are a question and its answer, without a history to react to.
        long = [(row, where) for row, where in rows if len(row["conversations"]) > 2]
        drawn = draw.sample(long, min(sum(sizes), len(long)))
        say(f"{path}: {len(rows)} conversations, {len(rows) - len(long)} of at most two turns, {len(drawn)} drawn")
        for name, size in zip(sets, sizes, strict=True):
            sets[name] += drawn[:size]
            drawn = drawn[size:]
    dialogues = {name: _cleaned(rows, instruction) for name, rows in sets.items()}
    _report_overlap(dialogues)
    for name, found in dialogues.items():
        rows, cut = [], 0
        for row, _ in sets[name]:
            cut += len(row["conversations"])
        for key, dialogue in found:
            rows.append(_conversation(key, dialogue))
            cut -= len(dialogue)
        write_json(folder / f"bio-{name}.json", rows)
        say(f"bio-{name}.json: {len(found)} of {len(sets[name])} conversations; {cut} turns cut away")
    for name in ("dpo", "test"):
        columns: dict[str, list[str]] = {"prompt": [], "chosen": []}
        for _, dialogue in dialogues[name]:
            if len(dialogue) > 2:
                for prompt, turn in prompts_and_turns(dialogue):
                    columns["prompt"].append(prompt)
                    columns["chosen"].append(turn)
        write_json(folder / f"bio-{name}_formatted.json", columns)
        say(f"bio-{name}_formatted.json: {len(columns['prompt'])} prompts, each with the teacher's turn")


def _instruction(file: str | None) -> str:
    if file is None:
        return INSTRUCTION
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--instruction_file {file}: cannot be read as text: {error}") from error


def _data_sets(folder: Path) -> list[Path]:
    """Return the files bio-dataset-N.json in the order of their numbers."""
    found = {}
    for path in folder.glob("bio-dataset-*.json"):
        match = re.fullmatch(r"bio-dataset-(\d+)\.json", path.name)
        if match:
            found[path] = int(match[1])
    if not found:
        raise UserError(f"--data_dir {folder}: no bio-dataset-1.json, -2.json, … there; expected at least one")
    # By number: by name, 10 would come before 2, and the seed would draw other conversations.
    return sorted(found, key=found.get)


def _checked(row: Any, where: str) -> tuple[dict, str]:
    if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
        raise RecordError(f"{where}: found {str(row)[:60]!r}; expected an object with a list of conversations")
    return row, where


def _cleaned(rows: list[tuple[dict, str]], instruction: str) -> list[tuple[Any, list[Message]]]:
    dialogues = []
    for row, where in rows:
        dialogue = cleaned(row["conversations"], instruction, where)
        if dialogue:
            dialogues.append((row.get("id"), dialogue))
    return dialogues


def _conversation(key: Any, dialogue: list[Message]) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    return {"id": key, "conversations": [{"from": names[m.role], "value": m.content} for m in dialogue]}


def _report_overlap(dialogues: dict[str, list[tuple[Any, list[Message]]]]) -> None:
    """Warn of test conversations that open with a question that is also trained on."""
    # The split is by conversation, and two of them may open with the same question.
    known, both = set(), 0
    for _, (opening, *_) in (*dialogues["sft"], *dialogues["dpo"]):
        known.add(opening.content)
    for _, (opening, *_) in dialogues["test"]:
        both += opening.content in known
    if both:
        warn(f"{both} of {len(dialogues['test'])} test conversations open with a question that is also trained on")


# ---- pairs


def pairs(args: TutorPairsArguments) -> None:
    """Keep the rows in which the model's turn is worse than the teacher's, with the reason."""
    columns: dict[str, list[str]] = {"prompt": [], "chosen": [], "rejected": [], "reason": []}
    tally: Counter[str] = Counter()
    path = Path(args.response_file)
    if not path.is_file():
        raise UserError(f"--response_file {path}: no such file")
    claim("tutor.py", {"--data_file": args.data_file}, reads=[path], overwrite=args.overwrite)
    for row, where in open_source(str(path)).rows(test=False):
        prompt, response, gpt = _texts(row, where)
        tally["rows"] += 1
        reference = literal(gpt)
        if not is_valid_reference(reference):
            tally["invalid references"] += 1
            continue
        reason = why_worse(response, reference)
        tally[reason or "the same codes"] += 1
        if reason or args.use_all:
            # In Python's spelling, as the references are: the spelling must not tell chosen from rejected.
            if not args.use_all and reason != "unparsable":
                response = str(literal(response))
            columns["prompt"].append(prompt)
            columns["chosen"].append(str(reference))
            columns["rejected"].append(response)
            columns["reason"].append(reason or "none")
    retained, rows = len(columns["prompt"]), tally["rows"]
    if not retained:
        raise UserError(f"{args.response_file}: none of {rows} rows gives a pair: {dict(tally)}")
    write_json(Path(args.data_file), columns)
    say(", ".join(f"{name} {tally[name]}" for name in (*REASONS, "the same codes", "invalid references")))
    say(f"retained {retained} of {rows} rows ({retained / rows:.2%}) -> {args.data_file}")


def _texts(row: Any, where: str) -> tuple[str, str, str]:
    names = ("prompt", "response", "gpt")
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in names):
        found = str(row)[:60]
        if isinstance(row, dict):
            found = ", ".join(map(str, row))
        raise RecordError(f"{where}: found {found}; expected the columns {', '.join(names)}, each a text")
    return row["prompt"], row["response"], row["gpt"]


if __name__ == "__main__":
    run_program(main)
