"""Best-of-n: sample n answers to every prompt, or take given ones, score them, and keep the best.

    python inference/rerank.py --policy_name_or_path output/tutor/sft --data_path prompts.jsonl \\
        --reward_model_name_or_path output/tutor/reward --n 64
    python inference/rerank.py --data_path answers.jsonl --reward_model_name_or_path output/tutor/reward --n 1,4,16

A reward model scores, an implicit reward, perplexity, a judge or a function; answers that `chatbot.py --mode rm` scored
need none. Reads every data-set class. Writes a file for each value of n, records with one answer each (--output_path
x.json: generations), the samples and all scores, and the curve over n with 95 % intervals. The same command continues.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils import formats
from utils.answering.best_of_n import curve, expect_answers, kl_bound, only_scorer, repeated, scores_of, write_best
from utils.answering.files import claim_outputs, claim_shards, input_files, open_files, output_file
from utils.answering.jobs import Scoring, reward_scoring, sample_rows, sampling_of, score_rows
from utils.answering.output import join_ranks
from utils.answering.rows import AnswerRow, read_rows
from utils.answering.scorings import implicit_scoring, perplexity_scoring, rated
from utils.arguments import parse
from utils.arguments.best_of_n import RerankArguments
from utils.engine import ranks
from utils.errors import UserError
from utils.feedback.options import RequestLimits
from utils.ppo.rewards import Judged, of_function
from utils.raw_datasets.instructions import only_message
from utils.raw_datasets.spec import Spec
from utils.records import Record
from utils.records.files import write_jsonl
from utils.report.best_of_n import curve_page
from utils.reporting import run_program, say, warn, write_json, write_text
from utils.statistics import cluster_bootstrap, mean_interval
from utils.tokens.group import group
from utils.world.truth import utilities

PROGRAM, SEED = "rerank.py", 1234


def main(argv: list[str] | None = None) -> None:
    args, limits = parse([RerankArguments, RequestLimits], argv, __doc__)
    if limits != RequestLimits() and args.score_by != "judge":
        raise UserError("limits of asking are for --judge; leave them out")
    join_ranks()
    # Records are the program's own form on the way: they hold scores.
    as_generations = args.output_path.endswith(".json")
    if as_generations:
        args.output_path += "l"

    def written(output: Path) -> list[Path]:
        return [*best_files(output, args, as_generations).values(), *curve_files(output)]

    rows, output = open_files(args, "best", PROGRAM, written=written)
    if args.policy_name_or_path:
        rows = without(args.leave_out, rows)
    else:
        for record in chosen_from(rows, args):
            expect_answers(record, max(args.counts, default=1))
    if as_generations:
        for row in rows:
            only_message(row.record)
    data, scoring = args.data_path, None
    if args.score_by in SCORINGS:
        # Before the answers are sampled, which may take hours: a name may be wrong.
        scoring = SCORINGS[args.score_by](args)
    if args.policy_name_or_path:
        samples = output.with_name(f"{output.stem}-samples.jsonl")
        rows, data = sample(rows, args, samples, as_generations), [str(samples)]
    records, scorer = scored(rows, args, scoring or limits, data)
    if records is not None and ranks.rank() == 0:
        write(records, scorer, args, best_files(output, args, as_generations), curve_files(output))


def best_files(output: Path, args: RerankArguments, as_generations: bool) -> dict[int, Path]:
    """Return the file of each n; under 0 where n is all that every prompt has."""
    suffix = ".json" if as_generations else output.suffix
    counts = args.counts or [0]
    if len(counts) == 1 and args.output_path:
        return {counts[0]: output.with_suffix(suffix)}
    return {n: output.with_name(f"{output.stem}-of-{n or 'all'}{suffix}") for n in counts}


def curve_files(output: Path) -> list[Path]:
    return [output.with_name(f"{output.stem}-curve{suffix}") for suffix in (".json", ".html")]


def sample(rows: list[AnswerRow], args: RerankArguments, samples: Path, as_generations: bool) -> list[AnswerRow]:
    """Sample the answers to every prompt into a file of records. A collective.

    Args:
        rows: the prompts.
        args: the options.
        samples: the file to write.
        as_generations: whether they are also written as generations-n, in a .json file beside it.

    Returns:
        The rows of the file.
    """
    policy = copy.copy(args)
    policy.model_name_or_path = args.policy_name_or_path
    # Those options are of the model that scores.
    policy.tokenizer_name_or_path = policy.config_name_or_path = None
    claim_shards(args, PROGRAM, output=samples, sources=input_files(args.data_path, samples))
    listed = samples.with_suffix(".json")
    if as_generations:
        claim_outputs(args, PROGRAM, outputs=[listed], sources=[])
    sampling = sampling_of(args, args.temperature, args.counts[-1], draw=args)
    sample_rows(rows, policy, sampling, samples, with_given=args.with_references)
    found = read_rows([Spec(str(samples))])
    if as_generations and ranks.rank() == 0:
        formats.write("generations-n", listed, [row.candidates() for row in found])
    return found


def scored(
    rows: list[AnswerRow], args: RerankArguments, how: Scoring | RequestLimits, data: Sequence[str]
) -> tuple[list[Record] | None, str]:
    """Score the answers, and write all scores beside them. A collective.

    Args:
        rows: prompts with answers.
        args: the options.
        how: the scores, or the limits of asking a judge.
        data: the files that the rows are from.

    Returns:
        The records with scores, None after --dry_run, and the name of the scores to go by.
    """
    way = args.score_by
    if way is None:
        records = chosen_from(rows, args)
        return records, args.scorer or only_scorer(records)
    # The rewards are what `chatbot.py --mode rm` writes, so that either program continues the other's.
    ending, owner = (way, PROGRAM) if way != "reward" else ("rm", "chatbot.py")
    kept = output_file("", data, ending)
    claim_shards(args, owner, output=kept, sources=input_files(data, kept))
    if isinstance(how, RequestLimits):
        if ranks.world_size() > 1:
            raise UserError(f"--judge asks from one process; {ranks.world_size()} were started")
        candidates = chosen_from(rows, args)
        records = rated(candidates, args, how, Path(args.ledger or f"{kept}.ledger"))
        if records:
            write_jsonl(kept, records)
        return records, args.judge
    score_rows(rows, args, kept, scoring=how)
    found = read_rows([Spec(str(kept))], verbatim=args.template == "plain")
    return chosen_from(found, args), how.name if found[0].plain is None else "score"


def function_scoring(args: RerankArguments) -> Scoring:
    """Return the scores of --reward_fn."""
    function, facts = of_function(args.reward_fn), {"function": args.reward_fn}
    file = Path(args.reward_fn.rpartition(":")[0])
    if file.suffix == ".py":
        # A function that was changed scores anew.
        facts["source"] = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()

    def scores(records: Sequence[Record]) -> list[list[float]]:
        judged = [Judged(group([0], [[0]] * len(record.answers)), record) for record in records]
        return function(judged)

    return Scoring(args.reward_fn, facts, lambda: scores)


SCORINGS = {
    "reward": reward_scoring,
    "implicit": implicit_scoring,
    "perplexity": perplexity_scoring,
    "function": function_scoring,
}


def without(left_out: Sequence[str], rows: Sequence[AnswerRow]) -> list[AnswerRow]:
    """Return the rows of other data sets than these. Raises UserError when none is left."""
    kept = [row for row in rows if row.record.meta.get("dataset") not in left_out]
    if not kept:
        raise UserError(f"--leave_out {' '.join(left_out)} leaves out every row")
    return kept


def chosen_from(rows: Sequence[AnswerRow], args: RerankArguments) -> list[Record]:
    """Return the records with the answers to choose from, which sign as --generator where they name no model."""
    records = []
    for row in without(args.leave_out, rows):
        record = row.record if args.with_references else row.candidates()
        if args.generator:
            answers = [dataclasses.replace(a, model=a.model or args.generator) for a in record.answers]
            record = dataclasses.replace(record, answers=tuple(answers))
        records.append(record)
    return records


def write(
    records: list[Record], scorer: str, args: RerankArguments, files: dict[int, Path], curves: Sequence[Path]
) -> None:
    """Write the best answers for each n, and the curve.

    Args:
        records: the prompts with scored answers.
        scorer: the name of the scores to go by.
        args: the options.
        files: where the best of n go; n is 0 for all that every prompt has.
        curves: the JSON file and the page of the curve.
    """
    warning = repeated(records)
    if warning:
        warn(warning)
    fewest, found = min(len(record.answers) for record in records), {}
    for count, path in files.items():
        n = count or fewest
        found[n] = write_best(records, n, scorer=scorer, path=path)
    most = max(found)
    scores = [scores_of(record, scorer) for record in records]
    over_n = curve(scores, scores, most, mean_interval)
    expected = {n: {"score": one.to_json(), "kl_bound": kl_bound(n)} for n, one in over_n.items()}
    whole = {"scorer": scorer, "best_of": found, "expected": expected, "true_reward": {}}
    worth = truth(records)
    if worth:
        # As evaluate_world.py: a prompt is a cluster, of one value here.
        rewards = curve(scores, worth, most, lambda means: cluster_bootstrap([[mean] for mean in means], SEED))
        whole["true_reward"] = {n: one.to_json() for n, one in rewards.items()}
    data, page = curves
    write_json(data, whole)
    write_text(page, curve_page(whole))
    say(f"curve over n: {data} and {page.name}")


def truth(records: Sequence[Record]) -> list[list[float]]:
    """Return the true reward of every answer, [] where the prompts are not of the built-in world."""
    try:
        return [utilities(record) for record in records]
    except UserError:
        return []


if __name__ == "__main__":
    run_program(main)
