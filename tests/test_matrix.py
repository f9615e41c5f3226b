"""Every stage with every combination of settings: a sample of the cells that go wrong most easily, and all of them in
`bash test.sh --all`. The cells, how they run and what is checked: matrix_cells.py, matrix_runs.py, matrix_checks.py."""

import itertools
import os
import re
import shutil
import subprocess
import sys

import matrix_checks
import pytest
import torch
from matrix import row_of
from matrix_cells import FACTORS, cell, cells, covering, refusal, twins
from matrix_runs import make_world, run_cell
from processes import Failure, run_function, together
from safetensors.torch import load_file, save_file
from toys import ROOT

EVERY = {"pace": "every-step"}
SAMPLE = [
    cell("sft", layout="zero3-2ranks-full", sampling="sampling", embeddings="tied", **EVERY),
    cell("sft", layout="zero2-2ranks-full", embeddings="tied", average="ema", dtype="bf16", **EVERY),
    cell("reward", layout="zero3-2ranks-lora", dtype="bf16", end="continued", average="ema"),
    cell("dpo", layout="zero3-2ranks-lora", dtype="bf16", sampling="sampling+reward", end="continued", **EVERY),
    cell("dpo", layout="zero3-1rank-full", offload="offload", reference="other-reference", batches="budget"),
    cell("dpo", layout="zero0-2ranks-full", embeddings="tied", average="ema", activations="recompute", **EVERY),
    cell("ppo", layout="zero3-2ranks-full", end="continued", **EVERY),
    cell("ppo", layout="zero3-2ranks-full", rollouts="sharded", advantage="rloo", scoring="function", **EVERY),
    cell("ppo", layout="zero2-2ranks-full", ptx="ptx", average="ema", embeddings="tied", dtype="bf16"),
    cell("ppo", layout="zero3-1rank-lora", dtype="bf16", ptx="ptx", kl="kl-in-loss", frozen="frozen-on-cpu"),
    cell("ppo", layout="zero1-2ranks-lora", advantage="group", unfinished="mask", batches="budget"),
    cell("ppo", layout="zero0-1rank-full", unfinished="none-finished", average="ema"),
    cell("reward", layout="zero0-1rank-full", dtype="bf16"),
    cell("ppo", layout="zero2-2ranks-full", rollouts="sharded"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix") / "world"
    make_world(folder)
    return folder


@pytest.mark.parametrize("one", SAMPLE, ids=lambda one: one.name)
def test_a_cell_of_the_sample(world, tmp_path, one):
    result = run_cell(one, world, tmp_path / "run")
    assert not result.wrong, f"{result.wrong}\n{(tmp_path / 'run' / 'log').read_text()[-3000:]}"
    assert bool(result.refused) == bool(refusal(one.chosen))


def test_one_rank_and_two_ranks_with_zero_3_learn_the_same(world, tmp_path):
    for group in twins("dpo"):
        pair = group[0], group[-1]
        assert [run_cell(one, world, tmp_path / one.name).wrong for one in pair] == ["", ""]
        matrix_checks.agree([tmp_path / one.name / "out" for one in pair])


@pytest.mark.full
@pytest.mark.timeout(7200)
def test_the_whole_matrix():
    jobs = ["--jobs", str(os.cpu_count())]
    done = subprocess.run([sys.executable, ROOT / "tests/matrix.py", *jobs], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-10000:] + done.stderr[-3000:]


# ---- the cells


@pytest.mark.parametrize("stage", FACTORS)
def test_every_two_values_meet_or_are_refused(stage):
    """By brute force: each pair of values is in a cell that runs, or is a cell of its own that must be refused."""
    factors = FACTORS[stage]
    mine = [one for one in cells() if one.stage == stage]
    running = [one.chosen for one in mine if not refusal(one.chosen)]
    for a, b in itertools.combinations(factors, 2):
        for x, y in itertools.product(factors[a], factors[b]):
            if refusal({a: x, b: y}):
                assert cell(stage, **{a: x, b: y}) in mine
            else:
                assert any(row[a] == x and row[b] == y for row in running), f"{a} {x!r} never meets {b} {y!r}"


def test_the_array_is_small_and_always_the_same():
    """Sixteen layouts times the three values of the next largest factor is the least that can cover the pairs."""
    assert len(covering(FACTORS["dpo"])) == 48
    assert cells() == cells.__wrapped__() and len({one.name for one in cells()}) == len(cells())


def test_layouts_are_the_whole_product():
    assert len(FACTORS["sft"]["layout"]) == 4 * 2 * 2


def test_an_unknown_factor_is_an_error():
    with pytest.raises(ValueError, match="sft has no factor ptx"):
        cell("sft", ptx="ptx")


def test_the_document_lists_every_cell():
    document = (ROOT / "docs" / "matrix.md").read_text(encoding="utf-8")
    missing = [one.name for one in cells() if f"| {row_of(one)} | " not in document]
    assert not missing, "write it again: python tests/matrix.py --table docs/matrix.md"


# ---- what is checked


@pytest.fixture(scope="module")
def good(world, tmp_path_factory):
    one = cell("sft", layout="zero0-1rank-full", sampling="sampling", embeddings="tied", average="ema", **EVERY)
    folder = tmp_path_factory.mktemp("good") / "run"
    assert not run_cell(one, world, folder).wrong
    return one, folder / "out"


def not_finite(out, world):
    path = out / "metrics.jsonl"
    path.write_text(re.sub(r'"loss": [\d.]+', '"loss": NaN', path.read_text(), count=1))


def a_row_less(out, world):
    path = out / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def a_sample_less(out, world):
    path = out / "samples-step-2.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def nan_weights(out, world):
    changed(out, lambda name, tensor: torch.full_like(tensor, torch.nan))


def nothing_learned(out, world):
    shutil.copy(world / "tied" / "model.safetensors", out)


def a_weight_less(out, world):
    changed(out, lambda name, tensor: None if "norm" in name else tensor)


def a_wrong_average(out, world):
    changed(out / "ema", lambda name, tensor: tensor + 1e-3)


def no_average(out, world):
    shutil.rmtree(out / "step-3" / "ema")


def untied(out, world):
    path = out / "config.json"
    path.write_text(path.read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false'))
    weights = load_file(out / "model.safetensors")
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"] + 1}, out / "model.safetensors")


def changed(folder, change):
    path = folder / "model.safetensors"
    new = {name: change(name, tensor) for name, tensor in load_file(path).items()}
    save_file({name: tensor for name, tensor in new.items() if tensor is not None}, path, {"format": "pt"})


@pytest.mark.parametrize(
    "damage, words",
    [
        (not_finite, "metrics.jsonl holds NaN"),
        (a_row_less, "has the steps"),
        (a_sample_less, "2 samples at step 2; expected 3"),
        (nan_weights, "is not finite"),
        (nothing_learned, "its weights are those of tied"),
        (a_weight_less, "missing_keys"),
        (a_wrong_average, "is not the average of the steps"),
        (no_average, "ema is there: False"),
        (untied, "not tied"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_is_found(good, world, tmp_path, damage, words):
    one, out = good
    copy = tmp_path / "run" / "out"
    shutil.copytree(out, copy)
    matrix_checks.finished(one, world, copy)
    damage(copy, world)
    with pytest.raises(Failure, match=words):
        matrix_checks.finished(one, world, copy)


def test_metrics_that_differ_are_found(good, tmp_path):
    _, out = good
    shutil.copytree(out, tmp_path / "other")
    matrix_checks.agree([out, tmp_path / "other"])
    path = tmp_path / "other" / "metrics.jsonl"
    path.write_text(path.read_text().replace('"learning_rate": 0.01', '"learning_rate": 0.011', 1))
    with pytest.raises(Failure, match="learning_rate is 0.01 and 0.011"):
        matrix_checks.agree([out, tmp_path / "other"])


def test_a_run_that_should_be_refused_or_should_not_is_wrong(world, tmp_path, monkeypatch):
    monkeypatch.setattr("matrix_runs.refusal", lambda values: None if values["dtype"] == "bf16" else "--nothing")
    refused = run_cell(cell("reward", layout="zero0-1rank-full", dtype="bf16"), world, tmp_path / "a")
    assert refused.wrong.startswith("expected a run; found --bf16 needs")
    assert "expected a refusal: --nothing" in run_cell(cell("reward"), world, tmp_path / "b").wrong


def test_a_hang_and_a_dead_rank_end(world, tmp_path, monkeypatch):
    assert together(run_function, tmp_path / "log", "os", "abort", ranks=2) == -6
    monkeypatch.setattr("processes.LIMIT", 0.5)
    with pytest.raises(Failure, match="not done after"):
        together(run_function, tmp_path / "log", "time", "sleep", 60, ranks=2)


# ---- test.sh

FEW = "import pytest\n\n\ndef test_quick():\n    pass\n\n\n@pytest.mark.full\ndef test_long():\n    pass\n"


@pytest.mark.parametrize("words, long", [((), False), (("--all",), True), (("--all", "-k", "quick"), False)])
def test_all_selects_what_is_marked_full(tmp_path, words, long):
    """The script itself, on two tests of its own and in this environment, so that nothing is installed."""
    for folder in ("training", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "training" / "environment.sh").write_text(f"cd {tmp_path}\n")
    (tmp_path / "tests" / "test_few.py").write_text(FEW)
    for name in ("test.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    listed = subprocess.run(
        ["bash", tmp_path / "test.sh", *words, "--collect-only", "-q"], env={**kept, "WORKERS": "0"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "test_quick" in listed.stdout and ("test_long" in listed.stdout) == long, listed.stdout + listed.stderr
    assert "full" in {mark.name for mark in test_the_whole_matrix.pytestmark}
