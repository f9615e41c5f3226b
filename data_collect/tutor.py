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

from utils.arguments import parse_mode
from utils.arguments.options import NOT_NEGATIVE, expect, option, overwriting, required
from utils.errors import UserError
from utils.feedback.tutor_turns import INSTRUCTION, REASONS, cleaned, is_valid_reference, prompts_and_turns, why_worse
from utils.outputs import claim
from utils.raw_datasets.sources import open_source
from utils.raw_datasets.tutoring import literal
from utils.records import Message, RecordError, read_jsonl
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
    mode, args = parse_mode(MODES, argv, __doc__)
    {"split": split, "pairs": pairs}[mode](args)


# ---- split


def split(args: SplitArguments) -> None:
    """Draws from each file, cuts the draw in three, cleans and writes."""
    folder, instruction = Path(args.data_dir), _instruction(args.instruction_file)
    data_sets = _data_sets(folder)
    files = [folder / f"bio-{name}.json" for name in ("sft", "dpo", "test", "dpo_formatted", "test_formatted")]
    reads = [*data_sets, args.instruction_file or ""]
    claim("tutor.py", {"--data_dir": files}, reads=reads, overwrite=args.overwrite)
    sets: dict[str, list[tuple[dict, str]]] = {"sft": [], "dpo": [], "test": []}
    sizes = [args.num_sft, args.num_dpo, args.num_test]
    draw = random.Random(args.seed)  # one for all files, in their order
    for path in data_sets:
        rows = [_checked(row, where) for row, where in read_jsonl(path)]
        long = [(row, where) for row, where in rows if len(row["conversations"]) > 2]
        drawn = draw.sample(long, min(sum(sizes), len(long)))
        say(f"{path}: {len(rows)} conversations, {len(rows) - len(long)} of at most two turns, {len(drawn)} drawn")
        for name, low, size in zip(sets, (0, sizes[0], sum(sizes[:2])), sizes, strict=True):
            sets[name] += drawn[low : low + size]
    dialogues = {name: _cleaned(rows, instruction) for name, rows in sets.items()}
    _report_overlap(dialogues)
    for name, found in dialogues.items():
        write_json(folder / f"bio-{name}.json", [_conversation(key, dialogue) for key, dialogue in found])
        cut = sum(len(row["conversations"]) for row, _ in sets[name]) - sum(len(dialogue) for _, dialogue in found)
        say(f"bio-{name}.json: {len(found)} of {len(sets[name])} conversations; {cut} turns cut away")
    for name in ("dpo", "test"):
        rows = [row for _, dialogue in dialogues[name] if len(dialogue) > 2 for row in prompts_and_turns(dialogue)]
        columns = {"prompt": [prompt for prompt, _ in rows], "chosen": [turn for _, turn in rows]}
        write_json(folder / f"bio-{name}_formatted.json", columns)
        say(f"bio-{name}_formatted.json: {len(rows)} prompts, each with the teacher's turn")


def _instruction(file: str | None) -> str:
    if file is None:
        return INSTRUCTION
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--instruction_file {file}: cannot be read as text: {error}") from error


def _data_sets(folder: Path) -> list[Path]:
    numbered = {path: re.fullmatch(r"bio-dataset-(\d+)\.json", path.name) for path in folder.glob("bio-dataset-*.json")}
    found = sorted((path for path, match in numbered.items() if match), key=lambda path: int(numbered[path][1]))
    if not found:
        raise UserError(f"--data_dir {folder}: no bio-dataset-1.json, -2.json, … there; expected at least one")
    return found


def _checked(row: Any, where: str) -> tuple[dict, str]:
    if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
        raise RecordError(f"{where}: found {str(row)[:60]!r}; expected an object with a list of conversations")
    return row, where


def _cleaned(rows: list[tuple[dict, str]], instruction: str) -> list[tuple[Any, list[Message]]]:
    dialogues = [(row.get("id"), cleaned(row["conversations"], instruction, where)) for row, where in rows]
    return [(key, dialogue) for key, dialogue in dialogues if dialogue]


def _conversation(key: Any, dialogue: list[Message]) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    return {"id": key, "conversations": [{"from": names[m.role], "value": m.content} for m in dialogue]}


def _report_overlap(dialogues: dict[str, list[tuple[Any, list[Message]]]]) -> None:
    """The split is by conversation: two of them may open with the same question."""
    opening = {name: [dialogue[0].content for _, dialogue in found] for name, found in dialogues.items()}
    known = {*opening["sft"], *opening["dpo"]}
    both = sum(question in known for question in opening["test"])
    if both:
        warn(f"{both} of {len(opening['test'])} test conversations open with a question that is also trained on")


# ---- pairs


def pairs(args: TutorPairsArguments) -> None:
    """Keeps the rows in which the model's turn is worse than the teacher's, with the reason."""
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
            turn = None if args.use_all or reason == "unparsable" else literal(response)
            kept = (prompt, str(reference), response if turn is None else str(turn), reason or "none")
            for column, value in zip(columns.values(), kept, strict=True):
                column.append(value)
    retained, rows = len(columns["prompt"]), tally["rows"]
    if not retained:
        raise UserError(f"{args.response_file}: none of {rows} rows gives a pair: {dict(tally)}")
    write_json(Path(args.data_file), columns)
    say(", ".join(f"{name} {tally[name]}" for name in (*REASONS, "the same codes", "invalid references")))
    say(f"retained {retained} of {rows} rows ({retained / rows:.2%}) -> {args.data_file}")


def _texts(row: Any, where: str) -> tuple[str, str, str]:
    names = ("prompt", "response", "gpt")
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in names):
        found = ", ".join(map(str, row)) if isinstance(row, dict) else str(row)[:60]
        raise RecordError(f"{where}: found {found}; expected the columns {', '.join(names)}, each a text")
    return tuple(row[name] for name in names)


if __name__ == "__main__":
    run_program(main)
