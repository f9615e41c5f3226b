"""Ids that rows were given: each names one prompt."""

from __future__ import annotations

from utils.records import Record, RecordError


class Ids:
    """The ids of one file. A prompt may come again, with other answers (it was sampled twice, or repeated in the data);
    two prompts of one id would be taken for one wherever answers are matched by it."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, str]] = {}  # id -> (hash of its prompt, where)

    def check(self, record: Record) -> None:
        """Refuse an id that an earlier row gave to another prompt. Raises RecordError."""
        prompt = hash(record.prompt)
        known, where = self._first.setdefault(record.id, (prompt, record.where))
        if known != prompt:
            raise RecordError(
                f"{record.where}: the id {record.id!r} is that of {where}, too, which has another prompt; "
                f"expected an id of its own for every prompt"
            )
