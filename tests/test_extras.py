"""What a run does besides training: looked up by the option that asks for it, imported only then, called at its
moments."""

import importlib
import subprocess
import sys
import types

import in_process
import pytest
from in_process import DPO, SFT
from processes import environment
from stages import demonstrations, metrics, toy_data, toy_model
from test_core import LOOKED_UP
from toys import ROOT

from utils.training import extras
from utils.training.extras import EXTRAS, Hooks


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    toy_model(folder / "model")
    toy_data(folder / "pairs", rows=16)
    demonstrations(folder / "demos", rows=16)
    return folder


def test_every_extra_has_its_function():
    for module in EXTRAS.values():
        assert callable(importlib.import_module(f"utils.training.extras.{module}").begin)


def test_a_further_extra_is_one_function_and_one_line(world, tmp_path, monkeypatch):
    """Asked for by its option, it sees every update, evaluation and saved folder; not asked for, it is not
    even looked up."""
    seen = []

    def begin(stage):
        def after_saving(saved):
            assert saved.model is not None and saved.engine is stage.engine
            seen.append(str(saved.folder.relative_to(stage.run.folder)))

        def at_evaluation(step, epoch):
            return {"judged": step + 0.5}

        return Hooks(lambda: seen.append("update"), at_evaluation, after_saving)

    module = types.ModuleType("utils.training.extras.judging")
    module.begin = begin
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(extras.EXTRAS, "ema_decay", "judging")
    monkeypatch.setitem(extras.EXTRAS, "tf32", "no_such_module")
    flags = ("--max_steps", "2", "--eval_every", "1", "--save_every", "1")
    stage = (DPO, world / "model", world / "pairs")
    assert in_process.run_stage(*stage, tmp_path / "judged", world / "cache", *flags, "--ema_decay", "0.5") == 0
    assert [row["eval/judged"] for row in metrics(tmp_path / "judged")] == [0.5, 1.5, 2.5]
    assert seen == ["update", "step-1", "update", "step-2", "."]
    assert in_process.run_stage(*stage, tmp_path / "plain", world / "cache", *flags) == 0
    assert len(seen) == 5 and "eval/judged" not in metrics(tmp_path / "plain")[0]
    with pytest.raises(ModuleNotFoundError):
        in_process.run_stage(*stage, tmp_path / "none", world / "cache", *flags, "--tf32")


def test_a_plain_run_imports_nothing_that_is_looked_up(world, tmp_path):
    """Neither generation, nor any extra but the card, nor what is left out of the count of the core."""
    words = in_process.command(SFT, world / "model", world / "demos", tmp_path / "out")[1:]
    looked_up = {name.removesuffix(".py").replace("/", ".") for name in LOOKED_UP}
    program = f"""
import runpy, sys
sys.argv = {[*words, "--max_steps", "1", "--eval_every", "never"]!r}
runpy.run_path(sys.argv[0], run_name="__main__")
besides = {looked_up!r} | {{n for n in sys.modules if n.startswith(("utils.generation", "utils.training.extras."))}}
print("imported:", sorted(besides & sys.modules.keys()))
"""
    variables = environment(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES="")
    done = subprocess.run([sys.executable, "-c", program], env=variables, cwd=ROOT, capture_output=True, text=True)
    assert "imported: ['utils.training.extras.model_card']" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
