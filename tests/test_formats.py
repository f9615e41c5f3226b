"""Writing formats of other systems: what is written is read again as it was, and what is lost is counted."""

import io
import json
import string
from functools import partial

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_rows import user

from utils.errors import UserError
from utils.formats import FACTS, FORMATS, facts, write
from utils.formats.files import csv_line
from utils.raw_datasets import RAW_DATASETS
from utils.raw_datasets.instructions import MISSING, instruct
from utils.raw_datasets.whole import records_of
from utils.records import Answer, Message, Record, RecordError, Verdict

EXAMPLES = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MARKS = [
    "\n\nHuman: ",
    "\n\nAssistant:",
    "Student: ",
    "\n\n### Input:\n",
    "### Response: ",
    '"',
    ",",
    "\r",
    "\r\n",
    "TL;DR:",
]
ANY = st.characters(exclude_categories=["Cs"])
PIECES = st.one_of(st.text(ANY, max_size=6), st.sampled_from([*MARKS, *sorted(MISSING)]))
TEXT = st.lists(PIECES, min_size=1, max_size=4).map("".join).filter(str.strip)
STRIPPED = TEXT.map(str.strip)
PRESENT = TEXT.filter(lambda text: text not in MISSING)
NAME = st.text(string.ascii_letters, min_size=1, max_size=5)
META = st.dictionaries(NAME, st.one_of(TEXT, st.integers(), st.none(), st.lists(st.booleans())), max_size=2)


@st.composite
def instructed(draw, words=TEXT):
    """prompt and meta of an instruction with an input."""
    return instruct(draw(words), draw(st.one_of(st.just(""), words)))


def alone(words=TEXT):
    return words.map(lambda text: {"prompt": user(text)})


@st.composite
def dialogue(draw, words=STRIPPED):
    system = [Message("system", draw(words))] * draw(st.booleans())
    turns = [Message(role, draw(words)) for _ in range(draw(st.integers(0, 1))) for role in ("user", "assistant")]
    return {"prompt": (*system, *turns, Message("user", draw(words)))}


@st.composite
def said(draw, prompts, answers=TEXT, least=1, most=3, meta=None, **of_answers):
    """A record of one of `prompts`; `of_answers` are more fields of an answer."""
    count = draw(st.integers(least, most))
    fields = [{name: draw(values) for name, values in of_answers.items()} for _ in range(count)]
    asked = draw(prompts)
    asked["meta"] = {**asked.get("meta", {}), **({} if meta is None else draw(meta))}
    return Record(**asked, answers=tuple(Answer(draw(answers), **each) for each in fields))


@st.composite
def judged(draw, prompts, answers=TEXT, says=("a",), judges=None, meta=None, **of_answers):
    record = draw(said(prompts, answers, 2, 2, meta, **of_answers))
    verdict = Verdict(0, 1, draw(st.sampled_from(says)), None if judges is None else draw(judges))
    return Record(record.prompt, record.answers, (verdict,), meta=record.meta)


def rated(record):
    """With what its ratings imply, as it is read."""
    scores = [answer.rating for answer in record.answers]
    pairs = [(a, b) for a in range(len(scores)) for b in range(a + 1, len(scores))]
    says = ["tie" if scores[a] == scores[b] else "a" if scores[a] > scores[b] else "b" for a, b in pairs]
    verdicts = tuple(Verdict(*pair, each, "ratings") for pair, each in zip(pairs, says, strict=True))
    return Record(record.prompt, record.answers, verdicts, meta=record.meta)


MODELS = st.one_of(st.none(), NAME)
RATING = st.one_of(st.integers(-7, 7), st.floats(allow_nan=False, allow_infinity=False))
PAIRS = partial(judged, dialogue(), STRIPPED, meta=META)
KEPT = {  # format -> records that it keeps as they are
    "records": judged(dialogue(TEXT), says=("a", "tie", "failed", "refused"), judges=MODELS, meta=META, model=MODELS),
    "responses": said(instructed(), least=0, meta=META),
    "ratings-csv": said(instructed(PRESENT), PRESENT, most=1),
    "rankings-csv": said(instructed(PRESENT), PRESENT, least=2, most=2),
    "ratings-feedback-csv": said(instructed(PRESENT), PRESENT, rating=RATING).map(rated),
    "rankings-feedback-csv": judged(instructed(PRESENT), PRESENT, says=("a", "b", "tie")),
    "rm-json": judged(instructed()),
    "generations": said(alone(), most=1, meta=META, model=MODELS),
    "generations-n": said(alone(), most=3, meta=META),
    "ratings-eval-csv": said(alone(PRESENT), PRESENT, most=1),
    "rankings-eval-csv": said(alone(PRESENT), PRESENT, least=2, most=2),
    "alpaca-eval": said(alone(), most=1, meta=META, model=MODELS),
    "annotations": judged(alone(), says=("a", "b", "tie", "failed"), judges=MODELS, meta=META, model=MODELS),
    "completions": said(alone()),
    "samples": said(dialogue(), STRIPPED),
    "pairs": PAIRS(),
    "pairs-reject": PAIRS(),
    "hh": PAIRS(),
    "feedback-lines": judged(dialogue(), STRIPPED, says=("a", "b", "tie")),
    "sharegpt": said(dialogue(TEXT), most=1, meta=META),
    "messages": said(dialogue(TEXT), most=1, meta=META),
    "conversations": said(dialogue(), STRIPPED, most=1, meta=META),
    "formatted": judged(dialogue(), STRIPPED),
    "responses-csv": said(dialogue(), STRIPPED, least=2, most=2),
}  # fmt: skip


def adapted(name, record):
    """Names of models that the format needs, and meta that it adds."""
    if name == "responses-csv":
        models = ("gpt", "response")
    elif name == "feedback-lines":
        models = ("m", "n")
    else:
        return record
    answers = tuple(Answer(a.text, model) for a, model in zip(record.answers, models, strict=True))
    return Record(record.prompt, answers, record.verdicts)


def comparable(name, record):
    """What the format itself adds, taken off; pairs have the winner first."""
    adds = {"feedback-lines": ("feedback", "feedback_type"), "conversations": ("id",)}
    meta = {k: v for k, v in record.meta.items() if k not in adds.get(name, ("instruction", "input"))}
    pairs = name in ("pairs", "pairs-reject", "hh", "formatted", "rm-json")
    order = (1, 0) if pairs and record.verdicts and record.verdicts[0].preferred == "b" else range(len(record.answers))
    verdicts = (Verdict(0, 1, "a"),) if pairs else record.verdicts
    return record.prompt, tuple(record.answers[k] for k in order), verdicts, meta


def test_every_format_is_tried_and_can_be_read_as_a_class():
    assert KEPT.keys() == FORMATS.keys() and FORMATS.keys() <= RAW_DATASETS.keys()


@pytest.mark.parametrize("name", KEPT)
def test_what_is_written_is_read_again(tmp_path, name):
    written = 0

    @EXAMPLES
    @given(KEPT[name])
    def check(record):
        nonlocal written
        record, path, refused = adapted(name, record), tmp_path / "file", []
        unsaid = set(facts(record)) - FORMATS[name].keeps
        try:
            tally = write(name, path, [record], refused.append)
        except UserError:
            assert refused  # a text that the format cannot say: never silently another one
            return
        assert not unsaid and set(tally) == {"rows"}
        (read,) = records_of(f"{name}:{path}")
        assert comparable(name, read) == comparable(name, record)
        written += 1

    check()
    assert written >= 10


def test_many_records_are_read_again_in_their_order(tmp_path):
    for name in KEPT:
        if name in ("ratings-csv", "formatted"):
            continue
        records = [adapted(name, record) for record in _distinct(name)]
        write(name, tmp_path / name, records)
        read = list(records_of(f"{name}:{tmp_path / name}"))
        assert [comparable(name, each) for each in read] == [comparable(name, each) for each in records], name


def _distinct(name):
    two = name not in ("generations", "alpaca-eval", "ratings-eval-csv", "sharegpt", "messages", "conversations")
    ranked = "preferences" in FORMATS[name].keeps and name != "records"
    for n in range(4):
        answers = tuple(Answer(f"{word} {n}") for word in ("yes", "no")[: 1 + two])
        verdicts = (Verdict(0, 1, "a"),) if ranked else ()
        record = Record(user(f"question {n}"), answers, verdicts)
        if name == "ratings-feedback-csv":
            record = rated(Record(record.prompt, tuple(Answer(a.text, rating=n) for a in answers)))
        yield record


# ---- bytes, and what is lost


@given(st.lists(st.tuples(*[st.text(ANY, max_size=8).map(lambda text: text.replace("\r", "\r\n"))] * 3), max_size=4))
def test_csv_lines_are_those_of_pandas(rows):
    table = pandas.DataFrame(rows, columns=["a", "b", "c"])
    assert "".join(map(csv_line, [table.columns, *rows])) == table.to_csv(index=False)


def test_a_lone_carriage_return_is_quoted_so_that_pandas_reads_it_again():
    assert csv_line(["a\rb", "c"]) == '"a\rb",c\n'
    assert pandas.read_csv(io.StringIO('x,y\n"a\rb",c\n'))["x"][0] == "a\rb"


FULL_PAIR = ((Answer("y"), Answer("n")), (Verdict(0, 1, "a"),))
FULL = Record(
    (Message("user", "q"),),
    (
        Answer(
            "y ", "m", {"temperature": 1}, finished=False, rating=3, rank=1, thumb=True, critique="c", refinement="r"
        ),
        Answer("n", "m", scores={"rm": 0.5}),
        Answer("z"),
    ),
    (Verdict(0, 1, "a", "gpt4", "ab"), Verdict(0, 1, "tie"), Verdict(1, 0, "failed"), Verdict(1, 0, "refused")),
    id="17",
    meta={"task": "qa"},
)


def test_everything_that_a_record_may_say_has_a_name(tmp_path):
    assert set(facts(FULL)) == set(FACTS) - {"system messages", "earlier turns"}
    assert set(facts(Record((Message("system", "s"), *user("q"), Message("assistant", "a"), *user("r"))))) == {
        "system messages",
        "earlier turns",
    }
    assert list(facts(Record(user("q"), (Answer("a"),)))) == []
    assert write("records", tmp_path / "a.jsonl", [FULL]) == {"rows": 1}


@pytest.mark.parametrize(
    ("name", "rows"), [("responses", 1), ("rankings-csv", 3), ("rankings-feedback-csv", 2), ("completions", 1)]
)
def test_what_a_format_has_no_place_for_is_counted(tmp_path, name, rows):
    tally = write(name, tmp_path / "a", [FULL])
    assert tally == {"rows": rows, **dict.fromkeys(set(facts(FULL)) - FORMATS[name].keeps, 1)}


def test_records_that_have_no_rows_are_counted(tmp_path):
    tie = Record(user("q"), (Answer("a"), Answer("b")), (Verdict(0, 1, "tie"),))
    good = Record(user("q"), (Answer("a"), Answer("b")), (Verdict(0, 1, "b"),))
    assert write("rm-json", tmp_path / "a", [tie, good]) == {"rows": 1, "ties": 1, "records without preferences": 1}
    excluded = Record(user("q"), (Answer("a"),), meta={"dataset": "selfinstruct"})
    included = Record(user("r"), (Answer("a"),), meta={"dataset": "koala"})
    tally = write("ratings-eval-csv", tmp_path / "b", [excluded, included])
    assert tally == {"rows": 1, "further columns": 2, "records of the data set selfinstruct": 1}
    with pytest.raises(UserError, match="c: no rows left to write as rm-json; 1 ties; 1 records without preferences"):
        write("rm-json", tmp_path / "c", [tie])
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("name", "record", "says"),
    [
        ("ratings-csv", Record((Message("system", "s"), *user("q")), (Answer("a"),)), "has system messages, which"),
        ("generations", Record(user("q"), (Answer("a"), Answer("b"))), "several answers, which generations cannot say"),
        ("ratings-csv", Record(user("q"), (Answer("NA"),)), "response is 'NA', which pandas reads as a missing value"),
        ("ratings-csv", Record(user("q"), (Answer(""),)), "response is '', which pandas"),
        ("ratings-csv", Record(user("q\n\n### Input:\nnull"), (Answer("a"),)), "input is 'null', which pandas"),
        ("ratings-csv", Record(user("q"), (Answer("\ud800"),), id="1"), "a text holds half a character: "),
        ("pairs", Record(user("a\n\nHuman: b"), *FULL_PAIR), "would be read with other turns"),
        ("hh", Record(user("q"), (Answer("y\n\nHuman: b"), Answer("n")), FULL_PAIR[1]), "be read as several turns"),
        ("formatted", Record(user("a\nTutorbot: b"), *FULL_PAIR), "would be read with other turns"),
        ("formatted", Record(user("a"), FULL_PAIR[0]), "2 answers, none preferred; expected one, or a verdict"),
        ("conversations", Record(user("a"), ()), None),
        ("conversations", Record((Message("system", "s"), *user("Student: b")), (Answer('{"Tutorbot": "c"}'),)),
         "would be read with other turns"),
        ("feedback-lines", Record(user("a"), *FULL_PAIR), "expected every answer to name its model"),
        ("responses-csv", Record(user("a"), FULL_PAIR[0]), "expected two, one of them of the model 'gpt'"),
        ("generations-n", Record(user("a"), (Answer("a", "m"), Answer("b", "n"))), "answers are of m, n; expected one"),
        ("rankings-eval-csv", Record(user("a"), (Answer("a"),)), "found 1 answers; expected a reference and a model's"),
        ("responses", Record(user("a"), (Answer("a"),), meta={"responses": 1}), "further column is called 'responses'"),
    ],
)  # fmt: skip
def test_a_record_that_a_format_cannot_say(tmp_path, name, record, says):
    path = tmp_path / "a"
    if says is None:
        assert write(name, path, [record])["rows"] == 1
        return
    with pytest.raises(RecordError, match=says):
        write(name, path, [record])
    refused = []
    with pytest.raises(UserError, match="no rows left"):
        write(name, path, [record], refused.append)
    assert says in str(refused[0]) and list(tmp_path.iterdir()) == []


def test_records_of_one_prompt_are_one_key_of_an_object(tmp_path):
    records = [Record(user(q), (Answer(a), Answer(b)), (Verdict(0, 1, "b"),)) for q, a, b in ("qab", "rcd", "qef")]
    write("completions", tmp_path / "a.json", records)
    assert json.loads((tmp_path / "a.json").read_text()) == {"q": ["a", "b", "e", "f"], "r": ["c", "d"]}
    write("rm-json", tmp_path / "b.json", records)
    pairs = [value["sentences"] for value in json.loads((tmp_path / "b.json").read_text()).values()]
    assert pairs == [[["b", "a"], ["f", "e"]], [["d", "c"]]]


def test_half_a_character_is_a_bad_row_and_survives_in_further_columns(tmp_path):
    (tmp_path / "a.json").write_text('{"q\\ud800": ["a"]}')
    with pytest.raises(RecordError, match=r"a.json\[1\]: a text holds half a character: .*--on_bad_row skip"):
        list(records_of(f"completions:{tmp_path / 'a.json'}"))
    record = Record(user("q"), (Answer("a"),), meta={"task": "\ud800"})
    write("responses", tmp_path / "b.json", [record])
    assert list(records_of(f"responses:{tmp_path / 'b.json'}")) == [record]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.json"
    write("completions", path, [FULL])
    before = path.read_bytes()

    def broken():
        yield FULL
        raise RecordError("here")

    with pytest.raises(RecordError, match="here"):
        write("completions", path, broken())
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot be written: .*irectory"):
        write("completions", tmp_path / "new", [FULL])
    with pytest.raises(UserError, match="'csv' is no format that can be written; known: responses"):
        write("csv", path, [FULL])
