"""The project's own JSON Lines: one Record a row."""

from utils.raw_datasets.base import RawDataset, raw_dataset
from utils.records.files import record_from_json


@raw_dataset("records")
class Records(RawDataset):
    needs = "prompt as messages, answers; the schema of docs/data.md"
    columns = ("id", "prompt", "answers", "verdicts", "meta")

    @staticmethod
    def fits(row):
        own = "prompt" in row and set(row) <= set(Records.columns)
        return own and ("answers" in row or isinstance(row["prompt"], list))

    @staticmethod
    def record(row, where):
        return record_from_json(row, where)
