"""Files of the Hugging Face hub that have to be read in a way of their own: NAME of --data_path -> file and class."""

from __future__ import annotations

from typing import NamedTuple

from utils.errors import UserError


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
