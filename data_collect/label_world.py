"""The oracle's feedback on sampled answers: utility, rating 1 to 7, and noisy pairwise verdicts.

    python data_collect/label_world.py --data_path sampled.jsonl --output_path feedback/train.jsonl

Reads records of the built-in world with k answers each (inference/chatbot.py --mode generate writes them), writes the
same records with feedback. <output>.summary.json holds the accuracy that the noise allows a reward model.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from utils.arguments import parse
from utils.arguments.options import option, required
from utils.errors import UserError
from utils.records import Record, Verdict, read_records, write_jsonl
from utils.reporting import progress, run_program, say, write_json
from utils.world.exchanges import read_prompt
from utils.world.oracle import Assessment, accuracy_ceiling, assess, prefer, preference_probability, random_of


@dataclass
class LabelArguments:
    data_path: str = required("records with sampled answers", aliases=["--input_file"])
    output_path: str = required("records with feedback")
    pairs_per_prompt: int = option(4, help="pairs of different answers to compare, drawn at random; 0: every pair")
    noise_temperature: float = option(0.7, help="P(a over b) = sigmoid(gap in utility / temperature); 0 never errs")
    seed: int = option(1234, help="seed of the pairs and of the noise")

    def __post_init__(self) -> None:
        for name in ("pairs_per_prompt", "noise_temperature"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} is {getattr(self, name)}; expected 0 or more")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([LabelArguments], argv, description=__doc__)
    records = list(read_records(Path(args.data_path)))
    judged: list[tuple[Record, list[Assessment]]] = []
    with progress("asking the oracle", len(records)) as advance:
        for record in records:
            judged.append(label(record, args))
            advance()
    output = Path(args.output_path)
    write_jsonl(output, (record for record, _ in judged))
    summary = summarise(judged, args)
    write_json(output.with_name(f"{output.name}.summary.json"), summary)
    say(f"{output}: {summary['records']} records, {summary['answers']} answers, {summary['decided']} verdicts "
        f"and {summary['ties']} ties; mean utility {summary['mean_utility']:.3f}")  # fmt: skip
    say(f"accuracy that the noise allows: {summary['ceiling']:.3f} ({summary['flipped']:.3f} of the verdicts err)")


def label(record: Record, args: LabelArguments) -> tuple[Record, list[Assessment]]:
    """The record with every answer rated and some pairs compared. Raises UserError."""
    if not record.answers:
        raise UserError(f"{record.where}: no answers to rate; expected records that chatbot.py --mode generate wrote")
    exchange = read_prompt(record.prompt, record.where)
    seen = [assess(exchange, answer.text, answer.finished) for answer in record.answers]
    answers = tuple(
        dataclasses.replace(answer, rating=s.rating, scores={**answer.scores, "oracle": s.utility})
        for answer, s in zip(record.answers, seen, strict=True)
    )
    verdicts = tuple(
        Verdict(a, b, prefer(seen[a], seen[b], args.noise_temperature, args.seed, record.id, a, b), judge="oracle")
        for a, b in _pairs(record, args)
    )
    return dataclasses.replace(record, answers=answers, verdicts=verdicts), seen


def _pairs(record: Record, args: LabelArguments) -> list[tuple[int, int]]:
    numbered = itertools.combinations(range(len(record.answers)), 2)
    pairs = [(a, b) for a, b in numbered if record.answers[a].text != record.answers[b].text]
    if not args.pairs_per_prompt or len(pairs) <= args.pairs_per_prompt:
        return pairs
    return sorted(random_of(args.seed, record.id).sample(pairs, args.pairs_per_prompt))


def summarise(judged: list[tuple[Record, list[Assessment]]], args: LabelArguments) -> dict:
    """Counts, and the ceiling: the mean of max(p, 1 - p) over the decided verdicts."""
    probabilities, flips, ties = [], 0, 0
    for record, seen in judged:
        for v in record.verdicts:
            if v.preferred == "tie":
                ties += 1
                continue
            p = preference_probability(seen[v.a].utility, seen[v.b].utility, args.noise_temperature)
            probabilities.append(p)
            flips += (v.preferred == "a") != (p > 0.5)
    everything = [s for _, seen in judged for s in seen]
    ceiling = accuracy_ceiling(probabilities)
    return {
        "records": len(judged),
        "answers": len(everything),
        "decided": len(probabilities),
        "ties": ties,
        "ceiling": None if math.isnan(ceiling) else ceiling,
        "flipped": flips / max(1, len(probabilities)),
        "mean_utility": sum(s.utility for s in everything) / len(everything),
        "ratings": {str(r): n for r, n in sorted(Counter(s.rating for s in everything).items())},
        "noise_temperature": args.noise_temperature,
        "seed": args.seed,
    }


if __name__ == "__main__":
    run_program(main)
