"""Sampled answers in JSON lists: several to an instruction and its input, or one or several to an instruction alone."""

from utils.raw_datasets.base import RawDataset, raw_dataset, rest, text
from utils.raw_datasets.instructions import instruct, optional, texts
from utils.records import Answer, Message, Record


@raw_dataset("responses")
class Responses(RawDataset):
    needs = "instruction, responses: a list of texts; optional input"
    columns = ("instruction", "input", "responses")
    instead_of = ("alpaca",)

    @staticmethod
    def fits(row):
        return "instruction" in row and isinstance(row.get("responses"), list)

    @staticmethod
    def record(row, where):
        answers = tuple(map(Answer, texts(row, "responses", where)))
        asked = text(row, "instruction", where=where), optional(row, "input", where)
        return Record(**instruct(*asked, rest(row, Responses.columns)), answers=answers, where=where)


class _Generated(RawDataset):
    """The instruction is the whole prompt: no input is looked for in it."""

    instead_of = ("alpaca",)

    @classmethod
    def record(cls, row, where):
        *_, answered = cls.columns
        if answered == "output":
            outputs = [text(row, answered, where=where)]
        else:
            outputs = texts(row, answered, where)
        model = optional(row, "generator", where) or None
        meta = rest(row, cls.columns)
        # Generations without a data set are written so.
        if meta.get("dataset") == "":
            del meta["dataset"]
        prompt = (Message("user", text(row, "instruction", where=where)),)
        return Record(prompt, tuple(Answer(output, model) for output in outputs), where=where, meta=meta)


@raw_dataset("generations", "alpaca-eval")
class Generations(_Generated):
    needs = "instruction, generator, output; optional dataset"
    columns = ("instruction", "generator", "output")

    @staticmethod
    def fits(row):
        return set(Generations.columns) <= set(row)


@raw_dataset("generations-n")
class GenerationsN(_Generated):
    needs = "instruction, outputs: a list of texts; optional dataset and generator"
    columns = ("instruction", "generator", "outputs")

    @staticmethod
    def fits(row):
        return "instruction" in row and isinstance(row.get("outputs"), list)
