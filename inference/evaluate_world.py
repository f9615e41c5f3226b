"""The true reward of answers in the built-in world, with 95 % intervals.

    python inference/evaluate_world.py --answers sft=output/tutor/sft.jsonl dpo=output/tutor/dpo.jsonl \\
        --results output/tutor/results.json

Every file holds records with sampled answers, of the same prompts if the names are to be compared. The oracle judges
from the words alone. `true_reward` in the results keeps the names that this run does not give. Where one reward model
has scored all answers of a file, its row also has the true reward of the best of n by those scores.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments import parse
from utils.arguments.options import option, overwriting, required
from utils.errors import UserError
from utils.outputs import claim
from utils.records import LIKELIHOODS, Record, read_records
from utils.reporting import progress, run_program, say, write_json
from utils.statistics import best_of_n, cluster_bootstrap, doublings, wilson_interval
from utils.world.exchanges import read_prompt
from utils.world.language import STATES
from utils.world.truth import utilities


@dataclass
class EvaluationArguments:
    answers: list[str] = required("answer files, each NAME=FILE", title="Evaluation")
    results: str = option("output/tutor/results.json", help="JSON file to merge the numbers into")
    overwrite: bool = overwriting()
    seed: int = option(1234, help="seed of the bootstrap over prompts")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([EvaluationArguments], argv, description=__doc__)
    files = dict(_name_and_file(text) for text in args.answers)
    if len(files) < len(args.answers):
        raise UserError("--answers gives a name twice; expected NAME=FILE with different names")
    claim("evaluate_world.py", {"--results": args.results}, reads=files.values(), overwrite=args.overwrite)
    rows = {name: evaluate(name, file, args.seed) for name, file in files.items()}
    path = Path(args.results)
    known = _read_results(path)
    known["true_reward"] = {**known.get("true_reward", {}), **rows}
    write_json(path, known)
    for line in table(rows):
        say(line)
    say(f"written to {path}")


def _name_and_file(text: str) -> tuple[str, Path]:
    name, separator, file = text.partition("=")
    if not (name and separator and file):
        raise UserError(f"--answers {text!r}: expected NAME=FILE, as in sft=output/tutor/sft.jsonl")
    return name, Path(file)


def evaluate(name: str, file: Path, seed: int) -> dict:
    """Mean utility (1 to 7) with a bootstrap over prompts, length in words, share finished, and the mean per state of
    the student's turn. Raises UserError."""
    records = list(read_records(file))
    worth, states, words, finished = [], defaultdict(list), [], []
    with progress(f"judging {name}", len(records)) as advance:
        for record in records:
            if not record.answers:
                raise UserError(f"{record.where}: no answers; expected records that chatbot.py --mode generate wrote")
            worth.append(utilities(record))
            states[read_prompt(record.prompt).state].append(worth[-1])
            words += [len(answer.text.split()) for answer in record.answers]
            finished += [answer.finished for answer in record.answers]
            advance()
    return {
        "reward": cluster_bootstrap(worth, seed).to_json(),
        "answers": len(words),
        "mean_words": sum(words) / len(words),
        "finished": wilson_interval(sum(finished), len(finished)).to_json(),
        "states": {s: cluster_bootstrap(states[s], seed).to_json() for s in STATES if s in states},
        "file": str(file),
        **best_of(records, worth, seed),
    }


def best_of(records: Sequence[Record], worth: Sequence[Sequence[float]], seed: int) -> dict:
    """{"best_of": {"scorer", "reward": {n: true reward of the best of n}}} for n = 1, 2, 4, … up to the fewest answers
    of a prompt, chosen by the answers' scores; {} unless one model scored them all and every prompt has two or more."""
    scorers = set.intersection(*({*answer.scores} for record in records for answer in record.answers)) - {*LIKELIHOODS}
    most = min(len(record.answers) for record in records)
    if len(scorers) != 1 or most < 2:
        return {}
    scorer = scorers.pop()
    scores = [[answer.scores[scorer] for answer in record.answers[:most]] for record in records]
    rewards = {
        n: cluster_bootstrap([[best_of_n(s, w[:most], n)] for s, w in zip(scores, worth, strict=True)], seed).to_json()
        for n in doublings(most)
    }
    return {"best_of": {"scorer": scorer, "reward": rewards}}


def _read_results(path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not JSON ({error}); move it away, or give another --results") from error
    if not isinstance(known, dict):
        raise UserError(f"{path}: found a {type(known).__name__}; expected a JSON object; give another --results")
    return known


def table(rows: dict[str, dict]) -> list[str]:
    """One line a name, and what the columns mean above them."""
    width = max(map(len, rows), default=0)
    lines = [f"{'':{width}}  true reward  95 % interval   prompts  answers  words  finished  " + "  ".join(STATES)]
    for name, row in rows.items():
        reward, states = row["reward"], row["states"]
        interval = "-" if reward["low"] is None else f"{reward['low']:.3f} - {reward['high']:.3f}"
        lines.append(
            f"{name:{width}}  {reward['value']:11.3f}  {interval:14}  {reward['n']:7}  {row['answers']:7}"
            f"  {row['mean_words']:5.1f}  {row['finished']['value']:8.1%}  "
            + "  ".join(f"{states[s]['value']:{len(s)}.2f}" if s in states else f"{'-':>{len(s)}}" for s in STATES)
        )
    return lines


if __name__ == "__main__":
    run_program(main)
