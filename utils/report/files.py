"""The files of a pipeline's folder that the page links to."""

from __future__ import annotations

from pathlib import Path

from utils.report.pipeline import STAGES

RUN_FILES = ("metrics.jsonl", "calibration.json", "samples-step-*.jsonl", "args.json", "train.log", "run_*.sh")
FILES = {  # the rows of the page's list of files -> patterns
    "results": ("results.json",),
    **{name: tuple(f"{name}/{pattern}" for pattern in RUN_FILES) for name in STAGES},
    "feedback": ("asked/*.jsonl", "feedback/*.json*"),
    "answers": ("answers/*-curve.json", "answers/*.jsonl"),
}


def files_of(folder: Path) -> dict[str, list[str]]:
    """Return the files that exist, relative to the folder, by the names of FILES."""
    found: dict[str, list[str]] = {}
    for name, patterns in FILES.items():
        for pattern in patterns:
            for path in sorted(folder.glob(pattern), key=_by_number):
                found.setdefault(name, []).append(path.relative_to(folder).as_posix())
    return found


def _by_number(path: Path) -> tuple[int, str]:
    """Sort samples-step-92 before samples-step-184."""
    # The names differ in their number alone, and the longer number is the larger one.
    return len(path.name), path.name
