"""Best-of-n: keep of every prompt's first n answers the one that a reward model scores highest.

    python inference/rerank.py --data_path answers.jsonl --reward_model_name_or_path output/tutor/reward --n 1,4,16

Reads what `chatbot.py --mode generate --num_samples N` wrote; answers that `--mode rm` scored already need no model.
Writes a file for each value of n, records with one answer each, and the curve over n: the mean score of each file, and
the expected score of the best of 1, 2, 4, … answers.
"""

from __future__ import annotations

import math
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.answering.files import claim_shards, input_files, open_files, output_file
from utils.answering.inference_model import signature
from utils.answering.jobs import score_rows
from utils.answering.output import join_ranks
from utils.answering.rows import AnswerRow, read_rows
from utils.arguments import parse
from utils.arguments.inference import FileArguments, LengthArguments, ReaderArguments
from utils.arguments.options import option
from utils.engine import ranks
from utils.errors import UserError
from utils.raw_datasets.spec import Spec
from utils.records import LIKELIHOODS, Answer, Record
from utils.records.files import write_jsonl
from utils.reporting import run_program, say, write_json
from utils.statistics import best_of_n, doublings, mean_interval


@dataclass
class RerankArguments(LengthArguments, FileArguments, ReaderArguments):
    model_name_or_path: str = option(
        "",
        help="reward model that scores the answers; None: they have scores",
        aliases=["--reward_model_name_or_path"],
        title="Model",
    )
    n: str = option("16", help="number of answers to choose from, or several, as 1,4,16", title="Choice")
    scorer: str | None = option(help="model whose scores to go by; None: the only one that scored the answers")

    def __post_init__(self) -> None:
        self.check_files()
        if not all(word.strip().isdigit() and int(word) > 0 for word in self.n.split(",")):
            raise UserError(f"--n is {self.n!r}; expected numbers from 1 on, as 1,4,16")

    @property
    def counts(self) -> list[int]:
        return sorted({int(word) for word in self.n.split(",")})


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([RerankArguments], argv, __doc__)
    join_ranks()
    counts, scorer = args.counts, args.scorer

    def best_files(output: Path) -> dict[int, Path]:
        if len(counts) == 1 and args.output_path:
            return {counts[0]: output}
        return {n: output.with_name(f"{output.stem}-of-{n}{output.suffix}") for n in counts}

    def curve_file(output: Path) -> Path:
        return output.with_name(f"{output.stem}-curve.json")

    def written(output: Path) -> list[Path]:
        return [*best_files(output).values(), curve_file(output)]

    rows, output = open_files(args, "best", "rerank.py", written=written)
    if args.model_name_or_path:
        scored = output_file("", args.data_path, "rm")
        # The scored answers are what `chatbot.py --mode rm` writes, so that either program continues the other's.
        claim_shards(args, "chatbot.py", output=scored, sources=input_files(args.data_path, scored))
        rows = read_rows([Spec(str(score_rows(rows, args, scored).output))], verbatim=args.template == "plain")
        if not scorer:
            scorer = signature(args.model_name_or_path) if rows[0].plain is None else "score"
    scorer = scorer or only_scorer(rows)
    if ranks.rank() == 0:
        records, curve = [row.record for row in rows], {}
        for n, path in best_files(output).items():
            curve[n] = write_best(records, n, scorer=scorer, path=path)
        over_n = expected(records, counts[-1], scorer)
        write_json(curve_file(output), {"scorer": scorer, "best_of": curve, "expected": over_n})


def only_scorer(rows: Sequence[AnswerRow]) -> str:
    """Return the name of the only model that scored the answers. Raises UserError when there are none or several."""
    names: set[str] = set()
    for row in rows:
        for answer in row.record.answers:
            names |= set(answer.scores)
    # The likelihoods of `--mode ppl` are no scores of a reward model.
    names -= set(LIKELIHOODS)
    if len(names) == 1:
        return names.pop()
    if names:
        raise UserError(f"the answers have scores of {', '.join(sorted(names))}; choose one with --scorer")
    raise UserError(f"{rows[0].record.where}: the answers have no scores; give --reward_model_name_or_path")


def write_best(records: Sequence[Record], n: int, scorer: str, path: Path) -> dict[str, object]:
    """Write the best of every prompt's first n answers.

    Args:
        records: the prompts with scored answers.
        n: how many answers to choose from.
        scorer: the name of the scores to go by.
        path: the file to write.

    Returns:
        The mean score with its interval, the bound of the KL divergence, the file.

    Raises:
        UserError: a record has fewer answers, or one without such a score.
    """
    chosen, scores = [], []
    for record in records:
        answer = best(record, n, scorer)
        chosen.append(Record(record.prompt, (answer,), id=record.id, meta=record.meta))
        scores.append(answer.scores[scorer])
    write_jsonl(path, chosen)
    score = mean_interval(scores)
    kl = kl_bound(n)
    say(f"best of {n:>3}: score {score}  KL ≤ {kl:.3f}  written to {path}")
    return {"score": score.to_json(), "kl_bound": kl, "file": str(path)}


def kl_bound(n: int) -> float:
    """Return the bound KL(best-of-n, policy) <= log n − (n − 1)/n in nats."""
    # Stiennon et al. 2020, arXiv:2009.01325, appendix G.3.
    return math.log(n) - (n - 1) / n


def expected(records: Sequence[Record], most: int, scorer: str) -> dict[int, dict[str, object]]:
    """Return the expected score of the best of n = 1, 2, 4, …, `most`; the interval is over prompts."""
    found = {}
    for n in doublings(most):
        means = []
        for record in records:
            # From all of the first `most` answers, which has less variance than the first n alone.
            scores = [answer.scores[scorer] for answer in record.answers[:most]]
            means.append(best_of_n(scores, scores, n))
        found[n] = {"score": mean_interval(means).to_json(), "kl_bound": kl_bound(n)}
    return found


def best(record: Record, n: int, scorer: str) -> Answer:
    """Return the answer with the highest score among the first n, the earlier of two equals. Raises UserError."""
    if len(record.answers) < n:
        raise UserError(f"{record.where}: {len(record.answers)} answers, too few for --n {n}; lower it or sample more")
    for answer in record.answers[:n]:
        if scorer not in answer.scores:
            raise UserError(f"{record.where}: an answer has no score of {scorer}; give --reward_model_name_or_path")
    return max(record.answers[:n], key=lambda answer: answer.scores[scorer])


if __name__ == "__main__":
    run_program(main)
