"""One decoding step as a function: tokens in, logits out. On CUDA it is a graph, captured once for each shape and kept.

The graphs of a model share one pool of memory and the buffers of utils/generation/slots.py, from one batch to the next
and, while these are small, from one call to the next. They are dropped when what they read has moved: weights (ZeRO-3
gathers them to other places each time), adapters switched on or off, buffers that grew.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from utils.generation.shared_attention import Cascade
from utils.generation.slots import Arena, Shape, Slots, why_not_slots
from utils.reporting import warn

MOST_GRAPHS = 64  # of a model: more shapes than that run without
KEPT_BYTES = 2**30  # buffers up to this size stay between calls; larger ones would be missed in training
WARM_UPS = 2  # a first call may allocate, or build a kernel: graphs cannot

Run = Callable[[], None]
Record = Callable[[Run], Run]  # a computation in place -> what repeats it
MakeRecord = Callable[[torch.device], Record]


class CannotRecord(RuntimeError):  # noqa: N818 - it is caught here and told as a reason
    """The computation waits for the device, so that no graph can hold it; the message says where."""


class CudaGraphs:
    """A Record: captures a computation, and repeats it by replaying the graph."""

    def __init__(self, device: torch.device) -> None:
        self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def __call__(self, run: Run) -> Run:
        with torch.cuda.device(self.stream.device):  # a program may never have chosen its rank's
            return self._captured(run)

    def _captured(self, run: Run) -> Run:
        self.stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self.stream):
                for _ in range(WARM_UPS - 1):  # writes its place several times over, with the same values
                    run()
                with _waiting_is_an_error():  # asked before: a capture that fails leaves the allocator in disorder
                    run()
        finally:
            torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads (NCCL's watchdog) may ask the device what they like meanwhile
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            run()
        return graph.replay


@contextlib.contextmanager
def _waiting_is_an_error() -> Iterator[None]:
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


class Kept:
    """What the generations of a model share: buffers, and the steps recorded in them. `make` makes a Record; the pool
    of graphs that are all gone cannot be used again, so dropping them makes another."""

    def __init__(self, make: MakeRecord, device: torch.device) -> None:
        self.make, self.arena, self.told = make, Arena(device), set()
        self.read, self.works = (), True
        self.drop()

    def drop(self) -> None:
        self.replays: dict[Shape, Run] = {}
        self.record, self.moved = self.make(self.arena.device), self.arena.moved

    def begin(self, model: nn.Module) -> None:
        """Drop steps that were recorded with other weights or adapters."""
        read = what_is_read(model)
        if read != self.read:
            self.read = read
            self.drop()

    def replay(self, shape: Shape, run: Run) -> Run:
        """What repeats the step of this shape; recorded when it is met first."""
        if self.arena.moved != self.moved:
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
        """Why a step is not recorded, once."""
        if reason not in self.told:
            self.told.add(reason)
            warn(f"generation: steps without CUDA graphs (slower, the same answers): {reason}")


_kept: weakref.WeakKeyDictionary[nn.Module, Kept] = weakref.WeakKeyDictionary()


def kept_for(model: nn.Module, lengths: Sequence[int], make: MakeRecord | None) -> Kept | None:
    """Buffers and steps for prompts of these lengths; None where steps are not recorded. `make`: by default graphs on
    CUDA, nothing elsewhere."""
    if make is None:
        if model.device.type != "cuda":
            return None
        make = CudaGraphs
    kept = _kept.get(model)
    if kept is None or kept.make is not make or kept.arena.device != model.device:
        kept = _kept[model] = Kept(make, model.device)
    reason = why_not_slots(lengths)
    if reason:
        kept.tell(reason)
        return None
    kept.begin(model)
    return kept


def release(model: nn.Module) -> None:
    """After a call: let go of buffers that are too large to keep."""
    kept = _kept.get(model)
    if kept is not None and kept.arena.bytes > KEPT_BYTES:
        del _kept[model]


def what_is_read(model: nn.Module) -> tuple:
    """What a recorded step reads besides its buffers: where each weight lies, and which adapters are on."""
    places = tuple((x.data_ptr(), x.dtype) for tensors in (model.parameters(), model.buffers()) for x in tensors)
    adapters = tuple(
        (module.disable_adapters, bool(getattr(module, "merged", False)), tuple(module.active_adapters))
        for module in model.modules()
        if isinstance(getattr(module, "disable_adapters", None), bool)
    )
    return places, adapters


class Eager:
    """advance(tokens [R], place) -> logits [R, V]: puts the tokens at `place` of their answers."""

    def __init__(self, model: nn.Module, cascade: Cascade) -> None:
        self.model, self.cascade = model, cascade

    def __call__(self, tokens_R: Tensor, place: int) -> Tensor:
        self.cascade.at(place, place + 1)
        return _forward(self.model, self.cascade, tokens_R)


class Recorded:
    """As Eager. Tokens go into slots, the step of the shape is repeated, logits come out of the slots."""

    def __init__(self, model: nn.Module, slots: Slots, kept: Kept, like_RV: Tensor) -> None:
        """like_RV: logits of the model, for their size and dtype."""
        self.model, self.slots, self.kept, self.like_RV = weakref.ref(model), slots, kept, like_RV[:0]

    def __call__(self, tokens_R: Tensor, place: int) -> Tensor:
        slots = self.slots
        slots.at(place)
        logits_RV = slots.arena.view("logits", (slots.shape.slots, self.like_RV.shape[1]), self.like_RV.dtype)
        slots.tokens_R.index_copy_(0, slots.slot_of_R, tokens_R)
        self.kept.replay(slots.shape, self._run(slots.frozen(), logits_RV))()
        return logits_RV.index_select(0, slots.slot_of_R)

    def _run(self, slots: Slots, logits_RV: Tensor) -> Run:
        model = self.model

        def run() -> None:
            slots.bias = {}  # masks are made inside the graph, from the place
            logits_RV.copy_(_forward(model(), slots, slots.tokens_R))

        return run


def _forward(model: nn.Module, cascade: Cascade, tokens_R: Tensor) -> Tensor:
    positions_R = cascade.length_R + cascade.step
    return model(input_ids=tokens_R[None], position_ids=positions_R[None], layout=cascade, use_cache=False).logits[0]
