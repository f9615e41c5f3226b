"""The share of the GEMM limit: FLOPs counted by hand, and a peak measured at the model's own shapes."""

import time

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toys import tiny_lm

from utils.arguments.options import ModelArguments
from utils.engine.speed import ROWS, Meter, gemm_peak
from utils.model.adapted import plain
from utils.model.lora import add_lora

CPU = torch.device("cpu")
LAYERS, HIDDEN, MLP, VOCAB = 3, 64, 96, 211
BODY = LAYERS * (HIDDEN * (64 + 32 + 32 + 64) + 3 * HIDDEN * MLP + 2 * HIDDEN) + HIDDEN  # q k v o, MLP, norms; the last


class Products(TorchDispatchMode):
    """Shapes (rows, inner, outer) of the matrix products inside."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.mm.default:
            self.shapes.append((*args[0].shape, args[1].shape[1]))
        return function(*args, **(kwargs or {}))


def flops(model, tokens, trained):
    meter = Meter(model, torch.float32, CPU)
    return meter.share(tokens, trained, seconds=2.0, devices=4) * meter.peak * 2.0 * 4


def test_every_weight_trained():
    assert flops(tiny_lm(), 100, 10) == pytest.approx(6 * BODY * 100 + 6 * HIDDEN * VOCAB * 10)


def test_a_head_that_is_the_embedding_counts_as_a_head():
    """GPT-2: per layer 12 d² + 13 d, a last norm; tokens' and positions' tables are looked up, not multiplied."""
    body = LAYERS * (12 * HIDDEN**2 + 13 * HIDDEN) + 2 * HIDDEN
    assert flops(tiny_lm("gpt2"), 100, 10) == pytest.approx(6 * body * 100 + 6 * HIDDEN * VOCAB * 10)


def test_frozen_weights_under_an_adapter_cost_two_thirds():
    options = ModelArguments("m", lora_dim=4, lora_target_modules=["q_proj", "down_proj"])
    adapters = LAYERS * 4 * (HIDDEN + 64 + MLP + HIDDEN)
    expected = (4 * BODY + 6 * adapters) * 100 + 4 * HIDDEN * VOCAB * 10
    assert flops(plain(add_lora(tiny_lm(), options)), 100, 10) == pytest.approx(expected)


def test_the_peak_is_measured_at_the_largest_matrix():
    """Of the body: the head, 211 x 64, is larger, but computed for trained tokens alone. The seed does not move."""
    model, before = tiny_lm(), torch.get_rng_state()
    with Products() as products:
        meter = Meter(model, torch.float32, CPU)
    rows = [shape[0] for shape in products.shapes]
    assert {frozenset(shape[1:]) for shape in products.shapes} == {frozenset((HIDDEN, MLP))}
    assert max(rows) == ROWS and meter.peak > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_measuring_is_quick_for_large_matrices():
    gemm_peak(64, 64, torch.float32, CPU)
    start = time.perf_counter()
    gemm_peak(4096, 4096, torch.float32, CPU)
    assert time.perf_counter() - start < 3  # with 8,192 rows it would be 1.1 TFLOP, half a minute of a core


def test_a_peak_measured_on_a_busy_machine_is_measured_again():
    """No share exceeds 1; what a step has reached is a peak, too; measuring again costs at most 0.1 s of a run."""
    meter = Meter(tiny_lm(), torch.float32, CPU)
    work = 6 * BODY * 1000
    true, meter.peak = meter.peak, meter.peak / 20  # as twenty other programs would have it
    start = time.process_time()
    half = meter.share(1000, 0, seconds=work / (0.2 * true), devices=1)
    assert half < 0.8 and meter.peak > 0.25 * true
    assert meter.share(1000, 0, seconds=work / (50 * true), devices=2) == 1.0 and meter.peak == pytest.approx(25 * true)
    for _ in range(50):
        meter.share(1000, 0, seconds=work / (60 * true), devices=2)
    assert time.process_time() - start < 0.5  # two short measurements; 52 are more than a second
    assert meter.share(1000, 0, seconds=work / (15 * true), devices=1) == pytest.approx(0.5)
