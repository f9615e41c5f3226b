"""One decoding step as a function: tokens in, logits out. On CUDA it is a graph, captured once for each shape and kept.

The graphs of a model share one pool of memory and the buffers of slots.py, from one batch to the next and, while the
buffers are small, from one call to the next. They are dropped when what they read has moved: weights (ZeRO-3 gathers
them to other places each time), adapters switched on or off, buffers that grew.

Legend: R answers in flight, or slots, V vocabulary.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from utils.generation.shared_cache import SharedCache
from utils.generation.slots import Buffers, Slots, StepShape, why_not_slots
from utils.reporting import warn

MOST_GRAPHS = 64  # of a model; further shapes run without
# Buffers up to this size stay between calls; training would miss the memory of larger ones.
KEPT_BYTES = 2**30
# The first calls of a computation may allocate memory or build a kernel, which a graph cannot hold.
WARM_UPS = 2

Computation = Callable[[], None]  # it works in place
Recorder = Callable[[Computation], Computation]  # a computation -> what repeats it
MakeRecorder = Callable[[torch.device], Recorder]


class CannotRecord(RuntimeError):  # noqa: N818 - it is caught here and told as a reason
    """A computation that no graph can hold, because it waits for the device; the message says where."""


class CudaGraphs:
    """A Recorder that captures a computation as a CUDA graph, and repeats it by replaying the graph."""

    def __init__(self, device: torch.device) -> None:
        self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def __call__(self, run: Computation) -> Computation:
        # The current device need not be that of the model: a program may never have set it.
        with torch.cuda.device(self.stream.device):
            return self._captured(run)

    def _captured(self, run: Computation) -> Computation:
        self.stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self.stream):
                # Repeating a step is harmless: it writes the same values to the same place.
                for _ in range(WARM_UPS - 1):
                    run()
                # Found out before the capture: one that fails leaves PyTorch's memory allocator in disorder.
                with _waiting_is_an_error():
                    run()
        finally:
            torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: calls of other threads, such as NCCL's watchdog, must not end the capture.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            run()
        return graph.replay


@contextlib.contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    """Raise CannotRecord for an operation that waits for the device."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "a prototype feature"
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise CannotRecord(next(iter(str(error).splitlines()), type(error).__name__)) from error
    finally:
        torch.cuda.set_sync_debug_mode(before)


class RecordedSteps:
    """What the generations of a model share: buffers, and the steps recorded in them, by their shape."""

    def __init__(self, make: MakeRecorder, device: torch.device) -> None:
        self.make, self.buffers, self.told = make, Buffers(device), set()
        self.read, self.works = (), True
        self.drop()

    def drop(self) -> None:
        """Forget every step."""
        self.replays: dict[StepShape, Computation] = {}
        # Another recorder, because the memory pool of graphs that are all gone cannot be used again.
        self.record, self.moved = self.make(self.buffers.device), self.buffers.moved

    def begin(self, model: nn.Module) -> None:
        """Drop steps that were recorded with other weights or adapters."""
        read = what_is_read(model)
        if read != self.read:
            self.read = read
            self.drop()

    def replay(self, shape: StepShape, run: Computation) -> Computation:
        """Return what repeats the step of this shape, which is recorded when it is met first."""
        if self.buffers.moved != self.moved:
            self.drop()
        if shape in self.replays:
            return self.replays[shape]
        if len(self.replays) >= MOST_GRAPHS:
            self.tell(f"more than {MOST_GRAPHS} shapes")
        elif self.works:
            try:
                self.replays[shape] = self.record(run)
            except CannotRecord as error:
                self.tell(f"a step waits for the device: {error}")
                self.works = False
        return self.replays.get(shape, run)

    def tell(self, reason: str) -> None:
        """Print why a step is not recorded, once for each reason."""
        if reason not in self.told:
            self.told.add(reason)
            warn(f"generation: steps without CUDA graphs (slower, the same answers): {reason}")


_kept: weakref.WeakKeyDictionary[nn.Module, RecordedSteps] = weakref.WeakKeyDictionary()


def recorded_steps(model: nn.Module, lengths: Sequence[int], make: MakeRecorder | None) -> RecordedSteps | None:
    """Return the buffers and steps for prompts of these lengths, or None where steps are not recorded.

    make: makes what records a step; None: CUDA graphs on CUDA, nothing elsewhere.
    """
    if make is None:
        if model.device.type != "cuda":
            return None
        make = CudaGraphs
    kept = _kept.get(model)
    if kept is None or kept.make is not make or kept.buffers.device != model.device:
        kept = _kept[model] = RecordedSteps(make, model.device)
    reason = why_not_slots(lengths)
    if reason:
        kept.tell(reason)
        return None
    kept.begin(model)
    return kept


def release(model: nn.Module) -> None:
    """Let go of a model's buffers after a call, if they are too large to keep."""
    kept = _kept.get(model)
    if kept is not None and kept.buffers.bytes > KEPT_BYTES:
        del _kept[model]


def what_is_read(model: nn.Module) -> tuple:
    """Return what a recorded step reads besides its buffers: the address of each weight, and which adapters are on."""
    addresses = [(tensor.data_ptr(), tensor.dtype) for tensor in (*model.parameters(), *model.buffers())]
    adapters = []
    for module in model.modules():
        if isinstance(getattr(module, "disable_adapters", None), bool):
            merged = bool(getattr(module, "merged", False))
            adapters.append((module.disable_adapters, merged, tuple(module.active_adapters)))
    return tuple(addresses), tuple(adapters)


class EagerStep:
    """A step that is computed: step(tokens [R], place) -> logits [R, V]; the tokens are at `place` of their answers."""

    def __init__(self, model: nn.Module, cache: SharedCache) -> None:
        self.model, self.cache = model, cache

    def __call__(self, tokens_R: Tensor, place: int) -> Tensor:
        self.cache.at(place, place + 1)
        return _forward(self.model, self.cache, tokens_R)


class RecordedStep:
    """A step that is repeated, called as an EagerStep: tokens go into the slots, logits come out of them.

    Args:
        model: the language model.
        slots: the keys and values.
        steps: of the model.
        like_RV: logits of the model, for their size and dtype.
    """

    def __init__(self, model: nn.Module, slots: Slots, steps: RecordedSteps, like_RV: Tensor) -> None:
        # The steps outlive a generation, and must not keep the model alive.
        self.model, self.slots, self.steps, self.like_RV = weakref.ref(model), slots, steps, like_RV[:0]

    def __call__(self, tokens_R: Tensor, place: int) -> Tensor:
        slots = self.slots
        slots.at(place)
        logits_RV = slots.buffers.view("logits", (slots.shape.slots, self.like_RV.shape[1]), self.like_RV.dtype)
        slots.tokens_R.index_copy_(0, slots.slot_of_R, tokens_R)
        self.steps.replay(slots.shape, self._computation(slots.frozen(), logits_RV))()
        return logits_RV.index_select(0, slots.slot_of_R)

    def _computation(self, slots: Slots, logits_RV: Tensor) -> Computation:
        model = self.model

        def run() -> None:
            # Masks are made inside the graph, because they depend on the place.
            slots.bias = {}
            logits_RV.copy_(_forward(model(), slots, slots.tokens_R))

        return run


def _forward(model: nn.Module, cache: SharedCache, tokens_R: Tensor) -> Tensor:
    positions_R = cache.length_R + cache.step
    return model(input_ids=tokens_R[None], position_ids=positions_R[None], layout=cache, use_cache=False).logits[0]
