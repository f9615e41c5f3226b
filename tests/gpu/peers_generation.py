"""Generation against `model.generate`, `model.generate_batch` (continuous batching) and, where installed, vLLM: the
same model in bfloat16, the same prompts, the same number of tokens, in turn in one process.

The log-probs of our answers are compared with those of a forward pass first. With random weights hardly an answer ends
early; tokens are counted as drawn. Which tokens is each side's own choice, `model.generate` apart, which draws ours.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gpu.common import (
    SIZES,
    Part,
    Size,
    device,
    in_turn,
    model_folder,
    on_gpu,
    random_model,
    ratios,
    sizes,
    summary,
)
from peer import word_tokenizer
from transformers import GenerationConfig

from utils.generation.generate import generate
from utils.generation.request import GenerationRequest
from utils.generation.sampling import Sampling
from utils.model.batch import collate
from utils.model.scoring import Policy
from utils.tokens.group import group
from utils.tokens.templates import Renderer

ROUNDS = 3 if on_gpu() else 1
SAME = 0.1  # bfloat16 rounds logits of size 10 by 0.04
VLLM_MEMORY = 0.4  # of the GPU: our model stays beside vLLM's


@dataclass(frozen=True)
class Work:
    name: str
    lengths: tuple[int, ...]
    copies: int
    new: int

    @property
    def tokens(self) -> int:
        return len(self.lengths) * self.copies * self.new


def works(size: Size) -> list[Work]:
    if size is SIZES["tiny"]:
        return [Work("8 answers to a prompt", (24,), 8, 12), Work("4 prompts, an answer each", (9, 30, 17, 24), 1, 12)]
    mixed = tuple(40 + 11 * i for i in range(64))
    return [Work("64 answers to a prompt of 512", (512,), 64, 256), Work("64 prompts of 40 to 733", mixed, 1, 256)]


class Sides:
    """Every way of doing a piece of work. Those that cannot run here are absent, with the reason in `absent`."""

    def __init__(self, size: Size, part: Part) -> None:
        self.size, self.absent = size, {}
        self.renderer = Renderer(word_tokenizer(size.vocabulary), "plain")
        self.model = random_model(size).eval()
        self.folder: Path = part.folder / "speed" / f"model-{size.name}"
        self.engine = None  # vLLM's
        if not on_gpu():
            self.absent["vllm"] = "no GPU"
        elif importlib.util.find_spec("vllm") is None:
            self.absent["vllm"] = "not installed"

    def of(self, work: Work) -> dict[str, Callable[[], int]]:
        """Functions that do the work and return how many tokens were drawn."""
        draw = np.random.default_rng(0)
        prompts = [draw.integers(5, self.size.vocabulary, n).tolist() for n in work.lengths]
        sides = {
            "ours": lambda: self.drawn(prompts, work, "shared"),
            "generate": lambda: self.drawn(prompts, work, "hf"),
            "generate_batch": lambda: self.continuous(prompts, work),
        }
        if "vllm" not in self.absent:
            sides["vllm"] = lambda: self.vllm(prompts, work)
        return {name: side for name, side in sides.items() if name not in self.absent}

    def answers(self, prompts, work: Work, backend: str):
        how = Sampling(work.new, num_samples=work.copies, seed=1)
        return generate(self.model, GenerationRequest(self.renderer, prompts, how), len(prompts), backend=backend)

    def drawn(self, prompts, work: Work, backend: str) -> int:
        return sum(len(c.tokens) for several in self.answers(prompts, work, backend) for c in several)

    def continuous(self, prompts, work: Work) -> int:
        config = GenerationConfig(
            max_new_tokens=work.new, do_sample=True, num_return_sequences=work.copies, eos_token_id=-1, top_k=0,
            pad_token_id=self.renderer.tokenizer.pad_token_id,
        )  # fmt: skip
        with torch.no_grad():
            found = self.model.generate_batch(inputs=prompts, generation_config=config)
        return sum(len(output.generated_tokens) for output in found.values())

    def vllm(self, prompts, work: Work) -> int:
        from vllm import LLM, SamplingParams

        if self.engine is None:
            model_folder(self.size, self.folder)
            self.engine = LLM(model=str(self.folder), dtype="bfloat16", gpu_memory_utilization=VLLM_MEMORY)
        how = SamplingParams(n=work.copies, temperature=1.0, max_tokens=work.new, ignore_eos=True, seed=1)
        found = self.engine.generate([{"prompt_token_ids": p} for p in prompts], how, use_tqdm=False)
        return sum(len(answer.token_ids) for output in found for answer in output.outputs)

    def gap(self, work: Work) -> float:
        """Mean difference between our noted log-probs and those of a padded forward pass over the same answers."""
        draw = np.random.default_rng(0)
        prompts = [draw.integers(5, self.size.vocabulary, n).tolist() for n in work.lengths[:4]]
        found = self.answers(prompts, Work("", work.lengths[:4], min(work.copies, 8), work.new), "shared")
        groups = [group(p, [c.tokens for c in several]) for p, several in zip(prompts, found, strict=True)]
        with torch.no_grad():
            right = Policy(self.model)(collate(groups, packed=False).to(device())).cpu().numpy()
        return float(np.abs(np.concatenate([c.logprobs for several in found for c in several]) - right).mean())


def compare(sides: Sides, work: Work) -> dict[str, float]:
    gap = sides.gap(work)
    assert gap <= SAME, f"log-probs differ from those of a forward pass by {gap:.2g} on average"
    chosen, drawn = sides.of(work), {}
    for name, side in list(chosen.items()):  # warm up; a peer that cannot do this here is left out, and said so
        try:
            drawn[name] = side()
        except (RuntimeError, ValueError, TypeError, NotImplementedError, ImportError, AttributeError) as error:
            if name in ("ours", "generate"):
                raise
            sides.absent[name] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:200]
            del chosen[name]
            continue
        assert work.tokens / 2 < drawn[name] <= work.tokens, f"{name} drew {drawn[name]} of {work.tokens} tokens"
    # of a token: the sides may have drawn a few more or less
    seconds = {name: [s / drawn[name] for s in found] for name, found in in_turn(chosen, ROUNDS).items()}
    found: dict[str, object] = {"size": sides.size.name, "gap": gap, "unit": "tokens/s", "absent": dict(sides.absent)}
    found |= summary(seconds["ours"], 1, "ours")
    for name in chosen:
        if name != "ours":
            found |= {f"{name}_{k}": v for k, v in ratios(seconds[name], seconds["ours"]).items()}
            found |= summary(seconds[name], 1, name)
    return found


def cases(part: Part) -> Iterator[tuple[str, Callable]]:
    for size in sizes(part.size):
        sides: list[Sides] = []  # made inside the first case of this size, and let go with the last

        def one(work: Work, size: Size = size, sides: list[Sides] = sides) -> dict[str, float]:
            if not sides:
                sides.append(Sides(size, part))
            return compare(sides[0], work)

        for work in works(size):
            yield f"{size.name}, {work.name}", lambda work=work, one=one: one(work)


def main(part: Part) -> None:
    part.run(cases(part))
