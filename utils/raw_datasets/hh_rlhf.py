"""Anthropic's HH-RLHF and its kin: chosen and rejected are whole dialogues that differ in the last turn."""

from utils.raw_datasets.base import RawDataset, raw_dataset, rest, text
from utils.raw_datasets.dialogue import dialogue_pair, messages, turns
from utils.raw_datasets.pairs import Pairs


@raw_dataset("hh_rlhf", "hh", "HelpfulRLHFDataset", "HarmlessRLHFDataset")
class HHRLHF(RawDataset):
    needs = "chosen, rejected: whole dialogues, as '\\n\\nHuman: …\\n\\nAssistant: …' or as messages; no prompt"
    columns = ("chosen", "rejected")

    @staticmethod
    def fits(row):
        dialogue = isinstance(row.get("chosen"), list) or "Assistant:" in str(row.get("chosen"))
        return {"chosen", "rejected"} <= set(row) and "prompt" not in row and dialogue

    @staticmethod
    def record(row, where):
        # The same data with the prompt already split off, as DeepSpeed-Chat users keep it.
        if "prompt" in row:
            return Pairs.record(row, where)
        if isinstance(row.get("chosen"), list):
            chosen, rejected = (messages(row.get(name), f"{where}: {name}") for name in HHRLHF.columns)
        else:
            chosen, rejected = (turns(text(row, name, where=where)) for name in HHRLHF.columns)
        return dialogue_pair(chosen, rejected, where, meta=rest(row, HHRLHF.columns))
