"""Files around an instruction and its answers: sampled, to be rated or ranked, rated, ranked, or for a reward model."""

from __future__ import annotations

import itertools

from utils.formats.base import COLUMNS, MANY, SPACE, UNCOMPARED, UNRATED, Format, texts_of, with_columns, writes
from utils.formats.files import Csv, JsonList, JsonObject
from utils.raw_datasets.feedback_csv import FEEDBACK
from utils.raw_datasets.instructions import alpaca_prompt, instruction_of, only_message
from utils.records import Record, RecordError

WORDS = {preferred: words for words, preferred in FEEDBACK.items()}  # of a decision
# The part of AlpacaEval that the training instructions come from.
LEFT_OUT = "selfinstruct"


@writes(
    Format(
        name="responses",
        file=JsonList(),
        about="JSON list of instruction, input, responses: several sampled answers",
        keeps=(*MANY, SPACE, COLUMNS),
    )
)
def responses(record: Record):
    instruction, given = instruction_of(record)
    yield with_columns({"instruction": instruction, "input": given, "responses": texts_of(record)}, record)


@writes(
    Format(
        name="ratings-csv",
        file=Csv(("instruction", "input", "response")),
        about="CSV: a row for each answer, to be rated",
        keeps=(*MANY, SPACE),
    )
)
def ratings_csv(record: Record):
    for answer in record.answers:
        yield *instruction_of(record), answer.text


@writes(
    Format(
        name="rankings-csv",
        file=Csv(("instruction", "input", "response1", "response2")),
        about="CSV: a row for every two answers, to be ranked",
        keeps=(*MANY, SPACE),
        needs=("several answers",),
        writing="which rows are one record",
    )
)
def rankings_csv(record: Record):
    for first, second in itertools.combinations(record.answers, 2):
        yield *instruction_of(record), first.text, second.text


@writes(
    Format(
        name="ratings-feedback-csv",
        file=Csv(("instruction", "input", "output", "score"), header=False),
        about="CSV without a header: a row for each rated answer",
        keeps=("several answers", SPACE, UNCOMPARED, "ratings"),
        needs=("ratings",),
        reading="the order of prompts' rows",
    )
)
def ratings_feedback_csv(record: Record):
    for answer in record.answers:
        if answer.rating is not None:
            yield *instruction_of(record), answer.text, number(answer.rating)


@writes(
    Format(
        name="rankings-feedback-csv",
        file=Csv(("instruction", "input", "output1", "output2", "feedback"), header=False),
        about="CSV without a header: a row for each ranked pair; (a), (b) or equal",
        keeps=("several answers", SPACE, UNRATED, "preferences", "ties"),
        needs=("preferences",),
        reading="the order of prompts' rows",
    )
)
def rankings_feedback_csv(record: Record):
    for verdict in record.verdicts:
        if verdict.preferred in WORDS:
            texts = record.answers[verdict.a].text, record.answers[verdict.b].text
            yield *instruction_of(record), *texts, WORDS[verdict.preferred]


@writes(
    Format(
        name="rm-json",
        file=JsonObject("sentences"),
        about="JSON object: Alpaca prompt -> sentences, a list of [better, worse]",
        keeps=("several answers", SPACE, UNRATED, "preferences"),
        needs=("preferences",),
        reading="an input 'nan'",
    )
)
def rm_json(record: Record):
    pairs = decided(record)
    if pairs:
        instruction, given = instruction_of(record)
        if given == "nan":
            raise RecordError(f"{record.where}: the input is 'nan', which rm-json reads as an empty one")
        yield alpaca_prompt(instruction, given), [list(pair) for pair in pairs]


@writes(
    Format(
        name="generations",
        file=JsonList(),
        about="JSON list of dataset, generator, instruction, output",
        keeps=("models", SPACE, COLUMNS),
    )
)
def generations(record: Record):
    for answer in record.answers:
        head = {"dataset": record.meta.get("dataset", ""), "generator": answer.model or ""}
        yield with_columns({**head, "instruction": only_message(record), "output": answer.text}, record)


@writes(
    Format(
        name="generations-n",
        file=JsonList(),
        about="JSON list of dataset, generator, instruction, outputs: several sampled answers",
        keeps=(*MANY, SPACE, "models", COLUMNS),
    )
)
def generations_n(record: Record):
    models = sorted({answer.model or "" for answer in record.answers})
    if len(models) > 1:
        names = ", ".join(model or "an unknown model" for model in models)
        raise RecordError(f"{record.where}: the answers are of {names}; expected one generator")
    head = {"dataset": record.meta.get("dataset", ""), "generator": "".join(models)}
    yield with_columns({**head, "instruction": only_message(record), "outputs": texts_of(record)}, record)


@writes(
    Format(
        name="ratings-eval-csv",
        file=Csv(("instruction", "input", "response")),
        about="CSV: a row for each instruction and its one output, to be rated",
        keeps=(SPACE,),
        empty=f"records of the data set {LEFT_OUT}",
    )
)
def ratings_eval_csv(record: Record):
    for answer in record.answers:
        if record.meta.get("dataset") != LEFT_OUT:
            yield only_message(record), "", answer.text


@writes(
    Format(
        name="rankings-eval-csv",
        file=Csv(("instruction", "input", "response1", "response2")),
        about="CSV: the outputs of a reference and of a model, to be ranked; from two files of generations in this "
        "order",
        keeps=(*MANY, SPACE),
        needs=("several answers",),
    )
)
def rankings_eval_csv(record: Record):
    if len(record.answers) != 2:
        raise RecordError(f"{record.where}: found {len(record.answers)} answers; expected a reference and a model's")
    yield only_message(record), "", *texts_of(record)


def decided(record: Record) -> list[tuple[str, str]]:
    """Return (better, worse) of every decided verdict, those between equal texts as well."""
    found = []
    for verdict in record.verdicts:
        first, second = record.answers[verdict.a].text, record.answers[verdict.b].text
        if verdict.preferred == "a":
            found.append((first, second))
        elif verdict.preferred == "b":
            found.append((second, first))
    return found


def number(rating: float) -> str:
    """Return a rating as these files have it: whole ones without a point."""
    return str(int(rating)) if float(rating).is_integer() else repr(float(rating))
