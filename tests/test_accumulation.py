"""Gradients of many micro-batches are summed in float32, whatever the model's dtype and the ZeRO stage."""

import os
import subprocess
import sys

import pytest
from toys import ROOT

MICRO_BATCHES = 256
WORKER = """
import sys
import torch
from torch import nn
from utils import engine
from utils.arguments.options import TrainingArguments

stage, offload, count = int(sys.argv[1]), bool(sys.argv[2]), int(sys.argv[3])
args = TrainingArguments(output_dir="unused", bf16=True, zero_stage=stage, offload=offload, gradient_clipping=0.0)
engine.start(args)

class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64, 8))

    def forward(self, factors):
        return (self.weight * factors).sum()

factors = torch.linspace(0.5, 1.5, 512).view(64, 8).bfloat16()
trained = engine.Engine(Weighted(), args, 10)
for _ in range(count):
    trained.backward(trained(factors) / count)
trained.step()
sys.stdout.write(f"{trained.gradient_norm() / float(factors.float().norm())}\\n")
"""


@pytest.mark.parametrize("stage, offload", [(1, ""), (2, ""), (3, ""), (1, "offload")])
def test_many_micro_batches_give_the_gradient_of_one(stage, offload):
    """A sum in bfloat16 stops growing when a micro-batch is less than half a step of it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", WORKER, str(stage), offload, str(MICRO_BATCHES)]
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split()[-1]) == pytest.approx(1, abs=1e-4)
