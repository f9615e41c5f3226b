"""Generation against transformers' `model.generate`: same model, dtype, threads and sampling, in turn, medians.

    PYTHONPATH=. python tests/benchmarks/generation_vs_hf.py [--threads 1] [--repeats 3]

Before anything is timed, the log-probs of both back ends are compared. On CUDA the peer is also `generate_batch`.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from utils.arguments import parse
from utils.arguments.options import option
from utils.generation import hf, shared
from utils.generation.generate import generating
from utils.generation.request import GenerationRequest
from utils.generation.sampling import Sampling
from utils.tokens.templates import Renderer

VOCABULARY, NEW = 8192, 32
CASES = {"64 answers, prompt of 256": ([256], 64), "64 answers, prompt of 768": ([768], 64),
         "32 prompts of 40 to 390": ([40 + 11 * i + 9 * (i % 2) for i in range(32)], 1)}  # fmt: skip


@dataclass
class Options:
    threads: int = option(1, help="of torch")
    repeats: int = option(3, help="measurements of each side")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([Options], argv, description=__doc__)
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, "w3")), eos_token="</s>", pad_token="<pad>"
    )
    renderer = Renderer(tokenizer, "plain")
    config = AutoConfig.for_model(
        "llama", vocab_size=VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    print(f"Llama of 7.2 million weights, {NEW} new tokens, {args.threads} thread(s), {device.type}")
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval().to(device, dtype)
        for name, (lengths, copies) in CASES.items():
            prompts = [torch.randint(5, VOCABULARY, (n,)).tolist() for n in lengths]
            how = Sampling(NEW, min_new_tokens=NEW, num_samples=copies, seed=1)
            request = GenerationRequest(renderer, prompts, how, range(len(prompts)))
            with generating(model):
                _report(name, dtype, model, request, args.repeats)


def _report(name, dtype, model, request, repeats) -> None:
    """Equal first, then in turn."""
    gap = 0.0
    answers = [[c for several in backend.complete(model, request) for c in several] for backend in (shared, hf)]
    for mine, theirs in zip(*answers, strict=True):
        for a, b, p, q in zip(mine.tokens, theirs.tokens, mine.logprobs, theirs.logprobs, strict=True):
            if a != b:
                break  # in bfloat16 a number may fall on the other side of a boundary: then the answers are others
            gap = max(gap, abs(p - q))
    assert gap <= (1e-4 if dtype == torch.float32 else 0.1), gap
    seconds = {shared: [], hf: []}
    for _ in range(repeats):
        for backend, found in seconds.items():
            start = time.perf_counter()
            backend.complete(model, request)
            found.append(time.perf_counter() - start)
    tokens = len(request.prompts) * request.copies * NEW
    mine, theirs = (statistics.median(seconds[backend]) for backend in (shared, hf))
    print(f"{str(dtype)[6:]:9} {name:26} hf {tokens / theirs:7.0f} tokens/s, shared {tokens / mine:7.0f}: "
          f"{theirs / mine:5.1f} times (log-probs differ by {gap:.0e})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
