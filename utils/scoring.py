"""What a model says of given answers: token log-probs (Policy) and scores (RewardModel), each prompt computed once.

Legend: L positions with logits, N trained tokens, A answers, V vocabulary (utils/batches.py has the rest).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from utils.attention import PACKED, why_not_packed
from utils.batches import Batch, collate
from utils.errors import UserError
from utils.groups import Group
from utils.lora import plain
from utils.ranks import device, gather_objects
from utils.reporting import say, warn

ROWS_AT_ONCE = 512  # float32 copies of logits are made for so many positions at a time


class Policy(nn.Module):
    """A causal language model that answers a Batch with float32 log-probs of its trained tokens, [N]."""

    def __init__(self, model: nn.Module, temperature: float = 1.0) -> None:
        super().__init__()
        self.model, self.packed, self.temperature = model, _choose_rows(model), temperature

    def forward(self, batch: Batch, entropy: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """entropy: (log-probs, the entropy in nats of the distribution that each token was drawn from), [N] each."""
        _read_rows(self.model, batch)
        if batch.layout is not None:
            output = self.model(
                input_ids=batch.input_ids, position_ids=batch.position_ids, layout=batch.layout, use_cache=False,
                logits_to_keep=batch.logit_positions,
            )  # fmt: skip
            logits_LV = output.logits[0]
        else:
            output = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
            logits_LV = output.logits.flatten(0, 1)[batch.logit_positions]
        if self.temperature != 1:
            logits_LV = logits_LV / self.temperature
        logprobs_N = token_logprobs(logits_LV, batch.logit_rows, batch.targets)
        return (logprobs_N, token_entropies(logits_LV)[batch.logit_rows]) if entropy else logprobs_N


class RewardModel(nn.Module):
    """A one-label sequence classification model that answers a Batch with each answer's score, float32 [A]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.packed = model, _choose_rows(model)

    def forward(self, batch: Batch) -> Tensor:
        return self._scores_at(batch, batch.answer_ends)

    def _scores_at(self, batch: Batch, positions: Tensor) -> Tensor:
        _read_rows(self.model, batch)
        model = plain(self.model)
        body = getattr(model, model.base_model_prefix)
        if batch.layout is not None:
            output = body(
                input_ids=batch.input_ids, position_ids=batch.position_ids, layout=batch.layout, use_cache=False
            )
        else:
            output = body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        return model.score(output.last_hidden_state.flatten(0, 1)[positions]).squeeze(-1).float()


class Critic(RewardModel):
    """The same model as a value function: what is expected before each trained token is drawn, float32 [N]."""

    def forward(self, batch: Batch) -> Tensor:
        return self._scores_at(batch, batch.logit_positions)[batch.logit_rows]


class _TokenLogProbs(torch.autograd.Function):
    """log P of chosen entries of rows of logits. Keeps the logits in their own dtype, never a float32 copy of all."""

    @staticmethod
    def forward(ctx, logits_LV: Tensor, rows_N: Tensor, targets_N: Tensor) -> Tensor:
        lse_L = torch.cat([chunk.float().logsumexp(-1) for chunk in logits_LV.split(ROWS_AT_ONCE)])
        ctx.save_for_backward(logits_LV, lse_L, rows_N, targets_N)
        return logits_LV[rows_N, targets_N].float() - lse_L[rows_N]

    @staticmethod
    def backward(ctx, grad_N: Tensor):
        logits_LV, lse_L, rows_N, targets_N = ctx.saved_tensors
        # d log P(target) / d logits = onehot(target) − softmax; several targets may share a row of logits
        weight_L = torch.zeros_like(lse_L).index_add_(0, rows_N, grad_N)
        grad_LV = torch.empty_like(logits_LV)
        for start in range(0, len(logits_LV), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            probs = torch.exp_(logits_LV[part].float() - lse_L[part, None])
            grad_LV[part] = probs.mul_(-weight_L[part, None]).to(grad_LV.dtype)
        grad_LV.index_put_((rows_N, targets_N), grad_N.to(grad_LV.dtype), accumulate=True)
        return grad_LV, None, None


def token_entropies(logits_LV: Tensor) -> Tensor:
    """−Σ p log p of each row of logits, float32 [L]."""
    logprobs_LV = logits_LV.float().log_softmax(-1)
    return -(logprobs_LV.exp() * logprobs_LV).sum(-1)


def token_logprobs(logits_LV: Tensor, rows_N: Tensor, targets_N: Tensor) -> Tensor:
    """float32 log P of token targets[n] under logits[rows[n]], [N]: the logit minus the row's log-sum-exp."""
    return _TokenLogProbs.apply(logits_LV, rows_N, targets_N)


def _choose_rows(model: nn.Module) -> bool:
    reason = why_not_packed(plain(model))
    if reason is None:
        return True
    warn(f"padded rows instead of packed ones (slower, the same numbers): {reason}")
    return False


def _read_rows(model: nn.Module, batch: Batch) -> None:
    """Packed rows need the attention that reads them; anything else must not use it."""
    base = plain(model)
    wanted = PACKED if batch.layout is not None else "sdpa" if getattr(base, "_supports_sdpa", False) else "eager"
    if base.config._attn_implementation != wanted:
        base.set_attn_implementation(wanted)


def self_test(model, scorer: Policy | RewardModel, store: Sequence[Group], dtype_name: str) -> None:
    """Check that packed rows give what padded ones give, and that an answer's numbers do not depend on its batch, on
    two groups and without dropout. A family that fails the first falls back to padded rows, on all ranks; one that
    fails the second is refused. `model` is the engine, or the scorer. A collective; raises UserError."""
    tolerance = 1e-4 if dtype_name == "fp32" else 0.05  # per token or score; bf16 rounds logits to about 0.4 %
    groups = [store[i] for i in range(min(2, len(store)))]
    kind = plain(scorer.model).config.model_type
    with torch.no_grad(), _without_dropout(scorer), _enough_memory(groups):
        padded = model(collate(groups, packed=False).to(device()))
        if scorer.packed:
            reasons = [reason for reason in gather_objects(_why_padded(model, groups, padded, tolerance)) if reason]
            if not reasons:
                return
            warn(f"padded rows instead of packed ones (slower, the same numbers): {kind}: {reasons[0]}")
            scorer.packed = False
        alone = torch.cat([model(collate([g], packed=False).to(device())) for g in groups])
    gaps = [gap for gap in gather_objects(_gap(alone, padded)) if not gap <= tolerance]  # NaN is no agreement
    if gaps:
        raise UserError(
            f"{kind}: an answer's numbers change by {gaps[0]:.2g} with the other rows of its batch; the model reads "
            f"its padding and cannot be trained here"
        )
    say("self-test: padded rows, independent of their batch")


def _why_padded(model, groups: list[Group], padded: Tensor, tolerance: float) -> str | None:
    """Why packed rows cannot be used on this rank, None if they can."""
    try:
        gap = _gap(model(collate(groups, packed=True).to(device())), padded)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        if _out_of_memory(error):
            raise
        return f"it cannot read packed rows: {next(iter(str(error).splitlines()), type(error).__name__)}"
    return None if gap <= tolerance else f"a packed row differs from padded ones by {gap:.2g} per token"


@contextlib.contextmanager
def _without_dropout(scorer: nn.Module) -> Iterator[None]:
    """Context in which every module of the scorer is in eval mode; each goes back to the mode that it had."""
    modes = [(module, module.training) for module in scorer.modules()]
    scorer.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _enough_memory(groups: list[Group]) -> Iterator[None]:
    """Context that turns running out of memory into a UserError with what to lower."""
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
    """CUDA has an error class for most cases; the others and the CPU's allocator raise RuntimeErrors that say it."""
    signs = ("out of memory", "DefaultCPUAllocator", "STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in signs)


def _gap(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference, relative where values are large."""
    return float(((a - b).abs() / b.abs().clamp(min=1.0)).mean())
