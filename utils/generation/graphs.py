"""One decoding step as a function: tokens in, logits out. On CUDA it is a graph, captured once and replayed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from utils.cascade import Cascade

REACH = 64  # places of an answer that a graph looks at grow by so many: each size is captured once
WARM_UPS = 2  # a first call may allocate, or build a kernel: graphs cannot


def step_of(model: nn.Module, cascade: Cascade) -> Callable[[Tensor, int], Tensor]:
    """advance(tokens [R], place) -> logits [R, V]: puts the tokens at `place` of their answers."""
    return _Graphs(model, cascade) if model.device.type == "cuda" else _Eager(model, cascade)


def _forward(model: nn.Module, cascade: Cascade, tokens_R: Tensor) -> Tensor:
    positions_R = cascade.length_R + cascade.step
    return model(input_ids=tokens_R[None], position_ids=positions_R[None], layout=cascade, use_cache=False).logits[0]


class _Eager:
    def __init__(self, model: nn.Module, cascade: Cascade) -> None:
        self.model, self.cascade = model, cascade

    def __call__(self, tokens_R: Tensor, place: int) -> Tensor:
        self.cascade.at(place, place + 1)
        return _forward(self.model, self.cascade, tokens_R)


class _Graphs:
    """Tokens go into a buffer that stays where it is, the graph is replayed, logits come out of another. A graph holds
    for one number of rows (until some leave) and one reach."""

    def __init__(self, model: nn.Module, cascade: Cascade) -> None:
        self.model, self.cascade, self.graph, self.shape = model, cascade, None, None

    def __call__(self, tokens_R: Tensor, place: int) -> Tensor:
        reach = min(-(-(place + 1) // REACH) * REACH, self.cascade.room)
        if self.shape != (len(tokens_R), reach):
            self._capture(tokens_R, place, reach)
        self.tokens_R.copy_(tokens_R)
        self.cascade.step.fill_(place)
        self.graph.replay()
        return self.logits_RV

    def _capture(self, tokens_R: Tensor, place: int, reach: int) -> None:
        self.tokens_R, self.graph, self.shape = tokens_R.clone(), torch.cuda.CUDAGraph(), (len(tokens_R), reach)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):  # writes its place twice over, with the same values
                self.cascade.at(place, reach)
                _forward(self.model, self.cascade, self.tokens_R)
        torch.cuda.current_stream().wait_stream(stream)
        self.cascade.at(place, reach)  # the masks are made inside the graph, from the place
        with torch.cuda.graph(self.graph):
            self.logits_RV = _forward(self.model, self.cascade, self.tokens_R)
