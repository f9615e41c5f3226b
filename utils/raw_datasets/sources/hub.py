"""Data sets of the Hugging Face hub, and folders that the `datasets` library reads."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download

from utils.errors import UserError
from utils.hub import offline_unless_reachable
from utils.raw_datasets.named import NAMED
from utils.raw_datasets.sources import TEST_NAMES, Source


def fetched(name: str) -> Path:
    """Return the local copy of a named file, from the hub's cache or the hub. Raises UserError."""
    file = NAMED[name].file
    offline_unless_reachable()
    try:
        return Path(hf_hub_download(name.partition(":")[0], file, repo_type="dataset"))
    except (OSError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{name}: the hub's file {file} cannot be had: {first}") from error


class Hub(Source):
    """NAME or NAME:CONFIG on the Hugging Face hub, or a folder that the `datasets` library reads."""

    def __init__(self, name: str, saved: bool = False) -> None:
        # Imported here: files of the hub can be fetched without `datasets`, which data_collect does not need.
        import datasets

        self.name = name
        local = Path(name).expanduser()
        if not local.exists():
            offline_unless_reachable()
        path, config, missing = str(local), "", ""
        if not local.exists():
            path, _, config = name.partition(":")
            missing = "no such file or folder, and "
        try:
            if saved:
                loaded = datasets.load_from_disk(path)
            else:
                loaded = datasets.load_dataset(path, config or None)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise UserError(f"{name}: {missing}the datasets library cannot load it: {str(error)[:300]}") from error
        splits = loaded if isinstance(loaded, dict) else {"train": loaded}
        test = next((splits[split] for split in TEST_NAMES if split in splits), None)
        self._splits = (splits.get("train"), test)
        self.has_train, self.has_test = "train" in splits, test is not None
        if not (self.has_train or self.has_test):
            raise UserError(f"{name}: has the splits {', '.join(splits)}; expected train or {' or '.join(TEST_NAMES)}")

    def rows(self, test, on_bad=None, read=None):
        if read:
            raise UserError(f"{self.name}: the class that was named reads files; expected the path of one")
        for number, row in enumerate(self._splits[test], start=1):
            yield row, f"{self.name}[{number}]"

    def fingerprint(self, test):
        # The hash that `datasets` keeps for its own cache: to hash the rows would take as long as to read them.
        return self._splits[test]._fingerprint
