"""The packed path against padded rows: values and gradients, for grouped heads, sliding windows and 1 to 64 answers.

In bfloat16 on CUDA the packed path is torch's variable-length kernel. Two bfloat16 computations differ by rounding, so
that they are not compared with each other but both with float32: the packed path may be at most half as much again off
as padded rows are. On a CPU the kernel does not exist; a plain reimplementation of its documented behaviour takes its
place in `varlen_cases`, so that the index arithmetic in front of it is tested everywhere.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from gpu.common import Part, device, on_gpu
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from utils.model import packed_attention as attention
from utils.model.batch import collate
from utils.model.packed_attention import Layout, packed_attention
from utils.model.reward_model import RewardModel
from utils.model.scoring import Policy
from utils.tokens.group import Group, group

VOCABULARY = 211
KEY_HEADS = (8, 2, 1)  # of 8 query heads: groups of 1, 4 and 8
WINDOWS = (None, 24, 60)  # prompts have 33 to 48 tokens: no window, one shorter, one that reaches into the prompt
ANSWERS = (1, 2, 64)  # of a prompt
TOTAL = 64  # answers of a case, so that an error is averaged over enough of them
LOG_PROBS = 1e-4  # float32, absolute: log-probs are of size 5, and sums of 60 keys round to 1e-6 of that
# float32, relative: what tests/test_packed.py holds on a CPU; on a GPU fused attention multiplies in three TF32 parts
GRADIENTS = 5e-5 if on_gpu() else 2e-6
KERNEL = 2e-2 if on_gpu() else 1e-5  # relative: bfloat16 rounds by 2e-3, several times on the way back; or float32
HEAD = 64 if on_gpu() else 16  # the kernel's usual size; the CPU form is small
SHARPER = 6.0  # weights of queries and keys are multiplied by this: drawn ones attend to all places about equally, and
# a mask that is wrong by one place would change less than bfloat16 rounds
WORSE = 1.5  # bfloat16: error against float32, packed over padded; both sum in orders of their own


def groups_of(answers: int, seed: int = 0) -> list[Group]:
    draw = np.random.default_rng(seed)
    ids = lambda low, high: draw.integers(5, VOCABULARY, draw.integers(low, high))  # noqa: E731
    return [group(ids(33, 49), [ids(3, 31) for _ in range(answers)]) for _ in range(TOTAL // answers)]


def scorer_of(kind: type, key_heads: int, window: int | None, seed: int = 0) -> Policy | RewardModel:
    """Two layers of Mistral, the family with a window in its config."""
    config = AutoConfig.for_model(
        "mistral", vocab_size=VOCABULARY, hidden_size=8 * HEAD, intermediate_size=12 * HEAD, num_hidden_layers=2,
        num_attention_heads=8, num_key_value_heads=key_heads, head_dim=HEAD, sliding_window=window,
        max_position_embeddings=256, attention_dropout=0.0, num_labels=1, pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(seed)
    made = AutoModelForCausalLM if kind is Policy else AutoModelForSequenceClassification
    model = made.from_config(config, dtype=torch.float32).to(device()).train()
    for layer in model.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.weight.data *= SHARPER
    return kind(model)


def values_and_gradients(scorer, groups: list[Group], packed: bool) -> tuple[Tensor, Tensor]:
    """float32 values of the batch, and the gradient of their weighted sum with respect to every weight."""
    values = scorer(collate(groups, packed=packed).to(device()))
    scorer.zero_grad()
    (values * torch.linspace(-1, 1, len(values), device=values.device)).sum().backward()
    found = [p.grad.flatten().float() for p in scorer.parameters() if p.grad is not None]
    return values.detach(), torch.cat(found)


def off(found: Tensor, right: Tensor) -> float:
    """Relative error, in the norm."""
    return float((found - right).norm() / right.norm())


def compare(kind: type, key_heads: int, window: int | None, answers: int) -> dict[str, float]:
    """Both dtypes of one case; raises AssertionError when packed rows are too far off."""
    scorer, groups = scorer_of(kind, key_heads, window), groups_of(answers)
    assert scorer.packed
    (right, right_gradient), (packed, packed_gradient) = (
        values_and_gradients(scorer, groups, packed) for packed in (False, True)
    )
    found = {"fp32": float((packed - right).abs().max()), "fp32_gradient": off(packed_gradient, right_gradient)}
    assert found["fp32"] <= LOG_PROBS, f"float32: values differ by {found['fp32']:.2g}"
    assert found["fp32_gradient"] <= GRADIENTS, f"float32: gradients differ by {found['fp32_gradient']:.2g}"
    low = copy.deepcopy(scorer).bfloat16()
    rounded = copy.deepcopy(low).float()  # the same weights, computed exactly
    exact = values_and_gradients(rounded, groups, packed=False)
    errors = {
        rows: [off(a, b) for a, b in zip(values_and_gradients(low, groups, rows == "packed"), exact, strict=True)]
        for rows in ("padded", "packed")
    }
    for i, name in enumerate(("bf16", "bf16_gradient")):
        padded_error, packed_error = errors["padded"][i], errors["packed"][i]
        found[name], found[f"{name}_padded"] = packed_error, padded_error
        assert 0 < packed_error <= WORSE * padded_error, (
            f"{name}: packed rows are {packed_error:.2g} off float32, padded ones {padded_error:.2g}"
        )
    return found


# ---- the kernel alone


def plain_varlen(
    query: Tensor, key: Tensor, value: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, *,
    scale: float | None, window_size: tuple[int, int], enable_gqa: bool,
) -> Tensor:  # fmt: skip
    """What torch.nn.attention.varlen.varlen_attn documents, sequence by sequence: query i of a sequence stands at the
    keys' position i + (keys − queries) and sees window_size[0] keys before it (−1: all) and window_size[1] after."""
    assert int(cu_q.diff().max()) == max_q and int(cu_k.diff().max()) == max_k
    copies = query.shape[1] // key.shape[1]
    assert enable_gqa or copies == 1
    outputs = []
    for n in range(len(cu_q) - 1):
        q, k, v = query[cu_q[n] : cu_q[n + 1]], key[cu_k[n] : cu_k[n + 1]], value[cu_k[n] : cu_k[n + 1]]
        k, v = k.repeat_interleave(copies, 1), v.repeat_interleave(copies, 1)
        before = torch.arange(len(q))[:, None] + len(k) - len(q) - torch.arange(len(k))
        hidden = before < -window_size[1]
        if window_size[0] >= 0:
            hidden = hidden | (before > window_size[0])
        scores = torch.einsum("qhd,khd->hqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
        weights = scores.masked_fill(hidden.to(scores.device), float("-inf")).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, v))
    return torch.cat(outputs)


def compare_varlen(key_heads: int, window: int | None, answers: int) -> dict[str, float]:
    """The variable-length path against segments of scaled_dot_product_attention, outputs and gradients: on CUDA the
    kernel in bfloat16, on a CPU the reimplementation in float32."""
    layout = Layout(tuple((len(g.prompt), tuple(map(len, g.answers))) for g in groups_of(answers)))
    tokens, dtype = sum(layout.lengths), torch.bfloat16 if on_gpu() else torch.float32
    torch.manual_seed(1)
    shapes = ((8, tokens), (key_heads, tokens), (key_heads, tokens))
    drawn = [torch.randn(1, heads, n, HEAD, device=device()).to(dtype) for heads, n in shapes]
    towards = torch.randn(1, tokens, 8, HEAD, device=device())

    def through(function, dtype):
        inputs = [x.detach().to(dtype).requires_grad_() for x in drawn]
        output = function(inputs)
        (output.float() * towards).sum().backward()
        return [output.detach().float(), *(x.grad.float() for x in inputs)]

    segments = through(lambda x: packed_attention(None, *x, None, None, 0.0, window, layout=layout)[0], torch.float32)
    with _kernel():
        found = through(lambda x: attention._varlen(*x, scaling=None, window=window, layout=layout), dtype)
    error = max(off(a, b) for a, b in zip(found, segments, strict=True))
    assert error <= KERNEL, f"the variable-length path is {error:.2g} off"
    return {"error": error}


def _kernel():
    """The kernel itself on CUDA, its reimplementation on a CPU."""
    if on_gpu():
        return contextlib.nullcontext()
    return mock.patch("torch.nn.attention.varlen.varlen_attn", plain_varlen)


# ---- the part


def cases() -> Iterator[tuple[str, object]]:
    named = lambda heads, window, k: f"{8 // heads} queries to a key, window {window}, {k} answers"  # noqa: E731
    for case in itertools.product(KEY_HEADS, WINDOWS, ANSWERS):
        yield f"attention, {named(*case)}", lambda case=case: compare_varlen(*case)
    for kind in (Policy, RewardModel):
        for case in itertools.product(KEY_HEADS, WINDOWS, ANSWERS):
            yield f"{kind.__name__}, {named(*case)}", lambda kind=kind, case=case: compare(kind, *case)


def main(part: Part) -> None:
    part.run(cases())
