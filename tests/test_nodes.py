"""Two ranks that are the first of their nodes: only rank 0 writes what nodes may share."""

import os
import subprocess
import sys

import torch
from toys import ROOT

from utils.engine.ranks import free_port

WORKER = """
import sys
from pathlib import Path
import torch
from test_packed import random_groups
from toys import tiny_lm
from utils.engine.ranks import free_port
from utils.training.reference import reference_logprobs
from utils.model.batch import collate
from utils.model.scoring import Policy

torch.distributed.init_process_group("gloo")
groups = random_groups()
found = reference_logprobs(Policy(tiny_lm()), groups, Path(sys.argv[1]) / "toy.sqlite", packed=True, count=1, budget=0)
torch.save(found.of(collate(groups, range(len(groups)))), sys.argv[2])
"""


def test_the_reference_cache_has_one_writer(tmp_path):
    """Each node has a folder of its own here, so that it shows who writes; both ranks know every number."""
    port, processes = str(free_port()), []
    for rank in range(2):
        environment = {
            **os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "RANK": str(rank),
            "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        }  # fmt: skip
        words = [sys.executable, "-c", WORKER, str(tmp_path / f"node-{rank}"), str(tmp_path / f"{rank}.pt")]
        processes.append(subprocess.Popen(words, env=environment, cwd=ROOT))
    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    assert list((tmp_path / "node-0").glob("*.sqlite")) and not (tmp_path / "node-1").exists()
    numbers = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert torch.equal(*numbers) and len(numbers[0]) == 8
