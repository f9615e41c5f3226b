"""The conversation so far, as records: one for each answer, whose prompt is everything said before it."""

from __future__ import annotations

from pathlib import Path

from utils.errors import UserError
from utils.records import Answer, Message, Record
from utils.records.files import write_jsonl


class Transcript:
    """One conversation. `records` has one for each answer, so that a saved conversation is data like any other."""

    def __init__(self, system: str = "") -> None:
        self.system = system
        self.records: list[Record] = []
        self._written: dict[Path, bytes] = {}  # the content of the files that this conversation saved
        self._saved = 0  # how many records are saved

    def prompt(self, question: str) -> tuple[Message, ...]:
        """Return the prompt for a question: everything so far, then the question."""
        if self.records:
            last = self.records[-1]
            before = (*last.prompt, Message("assistant", last.answers[0].text))
        else:
            before = ()
            if self.system:
                before = (Message("system", self.system),)
        return (*before, Message("user", question))

    def add(self, prompt: tuple[Message, ...], answer: Answer) -> None:
        """Append an answer, as a record with its prompt."""
        self.records.append(Record(prompt, (answer,)))

    @property
    def unsaved(self) -> int:
        """Count the answers that no file has."""
        return len(self.records) - self._saved

    def save(self, path: Path) -> None:
        """Write the records. Raises UserError for a file that this conversation did not write, or that was changed."""
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
