"""Where rewards come from: a reward model's folder, a Python function, an HTTP service. All give one number an answer.

reward(judged) -> [[score of each answer], ...]      judged: list of Judged, one for each prompt
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import math
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import nn

from utils import raw_datasets
from utils.arguments.options import DataArguments
from utils.engine import ranks
from utils.errors import UserError
from utils.model.measure import measure
from utils.records import Answer, Record
from utils.tokens.group import Group
from utils.tokens.store import TokenStore

TIMEOUT = 120.0  # seconds for an answer of the service; it is asked TRIES times
TRIES = 3


@dataclasses.dataclass(frozen=True)
class Judged:
    """A prompt with its answers, as tokens and (for functions and services) as text."""

    group: Group
    record: Record | None


Reward = Callable[[Sequence[Judged]], list[list[float]]]


@contextlib.contextmanager
def at_hand(model: Any) -> Iterator[None]:
    """Context in which a model that waits in CPU memory is on the device."""
    waits = isinstance(model, nn.Module) and not hasattr(model, "optimizer") and ranks.device().type != "cpu"
    waits = waits and next(model.parameters()).device.type == "cpu"
    if waits:
        model.to(ranks.device())
    try:
        yield
    finally:
        if waits:
            model.to("cpu")


def of_model(model: Any, packed: bool, limits: dict[str, int]) -> Reward:
    """Return the reward that a model gives.

    Args:
        model: a reward model, called with a Batch.
        packed: whether it reads packed rows.
        limits: the most groups and tokens of a forward pass, as measure() takes them.

    Returns:
        The reward; calling it is a collective under ZeRO-3.
    """

    def scores(judged: Sequence[Judged]) -> list[list[float]]:
        with at_hand(model):
            found = measure(model, [j.group for j in judged], packed=packed, per_answer=True, **limits)
        return [values.tolist() for values in found]

    return scores


def of_function(name: str) -> Reward:
    """Return the reward of module:function or FILE.py:function, which takes a Record and returns a number for each of
    its answers."""
    function = _function(name)

    def score(judged: Judged) -> list[float]:
        with _ErrorsOf(name, f" for {judged.record.where or judged.record.id}"):
            return _checked(function(judged.record), judged, name)

    return lambda judged: list(map(score, judged))


class _ErrorsOf:
    """Context in which an error of the user's function becomes one line: what it is, where it was raised, the row."""

    def __init__(self, name: str, row: str = "") -> None:
        self._name, self._row = name, row

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None or not issubclass(kind, Exception) or issubclass(kind, UserError):
            return
        place = traceback.extract_tb(trace)[-1]
        raise UserError(
            f"{self._name} raised {kind.__name__}: {error}{self._row} ({place.filename}:{place.lineno})"
        ) from error


def _function(name: str) -> Callable[[Record], Sequence[float]]:
    place, colon, attribute = name.rpartition(":")
    if not colon:
        raise UserError(f"{name!r}: expected module:function or FILE.py:function")
    with _ErrorsOf(name):
        try:
            if place.endswith(".py"):
                spec = importlib.util.spec_from_file_location(Path(place).stem, place)
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
            else:
                module = importlib.import_module(place)
        except (ImportError, OSError, SyntaxError) as error:
            raise UserError(f"{name}: {place} cannot be imported: {error}") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise UserError(f"{name}: {place} has no function {attribute!r}")
    return found


def of_service(url: str) -> Reward:
    """Return the reward of an HTTP service, which is sent every record of a rollout in one POST."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--reward_url {url}: expected http:// or https://")

    def scores(judged: Sequence[Judged]) -> list[list[float]]:
        if not judged:
            return []
        body = json.dumps({"records": [j.record.to_json() for j in judged]}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        found = _post(request, url)
        if not isinstance(found, list) or len(found) != len(judged):
            raise UserError(f'{url}: expected {{"scores": [...]}} with {len(judged)} lists; found {str(found)[:80]}')
        return [_checked(values, j, url) for values, j in zip(found, judged, strict=True)]

    return scores


def _post(request: urllib.request.Request, url: str) -> Any:
    local = request.host.split(":")[0] in ("127.0.0.1", "localhost")
    # Past the proxy that the environment may name: it cannot reach the services of this machine.
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
    for attempt in range(1, TRIES + 1):
        try:
            with opener.open(request, timeout=TIMEOUT) as reply:
                return json.loads(reply.read()).get("scores")
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if attempt == TRIES:
                raise UserError(f"{url}: the reward service does not answer: {error}") from error
        except (ValueError, AttributeError) as error:
            raise UserError(f"{url}: its answer is no JSON object: {error}") from error


def _checked(values: Sequence[float], judged: Judged, name: str) -> list[float]:
    wanted = len(judged.group.answers)
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise UserError(f"{name}: found {str(values)[:80]!r} for a record; expected {wanted} numbers") from None
    if len(numbers) != wanted or not all(map(math.isfinite, numbers)):
        raise UserError(f"{name}: found {numbers} for a record of {wanted} answers; expected {wanted} finite numbers")
    return numbers


class PromptSet:
    """The prompts of a split: as tokens in `store`, and as text for rewards that read text, which is read from the data
    once, when it is first asked for.

    Args:
        data: the data sets that the store was made of.
        split: which of their splits.
        seed: of their mixture.
        store: the prompts as tokens.
    """

    def __init__(self, data: DataArguments, split: Literal["train", "eval"], seed: int, store: TokenStore) -> None:
        self.store = store
        self._data, self._split, self._seed = data, split, seed

    def __len__(self) -> int:
        return len(self.store)

    @cached_property
    def _records(self) -> list[Record]:
        """Of the store's prompts, in its order."""
        mixture = iter(raw_datasets.open_mixture(self._data, self._split, 3, self._seed))
        # the store left some records out and kept the order of the others; files may give an id to other prompts
        return [next(record for record in mixture if record.id == name) for name in self.store.record_ids]

    def record(self, row: int, texts: Sequence[str], finished: Sequence[bool]) -> Record:
        """Return prompt `row` with these answers."""
        answers = tuple(Answer(t, finished=f) for t, f in zip(texts, finished, strict=True))
        return dataclasses.replace(self._records[row], answers=answers, verdicts=())
