"""Files of the Hugging Face hub that have to be read in a way of their own: NAME of --data_path -> file and class."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.hub import offline_unless_reachable


class NamedFile(NamedTuple):
    file: str  # in the data set's repository
    cls: str  # the class that reads it


NAMED: dict[str, NamedFile] = {  # owner/name:which
    "hbXNov/sparse_feedback:ratings": NamedFile("absolute_gpt_3.5_turbo_score.csv", "ratings-feedback-csv"),
    "hbXNov/sparse_feedback:rankings": NamedFile("relative_gpt_3.5_turbo_feedback.csv", "rankings-feedback-csv"),
    "TRI-ML/dpo-rlaif-data:sharegpt": NamedFile("ShareGPT_V3_unfiltered_cleaned_split_no_imsorry.json", "sharegpt"),
    "TRI-ML/dpo-rlaif-data:mistral7bsft_vs_chatgpt": NamedFile(
        "comparisons_gpt4/mistral7bsft_vs_chatgpt/annotations.json", "annotations"
    ),
}


def class_of(name: str) -> str | None:
    """Return the class of a named file, None for any other name. Raises UserError for a data set whose files are named,
    but not this one."""
    repository = name.partition(":")[0]
    of_repository = [known for known in NAMED if known.startswith(f"{repository}:")]
    if of_repository and name not in NAMED:
        raise UserError(f"{name}: expected one of {', '.join(of_repository)}")
    if name in NAMED:
        return NAMED[name].cls
    return None


def fetched(name: str) -> Path:
    """Return the local copy of a named file, from the hub's cache or the hub. Raises UserError."""
    from huggingface_hub import hf_hub_download

    file = NAMED[name].file
    offline_unless_reachable()
    try:
        return Path(hf_hub_download(name.partition(":")[0], file, repo_type="dataset"))
    except (OSError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{name}: the hub's file {file} cannot be had: {first}") from error
