"""The parts of the GPU suite share: the device, models of several sizes with random weights, clocks, and the results.

A part is a sequence of cases. Each is recorded as it ends; cases that no longer fit into the part's time are left out,
and the results say which.
"""

from __future__ import annotations

import contextlib
import functools
import json
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch
from peer import word_tokenizer
from toys import ROOT
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from utils.errors import UserError
from utils.provenance import commit, versions
from utils.reporting import say, write_json

BUDGET = 450.0  # seconds of a part, which with the import of libraries stays below eight minutes
RESULTS = ROOT / "output" / "gpu" / "results.json"
# What a broken case may raise. It is recorded, and the next case runs.
FAILURES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, OSError, RuntimeError,
    subprocess.SubprocessError, TypeError, UserError, ValueError,
)  # fmt: skip


# ---- the device


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def on_gpu() -> bool:
    return device().type == "cuda"


def device_name() -> str:
    if not on_gpu():
        return "cpu"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return names[0] if len(names) == 1 else f"{len(names)} x {names[0]}"


def synchronize() -> None:
    if on_gpu():
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], Any]) -> float:
    """Wall-clock seconds of `work`, from an idle device to an idle device."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def reset_peak() -> None:
    if on_gpu():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    """The most memory taken, GiB: by tensors on the GPU since reset_peak(), or by this process on the CPU."""
    if on_gpu():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


# ---- models and data


@dataclass(frozen=True)
class Size:
    """The shape of a model and the work it is measured on: lengths in tokens, `groups` prompts a step."""

    name: str
    config: dict[str, Any]
    groups: int
    prompt: int
    answer: int
    steps: int
    lora: int = 0

    @property
    def vocabulary(self) -> int:
        return self.config["vocab_size"]


def _shape(layers: int, hidden: int, heads: tuple[int, int], inner: int, vocabulary: int, **more: Any):
    """`heads`: of queries, of keys and values."""
    return dict(
        model_type="llama", num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads[0],
        num_key_value_heads=heads[1], intermediate_size=inner, vocab_size=vocabulary, max_position_embeddings=8192,
        bos_token_id=None, eos_token_id=2, pad_token_id=1, **more,
    )  # fmt: skip


# The shapes are those of Qwen2.5-0.5B, Qwen2.5-1.5B and Llama-3-8B (their config.json), all in Llama's code (so without
# Qwen's biases): for a qwen2 folder transformers takes Qwen's own tokenizer, whatever the folder holds.
SIZES = {
    size.name: size
    for size in (
        Size("tiny", _shape(2, 64, (4, 2), 96, 512, tie_word_embeddings=True), 4, 24, 12, 4),
        Size("0.5b", _shape(24, 896, (14, 2), 4864, 151_936, tie_word_embeddings=True), 8, 512, 512, 12),
        Size("1.5b", _shape(28, 1536, (12, 2), 8960, 151_936, tie_word_embeddings=True), 8, 512, 512, 10),
        Size("8b-lora", _shape(32, 4096, (32, 8), 14_336, 128_256, rope_theta=500_000.0), 4, 512, 512, 8, 16),
    )
}


def sizes(chosen: str) -> list[Size]:
    """The sizes named in `chosen` (several are separated by commas; empty: all); the tiny one without a GPU."""
    names = chosen.split(",") if chosen else [name for name in SIZES if name != "tiny"]
    unknown = [name for name in names if name not in SIZES]
    if unknown:
        raise UserError(f"the size {unknown[0]!r} is unknown; known: {', '.join(SIZES)}")
    return [SIZES[name] for name in names] if on_gpu() else [SIZES["tiny"]]


def random_model(size: Size, dtype: torch.dtype = torch.bfloat16, reward: bool = False, seed: int = 0):
    """A model of this shape on the device, its weights drawn there (8 billion draws on a CPU take minutes)."""
    kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    settings = {**size.config, **({"num_labels": 1} if reward else {})}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(seed)
    with device():
        return kind.from_config(config, dtype=dtype)


def model_folder(size: Size, folder: Path, reward: bool = False) -> Path:
    """A folder with such a model and a tokenizer that maps "t17 t4" to ids; made unless it is there."""
    if not (folder / "config.json").is_file():
        model = random_model(size, reward=reward)
        word_tokenizer(size.vocabulary).save_pretrained(folder)
        model.save_pretrained(folder)
        del model
        reset_peak()
    return folder


# ---- times


def summary(seconds: Sequence[float], units: float, name: str) -> dict[str, float]:
    """`units` of work done in each of `seconds`: the median rate as `name`, with the slowest and the fastest."""
    rates = [units / s for s in seconds]
    return {name: statistics.median(rates), f"{name}_min": min(rates), f"{name}_max": max(rates)}


def in_turn(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side, one after the other in every round, so that a change of the clock meets all of them."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            found[name].append(seconds_of(work))
    return found


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times faster ours is, round by round."""
    found = [a / b for a, b in zip(theirs, ours, strict=True)]
    return {"ratio": statistics.median(found), "ratio_min": min(found), "ratio_max": max(found)}


# ---- parts and results


class OutOfTime(Exception):  # noqa: N818 - an end, no error
    """The part's time is used up."""


@dataclass
class Part:
    """Runs cases while time is left and keeps what they found in the results file, one entry for each part and size.
    `alarm`: interrupt a case that would outlast the part (not inside a test runner, which has an alarm of its own)."""

    name: str
    results: Path = RESULTS
    size: str = ""  # the size asked for; empty: all
    budget: float = BUDGET
    alarm: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = time.monotonic()

    @property
    def left(self) -> float:
        return self.budget - (time.monotonic() - self.started)

    @property
    def folder(self) -> Path:
        """Where this part keeps models and runs."""
        return self.results.parent

    def run(self, cases: Iterable[tuple[str, Callable[[], dict[str, Any]]]]) -> None:
        """Each case is a name and a function that returns what it measured, or raises because a check failed."""
        for name, case in cases:
            if self.left <= 0:
                self.left_out.append(name)
                continue
            start, row = time.perf_counter(), {"case": name, "ok": True}
            try:
                with self._alarm():
                    row |= case()
            except OutOfTime:
                self.left_out.append(name)
                continue
            except FAILURES as error:
                if isinstance(error, subprocess.TimeoutExpired) and self.left <= 5:  # it was given what was left
                    self.left_out.append(name)
                    continue
                row |= {"ok": False, "error": f"{type(error).__name__}: {str(error)[-2000:]}"}
            row["seconds"] = round(time.perf_counter() - start, 2)
            self.rows.append(row)
            say(f"{self.name}: {name}: " + ("passed  " if row["ok"] else "FAILED  ") + _short(row))
            self.save()
        self.save()
        for name in self.left_out:
            say(f"{self.name}: {name}: left out, the {self.budget:.0f} seconds of this part are used up")

    @property
    def passed(self) -> bool:
        return all(row["ok"] for row in self.rows)

    @contextlib.contextmanager
    def _alarm(self) -> Iterator[None]:
        if not self.alarm:
            yield
            return

        def ring(*_: Any) -> None:
            raise OutOfTime

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(self.left, 1.0))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def save(self) -> None:
        """Written beside and renamed; what other parts found stays, and so do this part's other sizes."""
        whole = read(self.results)
        name = f"{self.name} {self.size}".strip()
        whole.pop(name, None)  # the newest stands last
        whole[name] = {"facts": facts(), "cases": self.rows, "left_out": self.left_out}
        self.results.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.results, whole)


def read(results: Path) -> dict[str, Any]:
    return json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}


@functools.cache
def facts() -> dict[str, Any]:
    """What a number depends on besides the code measured."""
    found = {"device": device_name(), "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
    found["driver"] = _driver() if on_gpu() else None
    others = {}
    for name in ("trl", "vllm"):
        with contextlib.suppress(PackageNotFoundError):
            others[name] = version(name)
    when = time.strftime("%Y-%m-%d")
    return {**found, "versions": {**versions(), **others}, "commit": commit(), "date": when, "command": _command()}


def _driver() -> str | None:
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(done.stdout.split()), None)


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _short(row: dict[str, Any]) -> str:
    shown = {k: v for k, v in row.items() if k not in ("case", "ok")}
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())


def kill(process: subprocess.Popen) -> None:
    """SIGKILL for a process and all that it has started (torchrun gives its workers sessions of their own)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(process.pid)
        for one in (launcher, *launcher.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()


def run_quietly(words: Sequence[str], log: Path, timeout: float, **options: Any) -> None:
    """A program with its children; all of them end when it fails, when time is up, or when this process is stopped.
    Raises RuntimeError with the end of its output when it does not exit with 0."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, **options)
        try:
            code = process.wait(timeout)
        finally:
            kill(process)
    if code:
        raise RuntimeError(f"exit {code}: {log.read_text(encoding='utf-8', errors='replace')[-1800:]}")
