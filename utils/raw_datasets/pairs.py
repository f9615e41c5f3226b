"""A prompt with a chosen and a rejected answer: the folder of train.jsonl and test.jsonl, and most preference data."""

from utils.raw_datasets.base import RawDataset, raw_dataset, rest, text
from utils.raw_datasets.dialogue import dialogue_pair, messages, prompt_of
from utils.records import RecordError, comparison


@raw_dataset("pairs", "pairs-reject", "DPODataset")
class Pairs(RawDataset):
    needs = "prompt, chosen, rejected or reject"
    columns = ("prompt", "chosen", "rejected", "reject")

    @staticmethod
    def fits(row):
        return {"prompt", "chosen"} <= set(row) and bool({"rejected", "reject"} & set(row))

    @staticmethod
    def record(row, where):
        if "prompt" not in row:
            raise RecordError(f"{where}: no column 'prompt'; found the columns {', '.join(row)}")
        meta = rest(row, Pairs.columns)
        if isinstance(row.get("chosen"), list):  # answers as messages, often with the whole dialogue before them
            chosen = messages(row["chosen"], f"{where}: chosen")
            rejected = messages(row.get("rejected", row.get("reject")), f"{where}: rejected")
            if len(chosen) > 1:
                return dialogue_pair(chosen, rejected, where, meta=meta)
            before = list(prompt_of(row["prompt"], where)[0])
            return dialogue_pair(before + chosen, before + rejected, where, meta=meta)
        prompt, formatted = prompt_of(row["prompt"], where)
        chosen, rejected = text(row, "chosen", where=where), text(row, "rejected", "reject", where=where)
        if formatted:
            chosen, rejected = chosen.strip(), rejected.strip()
        return comparison(prompt, chosen, rejected, where=where, meta=meta)
