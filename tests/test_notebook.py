"""The notebook of data collection runs from nothing, on the built-in world, and leaves sets that the stages read."""

import json
import os

import nbformat
import pytest
from nbclient import NotebookClient
from toy_rows import mixture
from toys import ROOT

from utils.raw_datasets.whole import records_of

NOTEBOOK = ROOT / "data_collect" / "data.ipynb"


def test_it_is_kept_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")


def execute(data):
    """What its cells printed, in order."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": NOTEBOOK.parent}}
    )
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT), "COLLECT_DATA": str(data)})
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.slow
def test_every_step(tmp_path):
    said = execute(tmp_path)
    problems = list(records_of(str(tmp_path / "origin" / "problems.txt")))
    assert [sum(p.meta["task"] == task for p in problems) for task in ("dialog", "qa", "summary")] == [60, 60, 60]
    group = [json.loads(row) for row in (tmp_path / "initial_answers" / "group.txt").read_text().splitlines()]
    kinds = [row["feedback_type"] for row in group]
    assert [kinds.count(kind) for kind in ("critic", "refine", "prefer")] == [60, 60, 60]
    assert all(set(row["output"]) == {"vicuna-7b", "vicuna-13b"} for row in group)
    stats = json.loads((tmp_path / "feedback" / "sets" / "stats.json").read_text())
    assert set(stats["kinds"]) == {"critique", "refinement", "preference"}
    assert stats["feedback"]["refinement"]["pairs"] > 50 and stats["feedback"]["critique"]["pairs"] > 40
    assert stats["models"]["vicuna-13b"]["share"]["low"] > 0.5  # the strong teacher
    assert stats["train"] == len(list(mixture(tmp_path / "feedback" / "sets"))) > 100
    assert "### Comment" in said and "chosen: " in said

    written = {path: path.read_bytes() for path in (tmp_path / "feedback").rglob("*.txt")}
    execute(tmp_path)  # it uses what is there, and asks nothing again
    assert {path: path.read_bytes() for path in written} == written
