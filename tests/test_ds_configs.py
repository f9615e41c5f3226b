"""ds_configs/: every number has its reason in the README, and leaves DeepSpeed room to gather weights ahead."""

import fnmatch
import json

import pytest
import torch
from deepspeed.runtime.constants import ZERO_FORCE_DS_CPU_OPTIMIZER_DEFAULT
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadOptimizerConfig, DeepSpeedZeroOffloadParamConfig
from test_steps import run_steps
from toys import ROOT

FILES = {path.stem: json.loads(path.read_text()) for path in (ROOT / "ds_configs").glob("*.json")}
MLP_MATRIX = 4096 * 14336  # of Llama-3.1-8B
OWN = {"offload_optimizer": DeepSpeedZeroOffloadOptimizerConfig, "offload_param": DeepSpeedZeroOffloadParamConfig}


def settings(config):
    """{dotted name: value} of a file."""
    found = {}
    for name, value in {**config.pop("zero_optimization"), **config}.items():
        inner = value if isinstance(value, dict) else {"": value}
        found |= {f"{name}.{key}".rstrip("."): each for key, each in inner.items()}
    return found


def default(name):
    block, _, key = name.partition(".")
    if key:
        return OWN[block]().model_dump()[key]
    if name == "zero_force_ds_cpu_optimizer":
        return ZERO_FORCE_DS_CPU_OPTIMIZER_DEFAULT
    fields = {field.alias or own: field for own, field in DeepSpeedZeroConfig.model_fields.items()}
    return fields[name].default


def table():
    """Rows of the README: files, key, value, default, reason."""
    lines = (ROOT / "ds_configs/README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in rows if row[0] != "file"]


@pytest.mark.parametrize("file", sorted(FILES))
def test_every_value_has_its_reason(file):
    for name, value in settings(json.loads(json.dumps(FILES[file]))).items():
        rows = [
            row for row in table()
            if row[1] == f"`{name}`"
            and (row[0] == "all" or any(fnmatch.fnmatch(file, one.strip(" `")) for one in row[0].split(",")))
        ]  # fmt: skip
        assert len(rows) == 1, name
        _, _, told, usual, why = rows[0]
        assert len(why) > 20 and (told == "0 to 3" if name == "stage" else told == json.dumps(value))
        if name not in ("stage", "overlap_comm") and not name.endswith("device"):
            assert json.loads(usual) == default(name)


@pytest.mark.parametrize("file", ["zero3", "zero3_offload"])
def test_weights_can_be_gathered_ahead(file):
    """While an MLP matrix is whole, there is room for the next one; 3e7 left none."""
    zero = FILES[file]["zero_optimization"]
    assert zero["stage3_max_live_parameters"] >= 4 * MLP_MATRIX
    assert 0 < zero["stage3_prefetch_bucket_size"] <= zero["stage3_max_live_parameters"] - 2 * MLP_MATRIX


@pytest.mark.parametrize("stage", [*(pytest.param(n, marks=pytest.mark.full) for n in (1, 2)), 3])
def test_offloading_uses_pinned_memory_and_runs_without_a_gpu(tmp_path, stage):
    blocks = [v for v in FILES[f"zero{stage}_offload"]["zero_optimization"].values() if isinstance(v, dict)]
    assert len(blocks) == 1 + (stage == 3) and all(block["pin_memory"] for block in blocks)
    if not torch.cuda.is_available():
        assert len(run_steps(tmp_path / "out", "--zero_stage", str(stage), "--offload")["rows"]) == 1
