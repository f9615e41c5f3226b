"""Conversations as lists of messages: OpenAI's `messages` and ShareGPT's `conversations`."""

from utils.raw_datasets.base import RawDataset, raw_dataset, rest
from utils.raw_datasets.dialogue import demonstration, messages
from utils.records import Answer, Record, RecordError


class _Chat(RawDataset):
    @classmethod
    def fits(cls, row):
        return cls.columns[0] in row

    @classmethod
    def record(cls, row, where):
        """The last turn is the answer; a conversation that ends with the user's turn is a prompt alone."""
        (column,) = cls.columns
        if column not in row:
            raise RecordError(f"{where}: no column {column!r}; found the columns {', '.join(row)}")
        prompt, answers = demonstration(messages(row[column], f"{where}: {column}"))
        meta = rest(row, cls.columns)
        return Record(prompt, tuple(map(Answer, answers)), where=where, meta=meta)


@raw_dataset("messages")
class Messages(_Chat):
    needs = "messages: a list of {role, content}"
    columns = ("messages",)


@raw_dataset("sharegpt")
class ShareGPT(_Chat):
    needs = "conversations: a list of {from, value}"
    columns = ("conversations",)
