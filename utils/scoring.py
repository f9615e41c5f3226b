"""What a model says of given answers: token log-probs (Policy) and scores (RewardModel), each prompt computed once.

Legend: L positions with logits, N trained tokens, A answers, V vocabulary (utils/batches.py has the rest).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from utils.attention import PACKED, why_not_packed
from utils.batches import Batch, collate
from utils.errors import UserError
from utils.groups import Group
from utils.head import Head, logprobs_of_logits
from utils.lora import plain
from utils.ranks import device
from utils.reporting import say, warn


class Policy(nn.Module):
    """A causal language model that answers a Batch with float32 log-probs of its trained tokens, [N].

    `head` computes them from hidden states, chunk by chunk; None where the model must make its logits itself.
    """

    def __init__(self, model: nn.Module, temperature: float = 1.0) -> None:
        super().__init__()
        self.model, self.packed, self.temperature, self.head = model, _choose_rows(model), temperature, _head_of(model)

    def forward(
        self, batch: Batch, *, entropy: bool = False, temperature: float | None = None, distributions: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return log-probs of the batch's trained tokens, [N].

        entropy: also the entropy in nats of the distribution of each token, [N]. temperature: of the distribution; None
        is the policy's own. distributions: return instead the log-probs of all words at the batch's logit positions,
        float32 [L, V], without gradients: for few positions.
        """
        temperature = self.temperature if temperature is None else temperature
        if self.head is not None:
            make, values_LX = self.head, hidden_states(self.model, batch)[batch.logit_positions]
        else:
            make, values_LX = logprobs_of_logits, self._logits(batch)
        rows_N = batch.logit_rows
        if distributions:
            return make(values_LX, rows_N, batch.targets, distributions=True)
        logprobs_N, entropy_L = make(values_LX, rows_N, batch.targets, temperature=temperature, entropy=entropy)
        return (logprobs_N, entropy_L[rows_N]) if entropy else logprobs_N

    def _logits(self, batch: Batch) -> Tensor:
        """[L, V], as the model's own forward makes them."""
        _read_rows(self.model, batch)
        if batch.layout is None:
            output = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
            return output.logits.flatten(0, 1)[batch.logit_positions]
        output = self.model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, layout=batch.layout, use_cache=False,
            logits_to_keep=batch.logit_positions,
        )  # fmt: skip
        return output.logits[0]


class RewardModel(nn.Module):
    """A one-label sequence classification model that answers a Batch with each answer's score, float32 [A]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.packed = model, _choose_rows(model)

    def forward(self, batch: Batch) -> Tensor:
        return self._scores_at(batch, batch.answer_ends)

    def _scores_at(self, batch: Batch, positions: Tensor) -> Tensor:
        hidden_PD = hidden_states(self.model, batch)[positions]
        return plain(self.model).score(hidden_PD).squeeze(-1).float()


class Critic(RewardModel):
    """The same model as a value function: what is expected before each trained token is drawn, float32 [N]."""

    def forward(self, batch: Batch) -> Tensor:
        return self._scores_at(batch, batch.logit_positions)[batch.logit_rows]


def hidden_states(model: nn.Module, batch: Batch) -> Tensor:
    """What the model's body gives at every position of the batch's flattened input_ids, [T, D]."""
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
    """Packed must equal padded on two groups, and an answer's numbers must not depend on its batch. A family that fails
    the first falls back to padded rows; one that fails the second is refused. `model` is the engine, or the scorer."""
    tolerance = 1e-4 if dtype_name == "fp32" else 0.05  # per token or score; bf16 rounds logits to about 0.4 %
    groups = [store[i] for i in range(min(2, len(store)))]
    with torch.no_grad():
        padded = model(collate(groups, packed=False).to(device()))
        if scorer.packed:
            try:
                packed = model(collate(groups, packed=True).to(device()))
                gap = _gap(packed, padded)
                if gap <= tolerance:
                    return
                reason = f"a packed row differs from padded ones by {gap:.2g} per token"
            except (RuntimeError, TypeError, ValueError, AttributeError) as error:
                reason = f"it cannot read packed rows: {str(error).splitlines()[0]}"
            kind = plain(scorer.model).config.model_type
            warn(f"padded rows instead of packed ones (slower, the same numbers): {kind}: {reason}")
            scorer.packed = False
        alone = torch.cat([model(collate([g], packed=False).to(device())) for g in groups])
    gap = _gap(alone, padded)
    if gap > tolerance:
        raise UserError(
            f"{plain(scorer.model).config.model_type}: an answer's numbers change by {gap:.2g} with the other rows of "
            f"its batch; the model reads its padding and cannot be trained here"
        )
    say("self-test: padded rows, independent of their batch")


def _gap(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference, relative where values are large."""
    return float(((a - b).abs() / b.abs().clamp(min=1.0)).mean())
