"""Log-probs of tokens straight from hidden states: the output head in chunks.

A row of logits is as long as the vocabulary: for 16,000 answer tokens and 128,000 words they are 4 GB in bfloat16, and
as much again for their gradient. Here logits exist for one chunk of positions at a time, are reduced to a float32
log-prob for each token, and are computed again in backward (kept instead where they are few).

Legend: L positions, D hidden size, V vocabulary, N trained tokens.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import Tensor, nn

from utils.engine.internals import Borrower
from utils.model.head.logprobs import HeadOptions, LogitShape, LogProbs, Weights

# Config entries that say what a family does to its logits; where one is not known the model makes its logits itself.
KNOWN = {"final_logit_softcapping", "logit_scale", "logits_scaling"}
SHAPES_LOGITS = re.compile(r"logit.*(cap|scal|mult)|(lm_head|output)_mult")
SHAPES_ATTENTION = re.compile(r"attn|attention|router|init_value|^max_")


class Head(Borrower):
    """The output head of a causal language model, which gives log-probs of tokens where the model's own gives logits.

    Its parameters are the model's: a linear layer's weight and bias and, if it has an adapter, LoRA's A and B. They are
    registered here again because DeepSpeed gathers, under ZeRO-3, what a module owns while that module runs.
    """

    def __init__(self, model: nn.Module) -> None:
        """model: the transformers model, with LoRA layers in place. Raises ValueError, with the reason, where the head
        is not a plain linear layer or the family does something unknown to its logits."""
        super().__init__()
        # under LoRA the head is peft's layer, with the linear one inside
        layer = model.get_output_embeddings()
        linear = getattr(layer, "base_layer", layer)
        if type(linear) is not nn.Linear:
            raise ValueError(f"its head is a {type(linear).__name__}")
        self.shape = logit_shape_of(model.config.get_text_config())
        self.weight, self.bias, self.lora_a, self.lora_b, self.lora_scale = linear.weight, linear.bias, None, None, 0.0
        self._adapted: list[nn.Module] = []  # a list hides the layer from nn.Module: the model owns it
        if layer is not linear:
            self._adapted.append(layer)
            # the chunked products apply no dropout, so the model must make these logits itself
            if any(getattr(dropout, "p", 0) for dropout in layer.lora_dropout.values()):
                raise ValueError("its head has an adapter with dropout")
            self.lora_a, self.lora_b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            self.lora_scale = layer.scaling["default"]

    def forward(
        self, hidden_LD: Tensor, rows_N: Tensor, targets_N: Tensor, *, temperature: float = 1.0, entropy: bool = False,
        distributions: bool = False,
    ) -> tuple[Tensor, Tensor] | Tensor:  # fmt: skip
        """Return log-probs of tokens, and the entropy of every position.

        Args:
            hidden_LD: hidden states [L, D].
            rows_N: which of the L positions predicts each token.
            targets_N: the tokens.
            temperature: of the distribution.
            entropy: whether to compute entropies.
            distributions: whether to return float32 log-probs of all words at every position instead, [L, V], at
                temperature 1 and without gradients: for few positions.

        Returns:
            Log-probs in float32, [N], and entropies in nats, float32 [L], or [0] unless asked for.
        """
        lora = (None, None)
        if self._adapted and not self._adapted[0].disable_adapters:
            lora = (self.lora_a, self.lora_b)
        if distributions:
            with torch.no_grad():
                product = Weights(self.weight, self.bias, *lora, self.lora_scale).product(hidden_LD)
                return self.shape.logits(product).log_softmax(-1)
        options = HeadOptions(replace(self.shape, temperature=temperature), self.lora_scale, entropy)
        return LogProbs.apply(options, hidden_LD, rows_N, targets_N, self.weight, self.bias, *lora)


def logprobs_of_logits(
    logits_LV: Tensor, rows_N: Tensor, targets_N: Tensor, *, temperature: float = 1.0, entropy: bool = False,
    distributions: bool = False,
) -> tuple[Tensor, Tensor] | Tensor:  # fmt: skip
    """Return what Head.forward does, from logits that the model made itself.

    Args:
        logits_LV: logits [L, V] in place of hidden states.
        rows_N: as in Head.forward, and so are the others.
        targets_N: the tokens.
        temperature: of the distribution.
        entropy: whether to compute entropies.
        distributions: whether to return log-probs of all words instead.

    Returns:
        As Head.forward.
    """
    if distributions:
        return logits_LV.detach().float().log_softmax(-1)
    options = HeadOptions(LogitShape(temperature=temperature), lora_scale=0.0, entropy=entropy)
    return LogProbs.apply(options, logits_LV, rows_N, targets_N, None, None, None, None)


def logit_shape_of(config) -> LogitShape:
    """Return what a family's configuration does to logits. Raises ValueError where it names something unknown."""
    given = {name: value for name, value in config.to_dict().items() if isinstance(value, int | float)}
    strange = [n for n in given if SHAPES_LOGITS.search(n) and not SHAPES_ATTENTION.search(n) and n not in KNOWN]
    if strange:
        raise ValueError(f"{config.model_type} has {strange[0]}")
    scaling = given.get("logits_scaling", 1.0)
    if config.model_type != "hyperclovax":  # the other families divide by it
        scaling = 1 / scaling
    return LogitShape(given.get("logit_scale", 1.0) * scaling, given.get("final_logit_softcapping") or None)
