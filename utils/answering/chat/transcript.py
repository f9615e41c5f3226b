"""The conversation so far, as records: one for each answer, whose prompt is everything said before it."""

from __future__ import annotations

from pathlib import Path

from utils.errors import UserError
from utils.records import Answer, Message, Record, write_jsonl


class Transcript:
    """One conversation. `records` hold each answer with its model, sampling, scores and whether it finished, so that a
    saved conversation is data like any other (docs/data.md)."""

    def __init__(self, system: str = "") -> None:
        self.system = system
        self.records: list[Record] = []
        self._written: dict[Path, bytes] = {}  # what this conversation saved, by file
        self._saved = 0  # records

    def prompt(self, question: str) -> tuple[Message, ...]:
        """What the model is asked: everything so far, then the question."""
        if self.records:
            last = self.records[-1]
            before = (*last.prompt, Message("assistant", last.answers[0].text))
        else:
            before = (Message("system", self.system),) if self.system else ()
        return (*before, Message("user", question))

    def add(self, prompt: tuple[Message, ...], answer: Answer) -> None:
        self.records.append(Record(prompt, (answer,)))

    @property
    def unsaved(self) -> int:
        """How many answers no file has."""
        return len(self.records) - self._saved

    def save(self, path: Path) -> None:
        """Write the records. A file is replaced only if it is as this conversation saved it; UserError otherwise."""
        if not self.records:
            raise UserError("nothing to save yet: no question was answered")
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}; give another name") from error
        if found is not None and found != self._written.get(path):
            raise UserError(f"{path} exists and this conversation did not write it so; give another name")
        write_jsonl(path, self.records)
        self._written[path] = path.read_bytes()
        self._saved = len(self.records)
