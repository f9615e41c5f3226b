"""Gradients of micro-batches and of ranks are added in float32, whatever the model's dtype and the ZeRO stage."""

import pytest
import torch
from processes import run_function, together
from torch import nn

MICRO_BATCHES = 256


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64, 8))

    def forward(self, factors):
        return (self.weight * factors).sum()


def gradient_norm(stage, offload, batches):
    """The norm of the mean gradient of `batches`, one update of a bfloat16 model after all of them."""
    from utils.arguments.options import TrainingArguments
    from utils.engine import deepspeed_engine

    args = TrainingArguments(output_dir="unused", bf16=True, zero_stage=stage, offload=offload, gradient_clipping=0.0)
    deepspeed_engine.start(args)
    trained = deepspeed_engine.Engine(Weighted(), args, 10)
    for factors in batches:
        trained.backward(trained(factors) / len(batches))
    trained.step()
    return trained.gradient_norm()


def many(stage, offload):
    factors = torch.linspace(0.5, 1.5, 512).view(64, 8).bfloat16()
    found = gradient_norm(stage, offload, [factors] * MICRO_BATCHES)
    assert found == pytest.approx(float(factors.float().norm()), rel=1e-4)


def of_ranks(stage, offload):
    """1 + 2^-9 is 1 in bfloat16."""
    from utils.engine.ranks import rank

    found = gradient_norm(stage, offload, [torch.full((64, 8), (1.0, 2.0**-9)[rank()]).bfloat16()])
    assert found == pytest.approx((1 + 2.0**-9) / 2 * 512**0.5, rel=1e-5)


@pytest.mark.parametrize("stage, offload", [(1, False), (2, False), (3, False), (1, True)])
@pytest.mark.parametrize("cut", ["many", "of_ranks"])
def test_parts_give_the_gradient_of_the_whole(tmp_path, cut, stage, offload):
    """A sum in bfloat16 stops growing when an addend is less than half a step of it."""
    log = tmp_path / "log"
    ranks = 2 if cut == "of_ranks" else 1
    assert together(run_function, log, "test_accumulation", cut, stage, offload, ranks=ranks) == 0, log.read_text()
