"""Jobs over the rows of a file: one output row for each, computed in batches, by any number of processes, resumable."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.answering.inference_model import InferenceModel, require_model_name, signature
from utils.answering.output import Shards
from utils.answering.rows import AnswerRow, content_hash
from utils.arguments.inference import AnswerArguments, DrawArguments, FileArguments, ReaderArguments
from utils.engine import ranks
from utils.errors import UserError
from utils.generation.generate import check_positions
from utils.generation.sampling import Sampling
from utils.model import loading
from utils.model.reward_model import require_reward_model
from utils.records import Answer, Record
from utils.reporting import say

HUMAN = "\n\nHuman:"


@dataclass(frozen=True)
class RowJob:
    """What is done with the rows of a file.

    Args:
        work: given the numbers of some rows, returns an output row (a JSON value) for each.
        sizes: of every row in tokens: rows of like size share a batch.
    """

    work: Callable[[Sequence[int]], list[Any]]
    sizes: Sequence[int]


def run_job(
    rows: Sequence[AnswerRow], args: FileArguments, output: Path, facts: dict[str, Any], load: Callable[[], RowJob]
) -> Shards:
    """Compute one output row for every row and write them in order. A collective.

    Args:
        rows: the input.
        args: the batch size, and whether to overwrite.
        output: the file to write.
        facts: what decides the content of the output, by name: the same facts continue a run that was stopped.
        load: loads the models that the job takes; it is not called when the output is finished.

    Returns:
        The output.

    Raises:
        UserError: the output exists and was made with other facts.
    """
    shards = Shards(output, {**facts, "data": content_hash(rows)}, total=len(rows), overwrite=args.overwrite)
    if not shards.finished:
        job = load()
        # Rows of like size together, so that little is padded; the longest first, so that a lack of memory shows early.
        order = sorted(range(len(rows)), key=lambda number: (-job.sizes[number], number))
        starts = range(0, len(order), args.batch_size)
        shards.fill([order[start : start + args.batch_size] for start in starts], job.work, facts["what"])
        say(f"written to {output}")
    return shards


def model_facts(args: ReaderArguments) -> dict[str, Any]:
    """Return the facts that name the model by its content, and how it reads a prompt. A collective."""
    name = require_model_name(args)
    facts = {
        "model": str(Path(name).resolve()) if Path(name).is_dir() else name,
        "weights": ranks.from_rank_0(lambda: loading.fingerprint(name)),
    }
    if args.tokenizer_name_or_path:
        facts["tokenizer"] = args.tokenizer_name_or_path
    if args.config_name_or_path:
        facts["config"] = args.config_name_or_path
    return {**facts, "template": args.template, "bf16": args.bf16}


def sampling_of(
    args: AnswerArguments, temperature: float, num_samples: int = 1, draw: DrawArguments | None = None
) -> Sampling:
    """Return the settings of drawing that the options of a program give.

    Args:
        args: the lengths and penalties.
        temperature: 0 takes the likeliest token.
        num_samples: answers to each prompt.
        draw: top-p, top-k and the seed; None: those of Sampling.
    """
    more: dict[str, Any] = {}
    if draw is not None:
        more.update(top_p=draw.top_p, top_k=draw.top_k, seed=draw.seed)
    if args.additional_human_stopword:
        more["stop_strings"] = (HUMAN,)
    return Sampling(
        max_new_tokens=args.max_new_tokens, min_new_tokens=args.min_new_tokens, num_samples=num_samples,
        temperature=temperature, repetition_penalty=args.repetition_penalty,
        no_repeat_ngram_size=args.no_repeat_ngram_size, **more,
    )  # fmt: skip


def generation_job(
    model: InferenceModel,
    rows: Sequence[AnswerRow],
    samplings: Sequence[Sampling],
    max_prompt_seq_len: int,
    finish: Callable[[AnswerRow, list[Answer]], Any],
    only: Sequence[int] | None = None,
) -> RowJob:
    """Return the job that answers rows.

    Args:
        model: the language model.
        rows: the input.
        samplings: the settings of drawing, one or several.
        max_prompt_seq_len: longest prompt in tokens; longer ones lose their start.
        finish: makes an output row of a row and its new answers.
        only: the numbers of the rows to answer; None: all. The size of the others is 0.

    Raises:
        UserError: a prompt and its answer exceed the model's positions.
    """
    # All prompts are prepared before the first answer, so that one that is too long ends the run at once.
    sizes, prompts = [0] * len(rows), {}
    for number in range(len(rows)) if only is None else only:
        prompts[number] = model.prompt(rows[number].record, max_prompt_seq_len)
        sizes[number] = len(prompts[number])
    for line in model.tally.lines():
        say(line, style="yellow")
    check_positions(model.model, max(sizes, default=0), samplings[0].max_new_tokens)

    def work(batch: Sequence[int]) -> list[Any]:
        found = model.answers([prompts[number] for number in batch], batch, samplings)
        return [finish(rows[number], answers) for number, answers in zip(batch, found, strict=True)]

    return RowJob(work, sizes)


@dataclass(frozen=True)
class Scoring:
    """A way to score answers.

    Args:
        name: of the scores, among those of an answer.
        facts: what decides them, by name.
        load: loads the models that it takes, and returns a function from records to the scores of each one's answers.
    """

    name: str
    facts: dict[str, Any]
    load: Callable[[], Callable[[Sequence[Record]], list[list[float]]]]


def reward_scoring(args: Any) -> Scoring:
    """Return the scores of the reward model that the options name; a collective. `args` as of score_rows()."""

    def load():
        model = InferenceModel(args, reward=True)
        return lambda records: model.scores(records, args.max_seq_len, budget=args.tokens_per_batch)

    facts = model_facts(args)
    require_reward_model(args.model_name_or_path)
    return Scoring(signature(args.model_name_or_path), {"max_seq_len": args.max_seq_len, **facts}, load)


def score_rows(
    rows: Sequence[AnswerRow],
    args: Any,
    output: Path,
    finish: Callable[[AnswerRow, list[float], str], Any] = AnswerRow.with_scores,
    scoring: Scoring | None = None,
) -> Shards:
    """Score every answer of every row, and write them. A collective.

    Args:
        rows: prompts with answers.
        args: the options of the program, a ReaderArguments that names the reward model, LengthArguments, FileArguments.
        output: the file to write.
        finish: makes an output row of a row, the scores of its answers and the name that signs them.
        scoring: where the scores come from; None: the reward model.

    Returns:
        The output.

    Raises:
        UserError: a row has no answer, a score is no finite number, or the model is no reward model.
    """
    for row in rows:
        if not row.record.answers:
            raise UserError(
                f"{row.record.where}: no answer to score; expected what chatbot.py --mode generate writes, or records: "
                "data_collect/convert.py --to records makes them of pairs and other data"
            )
    scoring = scoring or reward_scoring(args)

    def load() -> RowJob:
        scores_of = scoring.load()

        def work(batch: Sequence[int]) -> list[Any]:
            records, finished = [rows[number].record for number in batch], []
            for number, scores in zip(batch, scores_of(records), strict=True):
                for place, score in enumerate(scores, start=1):
                    if not math.isfinite(score):
                        at = f"{rows[number].record.where}: answer {place}"
                        raise UserError(f"{at} gets the score {score} of {scoring.name}; expected a finite number")
                finished.append(finish(rows[number], scores, scoring.name))
            return finished

        # In the order of the file, because the tokens of a row are known only when it is scored.
        return RowJob(work, [0] * len(rows))

    return run_job(rows, args, output, facts={"what": "scoring", **scoring.facts}, load=load)


def sample_rows(rows: Sequence[AnswerRow], args: Any, sampling: Sampling, output: Path, with_given: bool) -> None:
    """Write every prompt with new answers as a record. A collective.

    Args:
        rows: the prompts.
        args: the options of the program, a ReaderArguments that names the policy, AnswerArguments, FileArguments.
        sampling: the settings of drawing.
        output: the file to write.
        with_given: whether the answers that a row has are kept before the new ones.
    """

    def finish(row: AnswerRow, answers: list[Answer]) -> dict[str, Any]:
        given = row.record.answers if with_given else ()
        return dataclasses.replace(row.record, answers=(*given, *answers), verdicts=()).to_json()

    def load() -> RowJob:
        longest = args.max_prompt_seq_len
        return generation_job(InferenceModel(args), rows, [sampling], max_prompt_seq_len=longest, finish=finish)

    facts = {"what": "sampling", **dataclasses.asdict(sampling), "max_prompt_seq_len": args.max_prompt_seq_len}
    facts |= {"with_given": with_given, "generator": args.generator, **model_facts(args)}
    run_job(rows, args, output, facts=facts, load=load)
