"""A program for the tests: the self-test of two ranks, of which the second cannot read packed rows.

torchrun --nproc_per_node 2 packing_worker.py FOLDER      writes FOLDER/RANK: does it go on with packed rows?
"""

import sys
from pathlib import Path

import torch
from toys import tiny_lm

from utils.engine import ranks
from utils.model.scoring import Policy, self_test
from utils.tokens.group import group


def main():
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    policy = Policy(tiny_lm())
    plain_forward = policy.model.model.forward

    def forward(*args, layout=None, **kwargs):
        if layout is not None and ranks.rank() == 1:
            raise ValueError("only rank 1 says so")
        return plain_forward(*args, layout=layout, **kwargs)

    policy.model.model.forward = forward
    self_test(policy, policy, [group([5, 6, 7], [[8, 9], [9, 8, 2]])] * 2, "fp32")
    Path(sys.argv[1], str(ranks.rank())).write_text(str(policy.packed))


if __name__ == "__main__":
    main()
