"""Scoring given answers, each prompt computed once: the log-probs of a Policy, and what reward models build on.

Legend: L positions with logits, N trained tokens, A answers, V vocabulary (utils/model/batch.py has the rest).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from utils.engine.internals import attention_of, padded_attention
from utils.engine.ranks import device, gather_objects
from utils.errors import UserError
from utils.model.adapted import plain
from utils.model.batch import Batch, collate
from utils.model.head import Head, logprobs_of_logits
from utils.model.packed_attention import PACKED, why_not_packed
from utils.reporting import say, warn
from utils.tokens.group import Group


class Policy(nn.Module):
    """A causal language model that answers a Batch with float32 log-probs of its trained tokens, [N].

    `head` computes them from hidden states, chunk by chunk, unless `chunked` is off: the model then makes its logits.
    """

    def __init__(self, model: nn.Module, temperature: float = 1.0) -> None:
        """model: of transformers, with or without an adapter. temperature: of the distributions it is asked for."""
        super().__init__()
        self.model, self.temperature = model, temperature
        self.packed, self.head = choose_rows(model), _head_of(model)
        # self_test() switches this off where chunks give other numbers than the model's own logits
        self.chunked = self.head is not None

    def forward(
        self, batch: Batch, *, entropy: bool = False, temperature: float | None = None, distributions: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return log-probs of the batch's trained tokens.

        Args:
            batch: packed or padded, as `packed` says.
            entropy: whether to return entropies, too.
            temperature: of the distribution; None: the policy's own.
            distributions: return the log-probs of all words in place of each trained token instead, without gradients:
                for few tokens.

        Returns:
            Log-probs in float32, [N]; with `entropy` also the entropy in nats of each token's distribution, [N]; with
            `distributions` float32 [N, V] alone.
        """
        if temperature is None:
            temperature = self.temperature
        if self.chunked:
            make, values_LX = self.head, hidden_states(self.model, batch)[batch.logit_positions]
        else:
            make, values_LX = logprobs_of_logits, self._logits(batch)
        rows_N = batch.logit_rows
        if distributions:
            return make(values_LX, rows_N, batch.targets, distributions=True)[rows_N]
        logprobs_N, entropy_L = make(values_LX, rows_N, batch.targets, temperature=temperature, entropy=entropy)
        if entropy:
            return logprobs_N, entropy_L[rows_N]
        return logprobs_N

    def _logits(self, batch: Batch) -> Tensor:
        """Return logits [L, V] as the model's own forward makes them."""
        _read_rows(self.model, batch)
        if batch.layout is None:
            output = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
            return output.logits.flatten(0, 1)[batch.logit_positions]
        output = self.model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, layout=batch.layout, use_cache=False,
            logits_to_keep=batch.logit_positions,
        )  # fmt: skip
        return output.logits[0]


def hidden_states(model: nn.Module, batch: Batch) -> Tensor:
    """Return the hidden states of the model's last layer at every position of the flattened input_ids, [T, D]."""
    _read_rows(model, batch)
    base = plain(model)
    body = getattr(base, base.base_model_prefix)
    if batch.layout is not None:
        output = body(input_ids=batch.input_ids, position_ids=batch.position_ids, layout=batch.layout, use_cache=False)
    else:
        output = body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    return output.last_hidden_state.flatten(0, 1)


def _head_of(model: nn.Module) -> Head | None:
    try:
        return Head(plain(model))
    except ValueError as error:
        warn(f"whole rows of logits instead of chunks (more memory, the same numbers): {error}")
        return None


def choose_rows(model: nn.Module) -> bool:
    """Return whether the model reads packed rows, else padded ones, with a warning that has the reason."""
    reason = why_not_packed(plain(model))
    if reason is None:
        return True
    warn(f"padded rows instead of packed ones (slower, the same numbers): {reason}")
    return False


def _read_rows(model: nn.Module, batch: Batch) -> None:
    """Give the model the attention that reads this batch: packed rows need one that padded rows must not use."""
    base, wanted = plain(model), PACKED
    if batch.layout is None:
        wanted = padded_attention(base)
    if attention_of(base) != wanted:
        base.set_attn_implementation(wanted)


def self_test(model, scorer: nn.Module, store: Sequence[Group], dtype_name: str) -> None:
    """Check that packed rows give what padded ones give, and that an answer's numbers do not depend on its batch, on
    two groups and without dropout. A collective.

    Args:
        model: the engine, or the scorer itself.
        scorer: a Policy or RewardModel; falls back to padded rows, on all ranks, where packed ones give other numbers.
        store: rows of the run; the first two are tried.
        dtype_name: "fp32" or "bf16", which decides how far numbers may differ.

    Raises:
        UserError: an answer's numbers depend on the rest of its batch.
    """
    # per token or score: float32 differs by the order of its sums, bfloat16 rounds logits to about 0.4 %
    tolerance = 1e-4 if dtype_name == "fp32" else 0.05
    # two groups: one could not show that a row reads its neighbour, more would only take longer
    groups = [store[i] for i in range(min(2, len(store)))]
    kind = plain(scorer.model).config.model_type
    with torch.no_grad(), _without_dropout(scorer), _enough_memory(groups):
        padded = _without_chunks(model, scorer, groups, tolerance)
        if scorer.packed:
            reasons = [reason for reason in gather_objects(_why_padded(model, groups, padded, tolerance)) if reason]
            if not reasons:
                return
            warn(f"padded rows instead of packed ones (slower, the same numbers): {kind}: {reasons[0]}")
            scorer.packed = False
        # a model that reads its padding gives other numbers when a group is alone and its padding shorter
        alone = torch.cat([model(collate([g], packed=False).to(device())) for g in groups])
    gaps = [gap for gap in gather_objects(_gap(alone, padded)) if not gap <= tolerance]  # NaN is no agreement
    if gaps:
        raise UserError(
            f"{kind}: an answer's numbers change by {gaps[0]:.2g} with the other rows of its batch; the model reads "
            f"its padding and cannot be trained here"
        )
    say("self-test: padded rows, independent of their batch")


def _why_padded(model, groups: list[Group], padded: Tensor, tolerance: float) -> str | None:
    """Return why packed rows cannot be used on this rank, None if they can."""
    try:
        gap = _gap(model(collate(groups, packed=True).to(device())), padded)
    # what a family raises that takes no `layout`, or reads it in its own way; running out of memory is no reason
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        if _out_of_memory(error):
            raise
        return f"it cannot read packed rows: {next(iter(str(error).splitlines()), type(error).__name__)}"
    if gap <= tolerance:
        return None
    return f"a packed row differs from padded ones by {gap:.2g} per token"


def _without_chunks(model, scorer: nn.Module, groups: list[Group], tolerance: float) -> Tensor:
    """Return the numbers of padded rows, a policy's from logits that the model's own forward makes. Where its head in
    chunks gives others, on any rank, it is not used from now on. A collective."""
    batch = collate(groups, packed=False).to(device())
    if not getattr(scorer, "chunked", False):
        return model(batch)
    chunked = model(batch)
    scorer.chunked = False
    whole = model(batch)
    gaps = [gap for gap in gather_objects(_gap(chunked, whole)) if not gap <= tolerance]
    if gaps:
        warn(f"whole rows of logits instead of chunks (more memory): log-probs differ by {gaps[0]:.2g} per token")
    scorer.chunked = not gaps
    return whole


@contextlib.contextmanager
def _without_dropout(scorer: nn.Module) -> Iterator[None]:
    """Put every module of the scorer into eval mode; each goes back to the mode that it had."""
    modes = [(module, module.training) for module in scorer.modules()]
    scorer.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _enough_memory(groups: list[Group]) -> Iterator[None]:
    """Turn running out of memory into a UserError with what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        raise UserError(
            f"the self-test ran out of memory on {len(groups)} prompts with their answers "
            f"({sum(group.tokens for group in groups):,} tokens); lower --max_prompt_seq_len or --max_answer_seq_len, "
            f"or shard more: --zero_stage 3, more GPUS, --offload",
            on_this_rank=True,
        ) from error


def _out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: CUDA has an error class for most cases, the others and the CPU's allocator raise
    RuntimeErrors with these words."""
    signs = ("out of memory", "DefaultCPUAllocator", "STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in signs)


def _gap(a: Tensor, b: Tensor) -> float:
    """Return the mean absolute difference, relative where values are above 1."""
    return float(((a - b).abs() / b.abs().clamp(min=1.0)).mean())
