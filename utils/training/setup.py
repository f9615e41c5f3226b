"""What every stage opens with: its tokens, its model's identity, the plan of its steps."""

from __future__ import annotations

from collections.abc import Sequence

from utils.arguments.options import DataArguments, ModelArguments, TrainingArguments
from utils.engine import ranks
from utils.engine.deepspeed_engine import start
from utils.errors import UserError
from utils.model import loading
from utils.reporting import say
from utils.tokens.group import Group, Unit, sizes_of
from utils.tokens.store import DataPart, TokenStore, prepare
from utils.tokens.templates import Kind, Renderer, coloured
from utils.training.plan import Division, Plan
from utils.training.run import Run, cache_folder


def load_tokens(
    model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments, stage: int,
    kind: Kind, pairs_from_ratings: bool = False,
) -> tuple[Renderer, TokenStore, TokenStore]:  # fmt: skip
    """Return the data of a stage, from the cache or tokenised once per machine; show one example in colour, green what
    is trained. Runs before any collective.

    Args:
        model_args: names the tokenizer, the template and the cache.
        data_args: names the data sets, and how long a prompt and an answer may be.
        args: with --eval_every never nothing is held out; the training groups stand in for what is never read.
        stage: 1, 2 or 3: which share of --data_split.
        kind: what is taken of a record.
        pairs_from_ratings: whether ratings and ranks make pairs, too.

    Returns:
        The renderer, the training groups and the held-out groups.
    """
    tokenizer = loading.load_tokenizer(model_args.tokenizer_name_or_path or model_args.model_name_or_path)
    renderer = Renderer(tokenizer, model_args.template)
    wanted = ["train"] if args.eval_every == "never" else ["train", "eval"]
    cache_dir, stores = cache_folder(model_args), []
    for split in wanted:
        part = DataPart(split=split, stage=stage, kind=kind, seed=args.seed, pairs_from_ratings=pairs_from_ratings)
        stores.append(prepare(data_args, part, renderer, cache_dir))
    train, held_out = stores[0], stores[-1]
    say(coloured(tokenizer, train[0]))
    return renderer, train, held_out


def begin(
    run: Run, model_args: ModelArguments, args: TrainingArguments, train: TokenStore, **others: str | None
) -> str:
    """Join the other ranks and fix what this run is.

    Args:
        run: the run.
        model_args: names the starting model.
        args: how ranks and devices are used.
        train: the training groups.
        others: further models that it starts from, by their role.

    Returns:
        The hash of the starting model.
    """
    start(args)

    def fingerprint(name: str) -> str:
        return loading.fingerprint(name, model_args.cache_dir)

    model_hash = ranks.from_rank_0(lambda: fingerprint(model_args.model_name_or_path))
    hashes = ranks.from_rank_0(lambda: {role: fingerprint(name) for role, name in others.items() if name})
    run.begin(data=train.fingerprint, model=model_hash, **hashes)
    return model_hash


def make_plan(groups: Sequence[Group], args: TrainingArguments, unit: Unit) -> Plan:
    """Return the plan of a training set whose loss is averaged over this unit."""
    at_once = args.per_device_train_batch_size * ranks.world_size()
    accumulation = args.gradient_accumulation_steps or 1
    if args.global_batch_size is not None:
        accumulation, rest = divmod(args.global_batch_size, at_once)
        if rest or not accumulation:
            raise UserError(
                f"--global_batch_size {args.global_batch_size} is not a multiple of --per_device_train_batch_size "
                f"{args.per_device_train_batch_size} x {ranks.world_size()} ranks = {at_once}"
            )
    tokens, units = sizes_of(groups, unit)
    division = Division(
        per_step=accumulation * at_once,
        per_device=args.per_device_train_batch_size,
        token_budget=args.tokens_per_micro_batch,
        world=ranks.world_size(),
        seed=args.seed,
        unit=unit,
    )
    return Plan(groups, tokens, units, division, epochs=args.num_train_epochs, max_steps=args.max_steps)
