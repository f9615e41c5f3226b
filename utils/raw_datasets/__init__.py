"""Raw data -> records. One class a file; every module of this folder is imported, and so registers its classes.

for record in open_mixture(data_args, "train", stage=2, seed=42): ...
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Literal

from utils.raw_datasets.base import RAW_DATASETS, LeftOut, RawDataset, raw_dataset
from utils.raw_datasets.mixture import Mixture

if TYPE_CHECKING:
    from utils.arguments.options import DataArguments

__all__ = ["RAW_DATASETS", "LeftOut", "Mixture", "RawDataset", "open_mixture", "raw_dataset"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def open_mixture(data: DataArguments, split: Literal["train", "eval"], stage: int, seed: int) -> Mixture:
    """Return the records of a stage for training or evaluation.

    Args:
        data: the options of the data.
        split: train | eval.
        stage: 1, 2 or 3.
        seed: of what is drawn.

    Returns:
        The records; their rows are checked as they are read.

    Raises:
        UserError: what can be seen at once: a missing file, an unknown class, a share of zero.
    """
    return Mixture(data, split=split, stage=stage, seed=seed)
