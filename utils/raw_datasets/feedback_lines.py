"""Raw feedback of one of three kinds as JSON Lines: a judge's words beside the answers that they are about.

A critique or a refinement is about the first of the answers. `improved` rows hold what became of a critique: the model
was asked, as `prompt`, to rewrite its answer `reject` to `origin_prompt`.
"""

from utils.parsing import PARSERS, Unparsed
from utils.raw_datasets.base import RawDataset, raw_dataset, rest, text
from utils.raw_datasets.dialogue import prompt_of
from utils.raw_datasets.outputs import answers_of
from utils.records import Answer, Record, RecordError, Verdict

PARSER_OF = {"critic": "critique", "refine": "refinement", "prefer": "preference"}
NEW = ("greedy", "sample", "output", "response")  # where the rewritten answer stands


@raw_dataset("feedback-lines")
class FeedbackLines(RawDataset):
    needs = "prompt, feedback_type (critic, refine, prefer), feedback, output: an object of model and text"
    columns = ("prompt", "feedback_type", "feedback", "output", "outputs")
    instead_of = ("prompt_answer",)

    @staticmethod
    def fits(row):
        # A critique that was followed is a pair, and `pairs` reads it.
        if {"chosen", "reject"} <= set(row):
            return False
        return {"prompt", "feedback_type", "feedback"} <= set(row) and bool({"output", "outputs"} & set(row))

    @staticmethod
    def record(row, where):
        """Return the answers with what the words say of them; the words themselves are kept in meta. Where they say
        nothing clear, a preference is `failed`, and meta.unparsed has the reason."""
        prompt, _ = prompt_of(row.get("prompt"), where)
        answers, meta = answers_of(row, where), rest(row, FeedbackLines.columns)
        kind, feedback = text(row, "feedback_type", where=where), text(row, "feedback", where=where)
        if kind not in PARSER_OF:
            raise RecordError(f"{where}: feedback_type is {kind!r}; expected one of {', '.join(PARSER_OF)}")
        if kind == "prefer" and len(answers) != 2:
            raise RecordError(f"{where}: a preference between {len(answers)} answers; expected 2")
        try:
            value = PARSERS[PARSER_OF[kind]].parse(feedback)
        except Unparsed as failed:
            value, meta = None, {**meta, "unparsed": failed.reason}
        meta |= {"feedback_type": kind, "feedback": feedback}
        verdicts = ()
        if kind == "prefer":
            verdicts = (Verdict(0, 1, value or "failed"),)
        elif value is not None:
            first, *others = answers
            answers = (Answer(first.text, first.model, **{PARSER_OF[kind]: value}), *others)
        return Record(prompt, answers, verdicts, where=where, meta=meta)


@raw_dataset("improved")
class Improved(RawDataset):
    needs = f"origin_prompt, reject, and the rewritten answer as {' or '.join(NEW)}; optional critique, model"
    columns = ("prompt", "origin_prompt", "reject", "critique", "feedback", "model", *NEW)
    instead_of = ("chatbot", "prompt_answer")

    @staticmethod
    def fits(row):
        return {"origin_prompt", "reject"} <= set(row) and bool(set(NEW) & set(row))

    @staticmethod
    def record(row, where):
        column = next((name for name in NEW if name in row), NEW[0])
        # Of several sampled answers the first counts.
        if isinstance(row.get(column), list) and row[column]:
            new, *_ = row[column]
            if not isinstance(new, str):
                raise RecordError(f"{where}: column {column!r} is {str(row[column])[:60]!r}; expected text")
        else:
            new = text(row, column, where=where)
        critique = ""
        if {"critique", "feedback"} & set(row):
            critique = text(row, "critique", "feedback", where=where)
        answer = Answer(text(row, "reject", where=where), row.get("model"), critique=critique, refinement=new)
        meta = rest(row, (*Improved.columns, f"{column}_finished"))
        prompt, _ = prompt_of(row.get("origin_prompt"), where)
        return Record(prompt, (answer,), where=where, meta=meta)
