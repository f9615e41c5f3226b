"""The first two chapters that every stage opens with: its tokens, its model's identity."""

from __future__ import annotations

from typing import Literal

from utils.arguments.options import DataArguments, ModelArguments, TrainingArguments
from utils.engine import ranks
from utils.engine.deepspeed_engine import start
from utils.model import loading
from utils.reporting import say
from utils.tokens.store import DataPart, TokenStore, prepare
from utils.tokens.templates import Renderer, coloured
from utils.training.run import Run, cache_folder


def load_tokens(
    model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments, stage: int,
    kind: Literal["demonstrations", "comparisons", "prompts"],
) -> tuple[Renderer, TokenStore, TokenStore]:  # fmt: skip
    """(renderer, training groups, held-out groups), from the cache or tokenised once per machine; shows one example in
    colour, green what is trained. Runs before any collective. With --eval_every never nothing is held out, and the
    training groups stand in for what is never read."""
    tokenizer = loading.load_tokenizer(model_args.tokenizer_name_or_path or model_args.model_name_or_path)
    renderer = Renderer(tokenizer, model_args.template)
    wanted = ["train"] if args.eval_every == "never" else ["train", "eval"]
    cache_dir, stores = cache_folder(model_args), []
    for split in wanted:
        part = DataPart(split=split, stage=stage, kind=kind, seed=args.seed)
        stores.append(prepare(data_args, part, renderer, cache_dir))
    train, held_out = stores[0], stores[-1]
    say(coloured(tokenizer, train[0]))
    return renderer, train, held_out


def begin(
    run: Run, model_args: ModelArguments, args: TrainingArguments, train: TokenStore, **others: str | None
) -> str:
    """Join the other ranks and fix what this run is; returns the hash of the starting model. `others` are further
    models that it starts from, by their role."""
    start(args)
    model_hash = ranks.from_rank_0(lambda: loading.fingerprint(model_args.model_name_or_path))
    hashes = ranks.from_rank_0(lambda: {role: loading.fingerprint(name) for role, name in others.items() if name})
    run.begin(data=train.fingerprint, model=model_hash, **hashes)
    return model_hash
