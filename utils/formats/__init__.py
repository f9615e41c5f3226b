"""Records -> files of other systems. The way back is a raw-dataset class of the same name (utils/raw_datasets).

    tally = write("annotations", "annotations.json", records)  # {"rows": 805, "ids": 3}: rows, and what was lost

A format is a function from a record to its rows, under @writes.
"""

from utils.formats import alpaca_eval, dialogues, instructions, tutoring  # noqa: F401 (they register)
from utils.formats.base import FACTS, FORMATS, STRUCTURE, UNCOMPARED, UNRATED, Format, facts, write, writes

__all__ = ["FACTS", "FORMATS", "STRUCTURE", "UNCOMPARED", "UNRATED", "Format", "facts", "write", "writes"]
