"""Blind comparisons by a person: two answers to a prompt side by side, without the names of the models."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from utils.answering.chat.lines import EditedLines, PipedLines
from utils.arguments.inference import ArenaArguments
from utils.errors import UserError
from utils.records import Record, RecordError, Verdict
from utils.records.files import read_records, write_jsonl
from utils.reporting import console, say

CHOICES = {"1": "the first answer is better", "2": "the second", "=": "equally good", "s": "skip", "q": "stop"}
LOWEST, HIGHEST = 1, 7  # ratings, the scale of the project's judges


class Stopped(Exception):  # noqa: N818
    """The person wants to stop."""


def matched(files: Mapping[str, Path]) -> list[Record]:
    """Return the prompts that both files answer, each with the first answer of either, in the order of the first file.

    Args:
        files: the records of two models, by the name that a model has in the comparisons.

    Raises:
        UserError: a record has no answer, a file has a prompt twice, or no prompt is in both.
    """
    (ours_name, ours_file), (theirs_name, theirs_file) = files.items()
    ours, theirs = _first_answers(ours_file), _first_answers(theirs_file)
    found = []
    for prompt, record in ours.items():
        if prompt in theirs:
            first = replace(record.answers[0], model=ours_name)
            second = replace(theirs[prompt].answers[0], model=theirs_name)
            found.append(Record(record.prompt, (first, second), id=record.id, meta=record.meta))
    if not found:
        raise UserError(f"no prompt of {ours_file} is in {theirs_file}; expected answers to the same prompts")
    return found


def _first_answers(path: Path) -> dict[object, Record]:
    found: dict[object, Record] = {}
    for record in read_records(path):
        if not record.answers:
            raise RecordError(f"{record.where}: no answers; expected records that chatbot.py --mode generate wrote")
        if (before := found.setdefault(record.prompt, record)) is not record:
            raise RecordError(f"{record.where}: its prompt is that of {before.where}, too; expected it once")
    return found


class Arena:
    """A person's comparisons, written after each one.

    Args:
        records: prompts with two answers.
        known: comparisons that were made before; their prompts are not asked again.
        args: who judges, how, and the file to write.
        lines: where the person's choices come from.

    Raises:
        UserError: a known comparison is of other answers, or of a prompt that is not among the records.
    """

    def __init__(
        self, records: list[Record], known: list[Record], args: ArenaArguments, *, lines: EditedLines | PipedLines
    ) -> None:
        self.args, self.lines, self.judged = args, lines, known
        left = {record.prompt: record for record in records}
        for before in known:
            record = left.pop(before.prompt, None)
            if record is None or [a.text for a in before.answers] != [a.text for a in record.answers]:
                raise UserError(f"{before.where}: is of other answers than --answers; give another --output_path")
        self.left = list(left.values())

    def run(self) -> list[Record]:
        """Ask for every comparison that is left, until the person stops; return all that were made."""
        say(" · ".join(f"{key} {meaning}" for key, meaning in CHOICES.items()), style="dim")
        total = len(self.judged) + len(self.left)
        for record in self.left:
            try:
                judged = self._compare(record, f"{len(self.judged) + 1} of {total}")
            except (Stopped, EOFError, KeyboardInterrupt):
                break
            if judged:
                self.judged.append(judged)
                write_jsonl(self.args.output_path, self.judged)
        return self.judged

    def _compare(self, record: Record, title: str) -> Record | None:
        """Return the record with a person's verdict; None when it is skipped."""
        order = [0, 1]
        # By prompt, so that the order does not depend on how many were judged before.
        random.Random(f"{self.args.seed} {record.id}").shuffle(order)
        console.rule(title)
        for message in record.prompt:
            say(f"{message.role}: {message.content}", style="bold")
        for number, place in enumerate(order, start=1):
            console.rule(f"answer {number}", align="left", style="dim")
            say(record.answers[place].text)
        choice = self._read("better", CHOICES)
        if choice == "q":
            raise Stopped
        if choice == "s":
            return None
        preferred = "tie"
        if choice in "12":
            preferred = "ab"[order[int(choice) - 1]]
        answers = list(record.answers)
        if self.args.ratings:
            scale = {str(number): "" for number in range(LOWEST, HIGHEST + 1)}
            for number, place in enumerate(order, start=1):
                rating = self._read(f"answer {number} from {LOWEST} to {HIGHEST}", scale)
                answers[place] = replace(answers[place], rating=float(rating))
        seen = "".join("ab"[place] for place in order)
        verdict = Verdict(0, 1, preferred, judge=self.args.judge, order=seen)
        return replace(record, answers=tuple(answers), verdicts=(verdict,))

    def _read(self, question: str, choices: Iterable[str]) -> str:
        """Return one of the choices; ask again for anything else."""
        while True:
            say(f"{question}: {' '.join(choices)}", style="cyan")
            word = self.lines.read().strip().lower()
            if word in choices:
                return word
            if not self.lines.interactive:
                raise UserError(f"{question}: found {word!r}; expected one of {' '.join(choices)}")


def summary(judged: list[Record]) -> str:
    """Return how often each of two models was preferred."""
    if not judged:
        return "no comparison was made"
    counts = Counter(record.verdicts[0].preferred for record in judged)
    first, second = (answer.model for answer in judged[0].answers)
    return f"{len(judged)} comparisons: {first} {counts['a']}, {second} {counts['b']}, equal {counts['tie']}"
