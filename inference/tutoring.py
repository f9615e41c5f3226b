"""Evaluate tutors of coded turns: generate their answers, measure their codes, and how they weigh hint and solution.

    python inference/tutoring.py generate --model_name_or_path output/sft \\
        --data_path datasets/bio-test_formatted.json --output_path output/sft-eval/responses.csv
    python inference/tutoring.py metrics --response_file output/sft-eval/responses.csv
    python inference/tutoring.py perplexity --model_name_or_path output/sft --data_path datasets/bio-dataset-ppl.json

generate    writes responses.csv (prompt, response, gpt) for the prompts of data_collect/tutor.py split; the same
            command continues a run that was stopped
metrics     accuracy and macro-F1 of evaluation, action and state, with intervals over conversations
perplexity  of the last two turns of each conversation, the original and its alternative: hints (actions 1 and 4)
            against solutions (2 and 5)
"""

from __future__ import annotations

import csv
from argparse import ArgumentParser
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.answering.files import claim_outputs, input_files
from utils.answering.inference_model import InferenceModel
from utils.answering.jobs import RowJob, generation_job, model_facts, run_job, sampling_of
from utils.answering.output import join_ranks
from utils.answering.rows import AnswerRow, part_of
from utils.arguments.modes import parse_mode
from utils.arguments.tutoring import TutorGenerateArguments, TutorMetricsArguments, TutorPerplexityArguments
from utils.engine import ranks
from utils.errors import UserError
from utils.evaluation.tutoring import HINT_OR_SOLUTION, Coded, accuracy, hint_and_solution, macro_f1, metric_table
from utils.feedback.tutor_turns import ACTION, EVALUATION, STATE, is_valid_reference
from utils.formats.files import replacing
from utils.outputs import claim
from utils.raw_datasets.dialogue import messages
from utils.raw_datasets.sources.tables import csv_rows
from utils.raw_datasets.tutoring import Tutoring, literal
from utils.raw_datasets.tutoring_files import EXPECTED, GIVEN, to_python
from utils.raw_datasets.whole import rows_of
from utils.records import Answer, Record, RecordError
from utils.reporting import progress, run_program, say, write_json
from utils.tables import aligned

COLUMNS = ("prompt", GIVEN, EXPECTED)
FIELDS = {"evaluation": EVALUATION, "action": ACTION, "state": STATE}


MODES = {"generate": TutorGenerateArguments, "metrics": TutorMetricsArguments, "perplexity": TutorPerplexityArguments}


def main(argv: list[str] | None = None) -> None:
    mode, args = parse_mode(MODES, argv, __doc__)
    {"generate": generate, "metrics": metrics, "perplexity": perplexity}[mode](args)


# ---- generate


def generate(args: TutorGenerateArguments) -> None:
    """Answer every prompt of a split once, and write the answers beside those expected."""
    join_ranks()
    output = Path(args.output_path)
    lines = output.with_suffix(".jsonl")
    if not args.data_path:
        raise UserError("--data_path is missing; expected bio-test_formatted.json of data_collect/tutor.py split")
    sources = input_files(args.data_path, output)
    claim_outputs(args, "tutoring.py", outputs=[output, lines], sources=sources)
    rows = []
    for spec in sources:
        rows += [_prompt_row(row, where) for row, where in rows_of(spec.path, spec.cls and spec.cls.read)]
    if not rows:
        raise UserError(f"{', '.join(args.data_path)}: no rows; expected prompts and the turns that answer them")
    rows = part_of(rows, args.offset, args.data_fraction)
    sampling = sampling_of(args, args.temperature, draw=args)

    def finish(row: AnswerRow, answers: list[Answer]) -> dict[str, str]:
        (answer,) = answers
        words = (row.plain["prompt"], to_python(answer.text), to_python(row.plain["chosen"]))
        return dict(zip(COLUMNS, words, strict=True))

    def load() -> RowJob:
        model, longest = InferenceModel(args), args.max_prompt_seq_len
        return generation_job(model, rows, [sampling], max_prompt_seq_len=longest, finish=finish)

    facts = {"what": "tutoring", "max_prompt_seq_len": args.max_prompt_seq_len, "sampling": sampling.to_json()}
    shards = run_job(rows, args, lines, facts={**facts, **model_facts(args)}, load=load)
    if ranks.rank() == 0:
        with replacing(output) as out:
            writer = csv.DictWriter(out, COLUMNS)
            writer.writeheader()
            writer.writerows(shards.read())
        say(f"{output}: {len(rows):,} answers")


def _prompt_row(row: Any, where: str) -> AnswerRow:
    """Return a prompt with the turn expected; the prompt is read in turns, as training reads it."""
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not isinstance(row.get("chosen"), str):
        raise RecordError(
            f"{where}: found {str(row)[:60]!r}; expected prompt and chosen, as tutor.py split writes them"
        )
    prompt = Tutoring.record(row, where).prompt
    return AnswerRow(Record(prompt, where=where), plain={"prompt": row["prompt"], "chosen": row["chosen"]})


# ---- metrics


def metrics(args: TutorMetricsArguments) -> None:
    """Compare the codes of the model's turns with those expected."""
    path = Path(args.response_file)
    claim("tutoring.py", {"--json": args.json}, reads=[path], overwrite=args.overwrite)
    codes: dict[str, list[Coded]] = defaultdict(list)
    tally: Counter[str] = Counter()
    for prompt, response, gpt in _responses(path):
        tally["rows"] += 1
        reference = literal(gpt)
        if not is_valid_reference(reference):
            tally["invalid references"] += 1
        elif args.first_turns == "skip" and prompt.count("Student:") == 1:
            tally["first turns"] += 1
        else:
            turn = literal(response)
            tally["turns that cannot be parsed"] += turn is None
            for name, field in FIELDS.items():
                predicted = str((turn or {}).get(field, ""))
                codes[name].append(Coded(_conversation(prompt), actual=reference[field], predicted=predicted))
    if not codes:
        raise UserError(f"{path}: no turn is left of {dict(tally)}; give --first_turns keep, or another file")
    found: dict[str, Any] = {}
    for name, of_field in codes.items():
        score = macro_f1(of_field, args.seed, quirk=args.quirk)
        found[name] = {"accuracy": accuracy(of_field, args.seed).to_json(), "macro_f1": score.to_json()}
    counted = len(codes["evaluation"])
    say(aligned(["", "accuracy", "macro-F1"], metric_table(found)))
    say(f"{counted:,} turns of {found['evaluation']['accuracy']['n']:,} conversations; "
        f"{tally['turns that cannot be parsed']} cannot be parsed; left out: {tally['first turns']} first turns, "
        f"{tally['invalid references']} invalid references")  # fmt: skip
    if args.json:
        facts = {"n": counted, "first_turns": args.first_turns, "quirk": args.quirk, "tally": dict(tally)}
        write_json(Path(args.json), {**found, **facts})


def _responses(path: Path) -> Iterator[tuple[str, str, str]]:
    for row, where in csv_rows(path, None):
        if not all(isinstance(row.get(name), str) for name in COLUMNS):
            raise RecordError(f"{where}: found the columns {', '.join(map(str, row))}; expected {', '.join(COLUMNS)}")
        yield row["prompt"], row[GIVEN], row[EXPECTED]


def _conversation(prompt: str) -> str:
    """Return how a prompt begins, up to the first tutor's turn: the prompts of one conversation share it."""
    opening, _, _ = prompt.partition("Tutorbot:")
    return opening.strip()


# ---- perplexity


def perplexity(args: TutorPerplexityArguments) -> None:
    """Measure the perplexity of hints and of solutions."""
    claim("tutoring.py", {"--json": args.json}, reads=[args.data_path], overwrite=args.overwrite)
    pairs, others = [], 0
    for row, where in rows_of(args.data_path):
        record, actions = _alternatives(row, where)
        if actions in HINT_OR_SOLUTION:
            pairs.append((record, actions))
        else:
            others += 1
    if not pairs:
        expected = "expected a hint and a solution as the last turns (actions 1 and 2, or 4 and 5)"
        raise UserError(f"{args.data_path}: no such pair in {others} conversations; {expected}")
    model, scored = InferenceModel(args), []
    with progress("measuring", len(pairs)) as advance:
        for start in range(0, len(pairs), args.batch_size):
            batch = pairs[start : start + args.batch_size]
            scored += _scored(model, batch, args)
            advance(len(batch))
    found = hint_and_solution(scored)
    rows = []
    for name, each in found.items():
        shown = "-" if each["perplexity"] is None else f"{each['perplexity']:.4f}"
        rows.append([name, shown, str(each["turns"]), str(each["tokens"])])
    say(aligned(["action", "perplexity", "turns", "tokens"], rows))
    say(f"{len(pairs)} conversations; {others} left out: they do not end with a hint and its solution")
    if args.json:
        write_json(Path(args.json), {**found, "conversations": len(pairs), "left_out": others, "quirk": args.quirk})


def _alternatives(row: Any, where: str) -> tuple[Record, tuple[str, str]]:
    """Return the history with its two last turns as answers, and their actions."""
    turns = row.get("conversations") if isinstance(row, dict) else None
    if not isinstance(turns, list) or len(turns) < 3:
        raise RecordError(
            f"{where}: found {str(row)[:60]!r}; expected conversations of a history and two tutor's turns"
        )
    *history, original, alternative = turns
    roles = [message.role for message in messages(turns[-3:], f"{where}: conversations")]
    if roles != ["user", "assistant", "assistant"]:
        found = f"{where}: the last three turns are by {', '.join(roles)}"
        raise RecordError(f"{found}; expected the student's words, a tutor's turn, and an alternative to it")
    answers, actions = [], []
    for turn in (original, alternative):
        record = Tutoring.record({"conversations": [*history, turn]}, f"{where}: conversations")
        # Not finished: the end of a turn is no part of what it says.
        answers.append(Answer(record.answers[-1].text, finished=False))
        actions.append(str((literal(record.answers[-1].text) or {}).get(ACTION, "")))
    return Record(record.prompt, tuple(answers), where=where), (actions[0], actions[1])


def _scored(
    model: InferenceModel, batch: Sequence[tuple[Record, tuple[str, str]]], args: TutorPerplexityArguments
) -> Iterator[tuple[str, float, int]]:
    """Yield action, sum of negative log-likelihoods and number of tokens of each turn."""
    records = [record for record, _ in batch]
    for record, (_, actions), means in zip(records, batch, model.scores(records, args.max_seq_len), strict=True):
        tokens = [len(answer) for answer in model.group(record, args.max_seq_len).answers]
        for action, mean, count in zip(actions, means, tokens, strict=True):
            yield action, mean * count, count - args.quirk


if __name__ == "__main__":
    run_program(main)
