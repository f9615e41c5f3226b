"""The true reward of answers in the built-in world, with 95 % intervals.

    python inference/evaluate_world.py --answers sft=output/tutor/sft.jsonl dpo=output/tutor/dpo.jsonl \\
        --results output/tutor/results.json

Every file holds records with sampled answers, of the same prompts if the names are to be compared. The oracle judges
by the text alone. `true_reward` in the results keeps the names that this run does not give. Where one reward model
has scored all answers of a file, its row also has the true reward of the best of n by those scores.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.answering.best_of_n import curve, repeated, scores_of
from utils.answering.files import named_files
from utils.arguments import parse
from utils.arguments.options import option, overwriting, required
from utils.errors import UserError
from utils.outputs import claim
from utils.records import LIKELIHOODS, Record
from utils.records.files import read_records
from utils.reporting import progress, run_program, say, warn, write_json
from utils.statistics import cluster_bootstrap, wilson_interval
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
    files = named_files(args.answers)
    claim("evaluate_world.py", {"--results": args.results}, reads=files.values(), overwrite=args.overwrite)
    expect_same_prompts(files)
    rows = {name: evaluate(name, file, args.seed) for name, file in files.items()}
    path = Path(args.results)
    known = _read_results(path)
    known["true_reward"] = {**known.get("true_reward", {}), **rows}
    write_json(path, known)
    for line in table(rows):
        say(line)
    say(f"written to {path}")


def expect_same_prompts(files: Mapping[str, Path]) -> None:
    """Refuse names that have no prompt in common, and warn of prompts that a file repeats."""
    known: dict[str, set] = {}
    for name, file in files.items():
        records = list(read_records(file))
        warning = repeated(records)
        if warning:
            warn(warning)
        known[name] = {record.prompt for record in records}
    (first, prompts), *others = known.items()
    for name, theirs in others:
        if prompts.isdisjoint(theirs):
            found = f"--answers: {files[name]} has none of the prompts of {files[first]}"
            raise UserError(
                f"{found}; expected answers to the same prompts, or a command for each of {first} and {name}"
            )


def evaluate(name: str, file: Path, seed: int) -> dict:
    """Evaluate the answers of a file.

    Args:
        name: of the answers, for the progress bar.
        file: records with answers.
        seed: of the bootstrap over prompts.

    Returns:
        Mean utility (1 to 7) with its interval, length in words, share finished, and the mean utility by the state of
        the student's turn.

    Raises:
        UserError: a record has no answers, or is not of the built-in world.
    """
    records = list(read_records(file))
    # For each record the utility of every answer; for each answer its length and whether it ended.
    worth, states, words, finished = [], defaultdict(list), [], []
    with progress(f"judging {name}", len(records)) as advance:
        for record in records:
            if not record.answers:
                raise UserError(f"{record.where}: no answers; expected records that chatbot.py --mode generate wrote")
            worth.append(utilities(record))
            states[read_prompt(record.prompt).state].append(worth[-1])
            for answer in record.answers:
                words.append(len(answer.text.split()))
                finished.append(answer.finished)
            advance()
    of_states = {}
    # In the order of STATES, which is that of the printed columns.
    for state in STATES:
        if state in states:
            of_states[state] = cluster_bootstrap(states[state], seed).to_json()
    return {
        "reward": cluster_bootstrap(worth, seed).to_json(),
        "answers": len(words),
        "mean_words": sum(words) / len(words),
        "finished": wilson_interval(sum(finished), len(finished)).to_json(),
        "states": of_states,
        "file": str(file),
        **best_of(records, worth, seed),
    }


def best_of(records: Sequence[Record], worth: Sequence[Sequence[float]], seed: int) -> dict:
    """Return the true reward of the best of n = 1, 2, 4, … answers, chosen by the scores of a reward model.

    Args:
        records: with answers.
        worth: for each record the utility of every answer.
        seed: of the bootstrap over prompts.

    Returns:
        {"best_of": {"scorer", "reward": {n: estimate}}}, n up to the fewest answers of a prompt; {} unless exactly one
        model scored every answer, and every prompt has two or more.
    """
    most = min(len(record.answers) for record in records)
    scorers = set(records[0].answers[0].scores)
    for record in records:
        for answer in record.answers:
            scorers &= set(answer.scores)
    scorers -= set(LIKELIHOODS)
    if len(scorers) != 1 or most < 2:
        return {}
    scorer = scorers.pop()
    scores = [scores_of(record, scorer) for record in records]
    # A cluster of one value: the interval is over prompts.
    rewards = curve(scores, worth, most, lambda means: cluster_bootstrap([[mean] for mean in means], seed))
    return {"best_of": {"scorer": scorer, "reward": {n: reward.to_json() for n, reward in rewards.items()}}}


def _read_results(path: Path) -> dict:
    """Return the results so far, {} without a file. Raises UserError for anything but a JSON object."""
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
    """Return the lines of a table: a header, and a line for each name."""
    width = max(map(len, rows), default=0)
    lines = [f"{'':{width}}  true reward  95 % interval   prompts  answers  words  finished  " + "  ".join(STATES)]
    for name, row in rows.items():
        reward, states = row["reward"], row["states"]
        interval, of_states = "-", []
        if reward["low"] is not None:
            interval = f"{reward['low']:.3f} - {reward['high']:.3f}"
        for state in STATES:
            # A column is as wide as its name.
            if state in states:
                of_states.append(f"{states[state]['value']:{len(state)}.2f}")
            else:
                of_states.append(f"{'-':>{len(state)}}")
        lines.append(
            f"{name:{width}}  {reward['value']:11.3f}  {interval:14}  {reward['n']:7}  {row['answers']:7}"
            f"  {row['mean_words']:5.1f}  {row['finished']['value']:8.1%}  " + "  ".join(of_states)
        )
    return lines


if __name__ == "__main__":
    run_program(main)
