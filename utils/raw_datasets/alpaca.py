"""Alpaca-style instructions: instruction, input, output, and perhaps a chosen and a rejected answer."""

from utils.raw_datasets.base import RawDataset, raw_dataset, rest, text
from utils.records import Answer, Message, Record, comparison


@raw_dataset("alpaca", "AlpacaGPT4")
class Alpaca(RawDataset):
    needs = "instruction; optional input, output, and both of chosen and rejected"
    columns = ("instruction", "input", "output", "chosen", "rejected")

    @staticmethod
    def fits(row):
        return "instruction" in row and "prompt" not in row

    @staticmethod
    def record(row, where):
        """Return the pair if there is one (output is then kept in meta), else output as the answer, else the prompt
        alone."""
        content = text(row, "instruction", where=where)
        if row.get("input") is not None and text(row, "input", where=where).strip():
            # The words of the alpaca template, which finds them again.
            content += f"\n\n### Input:\n{row['input']}"
        prompt = (Message("user", content),)
        if "chosen" in row or "rejected" in row:
            chosen, rejected = text(row, "chosen", where=where), text(row, "rejected", where=where)
            meta = rest(row, ("instruction", "input", "chosen", "rejected"))
            return comparison(prompt, chosen, rejected, where=where, meta=meta)
        answers = ()
        if "output" in row:
            answers = (Answer(text(row, "output", where=where)),)
        return Record(prompt, answers, where=where, meta=rest(row, Alpaca.columns))
