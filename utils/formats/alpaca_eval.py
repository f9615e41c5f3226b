"""Files of AlpacaEval and its kin: annotated comparisons, a teacher's completions, a model's samples."""

from __future__ import annotations

from typing import Any

from utils.formats.base import COLUMNS, MANY, SPACE, TURNS, UNRATED, Format, texts_of, with_columns, writes
from utils.formats.dialogues import human_assistant
from utils.formats.files import JsonList, JsonObject
from utils.raw_datasets.annotations import written
from utils.raw_datasets.instructions import only_message
from utils.records import Record


@writes(
    Format(
        name="alpaca-eval",
        file=JsonList(),
        about="JSON list of instruction, output, generator, perhaps dataset: AlpacaEval's model outputs",
        keeps=("models", SPACE, COLUMNS),
    )
)
def alpaca_eval(record: Record):
    for answer in record.answers:
        row = {"instruction": only_message(record), "output": answer.text, "generator": answer.model or ""}
        yield with_columns(row, record)


@writes(
    Format(
        name="annotations",
        file=JsonList(),
        about="JSON list of instruction, output_1, output_2, preference (1, 2; 0: a tie; null: no answer): "
        "AlpacaEval's",
        keeps=("several answers", UNRATED, "models", "preferences", "ties", "failures", "judges", SPACE, COLUMNS),
        needs=("preferences",),
    )
)
def annotations(record: Record):
    for verdict in record.verdicts:
        row: dict[str, Any] = {"instruction": only_message(record)}
        for number, answer in enumerate((record.answers[verdict.a], record.answers[verdict.b]), start=1):
            row[f"output_{number}"] = answer.text
            if answer.model:
                row[f"generator_{number}"] = answer.model
        if verdict.judge:
            row["annotator"] = verdict.judge
        # A preference that is more than a verdict (1.3, from log-probs) was kept as it was read.
        row["preference"] = record.meta.get("preference", written(verdict.preferred))
        yield with_columns(row, record)


@writes(
    Format(
        name="completions",
        file=JsonObject(),
        about="JSON object: instruction -> list of texts",
        keeps=(*MANY, SPACE),
        writing="which record of a prompt a text is from",
    )
)
def completions(record: Record):
    if record.answers:
        yield only_message(record), texts_of(record)


@writes(
    Format(
        name="samples",
        file=JsonObject(),
        about="JSON object: prompt as 'Human: …\\n\\nAssistant: ' -> list of texts",
        keeps=(*MANY, *TURNS),
        writing="which record of a prompt a text is from",
    )
)
def samples(record: Record):
    if record.answers:
        yield f"{human_assistant(record).lstrip()} ", texts_of(record)
