"""Files of other systems, made by hand from their formats, as --data_path reads them; and real ones."""

import csv
import json

import pytest
from toy_rows import DATA, mixture, real_data, user

from utils.errors import UserError
from utils.raw_datasets.annotations import preference
from utils.raw_datasets.instructions import MISSING, alpaca_prompt, from_alpaca_prompt, instruct, instruction_of
from utils.raw_datasets.whole import records_of
from utils.records import Answer, Message, Record, RecordError, Verdict

ASKED = user("Name a fruit.")
RED = user("Name a fruit.\n\n### Input:\nred")
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nName a fruit.\n\n### Response: "
)
ALPACA_RED = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\nName a fruit.\n\n### Input:\nred\n\n"
    "### Response: "
)
TUTOR = "System: Help. Student: Q.\nTutorbot: {'Tutorbot': 'Hm?'}\nStudent: ATP\n\nTutorbot:"


def csv_file(path, *rows):
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return path


def json_file(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


# ---- CSV files


def test_ratings_of_one_prompt_become_one_record_with_what_they_imply(tmp_path):
    rows = [("Name a fruit.", "", "Fig.", "6"), ("Why?", "", "So.", "2"), ("Name a fruit.", "nan", "No.", "1.5"),
            ("Name a fruit.", "red", "Fig.", "3"), ("Name a fruit.", "", "Pear\n", "6.0")]  # fmt: skip
    path = csv_file(tmp_path / "feedback.csv", *rows)
    said = ((0, 1, "a"), (0, 2, "tie"), (1, 2, "b"))
    assert list(records_of(f"ratings-feedback-csv:{path}")) == [
        Record(ASKED, (Answer("Fig.", rating=6), Answer("No.", rating=1.5), Answer("Pear\n", rating=6)),
               tuple(Verdict(*v, judge="ratings") for v in said)),
        Record(user("Why?"), (Answer("So.", rating=2),)),
        Record(RED, (Answer("Fig.", rating=3),)),
    ]  # fmt: skip
    stream = mixture(f"ratings-feedback-csv:{path}", eval_holdout=0.0)
    assert [record.pairs() for record in stream] == [[(0, 1), (2, 1)], [], []]
    assert "class ratings-feedback-csv, as asked; 3 rows read" in stream.notes[0]


def test_rankings_of_one_prompt_become_one_record_in_the_order_of_first_decisions(tmp_path):
    rows = [("Why?", "", "a", "b", "equal"), ("Name a fruit.", "", "Fig.", "No.", "(a)"), ("Why?", "", "b", "c", "(b)"),
            ("Name a fruit.", "", "Kiwi.", "Fig.", "(c)"), ("How?", "", "x", "x", "equal")]  # fmt: skip
    path = csv_file(tmp_path / "feedback.txt", *rows)
    assert list(records_of(f"rankings-feedback-csv:{path}")) == [
        Record(ASKED, tuple(map(Answer, ("Fig.", "No.", "Kiwi."))), (Verdict(0, 1, "a"), Verdict(2, 0, "failed"))),
        Record(user("Why?"), tuple(map(Answer, "abc")), (Verdict(0, 1, "tie"), Verdict(1, 2, "b"))),
        Record(user("How?"), (Answer("x"), Answer("x")), (Verdict(0, 1, "tie"),)),
    ]


def test_rows_to_be_rated_or_ranked(tmp_path):
    rated = csv_file(tmp_path / "r.csv", ("instruction", "input", "response"), ("Name a fruit.", "red", 'Fig,\n"é"'))
    ranked = csv_file(
        tmp_path / "k.csv", ("instruction", "input", "response1", "response2"), ("Name a fruit.", "", "\r", "y")
    )
    for name in ("ratings-csv:", "ratings-eval-csv:", ""):
        assert list(records_of(f"{name}{rated}")) == [Record(RED, (Answer('Fig,\n"é"'),))]
    for name in ("rankings-csv:", "rankings-eval-csv:", ""):
        assert list(records_of(f"{name}{ranked}")) == [Record(ASKED, (Answer("\r"), Answer("y")))]


def test_the_texts_that_pandas_reads_as_missing():
    from pandas._libs.parsers import STR_NA_VALUES

    assert STR_NA_VALUES <= MISSING and {"None", "<NA>"} >= MISSING - STR_NA_VALUES  # two that older ones read as text


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        ("ratings-feedback-csv", ("i", "", "NA", "3"), "'output' is 'NA', which pandas reads as a missing value"),
        ("ratings-feedback-csv", ("i", "", "", "3"), "column 'output' is ''"),
        ("ratings-feedback-csv", ("null", "", "o", "3"), "column 'instruction' is 'null'"),
        ("ratings-feedback-csv", ("i", "None", "o", "3"), "column 'input' is 'None'"),
        ("ratings-feedback-csv", ("i", "", "o", "good"), "column 'score' is 'good'; expected a number"),
        ("ratings-feedback-csv", ("i", "", "o", "nan"), "column 'score' is 'nan'; expected a number"),
        ("ratings-feedback-csv", ("i", "", "o"), "has not the 4 fields of instruction,input,output,score"),
        ("ratings-feedback-csv", ("instruction", "input", "output", "score"), "the file has a header; expected none"),
        ("rankings-feedback-csv", ("i", "", "o", "nan", "(a)"), "column 'output2' is 'nan'"),
        ("rankings-feedback-csv", ("instruction", "input", "output1", "output2", "feedback"), "the file has a header"),
    ],
)  # fmt: skip
def test_a_bad_line_names_its_place_and_is_counted(tmp_path, name, row, says):
    good = {"ratings-feedback-csv": ("i", "", "o", "3"), "rankings-feedback-csv": ("i", "", "o", "p", "(b)")}[name]
    path = csv_file(tmp_path / "a.csv", good, row)
    with pytest.raises(RecordError, match=rf"a.csv:2: .*{says}.*--on_bad_row skip".replace("(", r"\(")):
        list(records_of(f"{name}:{path}"))
    stream = mixture(f"{name}:{path}", eval_holdout=0.0, on_bad_row="skip")
    assert len(list(stream)) == 1 and stream.counts["bad rows"] == 1


# ---- one JSON object


def test_pairs_for_a_reward_model(tmp_path):
    value = {
        ALPACA: {"sentences": [["Fig.", "No."], ["Kiwi.", "No."], ["x", "x"]]},
        ALPACA_RED: {"sentences": []},
        ALPACA_RED.replace("\nred\n", "\nnan\n"): {"sentences": [["Fig.", "No."]]},
        "Say fig.": {"sentences": [["Fig.", "No."]]},
    }
    decided = (Verdict(0, 1, "a"), Verdict(2, 1, "a"), Verdict(3, 4, "a"))
    two = (Answer("Fig."), Answer("No."))
    for text in (json.dumps(value), json.dumps(value, indent=1)):
        (tmp_path / "rm.json").write_text(text)
        assert list(records_of(f"rm-json:{tmp_path / 'rm.json'}")) == [
            Record(ASKED, tuple(map(Answer, ("Fig.", "No.", "Kiwi.", "x", "x"))), decided),
            Record(RED),
            Record(ASKED, two, (Verdict(0, 1, "a"),)),
            Record(user("Say fig."), two, (Verdict(0, 1, "a"),)),
        ]


def test_completions_and_samples(tmp_path):
    path = json_file(tmp_path / "a.json", {"Name a fruit.": ["Fig.", "No."], "Human: Why?\n\nAssistant: ": ["So."]})
    first = Record(ASKED, (Answer("Fig."), Answer("No.")))
    assert list(records_of(f"completions:{path}")) == [
        first, Record(user("Human: Why?\n\nAssistant: "), (Answer("So."),))]  # fmt: skip
    assert list(records_of(f"samples:{path}")) == [first, Record(user("Why?"), (Answer("So."),))]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("completions", {"q": "text"}, r"a.json\[1\]: column 'answers' is 'text'; expected a list of texts"),
        ("samples", {"q": [1]}, r"expected a list of texts"),
        ("completions", [["q"]], r"found list; expected one object"),
        ("rm-json", {ALPACA: [["a", "b"]]}, "expected an object with sentences, a list of pairs of texts"),
        ("rm-json", {ALPACA: {"sentences": [["a", "b", "c"]]}}, "expected an object with sentences, a list of pairs"),
    ],
)
def test_objects_of_another_shape(tmp_path, name, value, says):
    with pytest.raises(RecordError, match=says):
        list(records_of(f"{name}:{json_file(tmp_path / 'a.json', value)}"))


def test_the_alpaca_prompt():
    assert alpaca_prompt("Name a fruit.", "") == ALPACA and alpaca_prompt("Name a fruit.", "red") == ALPACA_RED
    for asked in (("i", ""), ("i", "x"), ("a\n\n### Input:\nb", ""), ("i", "  "), ("a\n\n### Input:\nb", "x")):
        record = Record(**instruct(*asked))
        assert instruction_of(record) == asked
        assert alpaca_prompt(*from_alpaca_prompt(alpaca_prompt(*asked))) == alpaca_prompt(*asked)


# ---- AlpacaEval


@pytest.mark.parametrize(
    ("value", "says"),
    [(1, "a"), (2, "b"), (2.0, "b"), (0, "tie"), (1.5, "tie"), (None, "failed"), (-1, "failed"),
     (float("nan"), "failed"), (1.0000048, "a"), (1.9999, "b"), (0.9999, "a"), (1.499999, "tie"),
     (1.2, "a"), (1.8, "b")],
)  # fmt: skip
def test_preferences_of_annotations(value, says):
    assert preference(value, "") == says


@pytest.mark.parametrize("value", [3, 0.5, -2, True, "1", [1]])
def test_other_preferences_are_errors(value):
    with pytest.raises(RecordError, match="expected 1, 2, 0 or 1.5 for a tie, or null"):
        preference(value, "")


def test_annotations_in_a_file_and_in_a_folder(tmp_path):
    rows = [
        {"instruction": "Name a fruit.", "output_1": "No.", "generator_1": "ref", "output_2": "Fig.",
         "generator_2": "m", "annotator": "gpt4", "preference": 2.0, "dataset": "koala"},
        {"instruction": "Why?", "output_1": "a", "output_2": "b", "generator": "m", "preference": 1.0000048},
    ]  # fmt: skip
    json_file(tmp_path / "annotations.json", rows)
    expected = [
        Record(
            ASKED, (Answer("No.", "ref"), Answer("Fig.", "m")), (Verdict(0, 1, "b", "gpt4"),), meta={"dataset": "koala"}
        ),
        Record(user("Why?"), (Answer("a"), Answer("b", "m")), (Verdict(0, 1, "a"),), meta={"preference": 1.0000048}),
    ]
    for path in (tmp_path, f"annotations:{tmp_path}", f"annotations:{tmp_path / 'annotations.json'}"):
        assert list(records_of(str(path))) == expected


@real_data
def test_the_real_annotations_give_the_leaderboards_win_rate():
    folder = DATA / "alpaca_eval"
    verdicts = [record.verdicts[0].preferred for record in records_of(f"annotations:{folder / 'alpaca-7b'}")]
    assert len(verdicts) == 805
    rate = 100 * sum({"a": 0.0, "tie": 0.5, "b": 1.0}[verdict] for verdict in verdicts) / len(verdicts)
    with (folder / "alpaca_eval_gpt4_leaderboard.csv").open() as lines:
        table = {row[""]: row for row in csv.DictReader(lines)}
    assert rate == pytest.approx(26.459627, abs=1e-6) == pytest.approx(float(table["alpaca-7b"]["win_rate"]), abs=1e-6)


# ---- coded tutoring


def test_responses_beside_the_ones_expected(tmp_path):
    rows = ("prompt", "response", "gpt"), (TUTOR, "no dict", "{'Tutorbot': \"It's ATP\", 'n': None}")
    path = csv_file(tmp_path / "responses.csv", *rows)
    said = [Message("system", "Help."), *user("Q."), Message("assistant", "{'Tutorbot': 'Hm?'}"), *user("ATP")]
    expected = Record(
        tuple(said), (Answer('{"Tutorbot": "It\'s ATP", "n": null}', "gpt"), Answer("no dict", "response"))
    )
    assert list(records_of(f"responses-csv:{path}")) == list(records_of(str(path))) == [expected]


def test_conversations_are_read_as_coded_where_they_are(tmp_path):
    def turns(*said):
        return {"id": "identity_1", "conversations": [{"from": f, "value": v} for f, v in said]}

    coded = turns(("human", "Help.\nStudent: Q."), ("gpt", "{'Thoughts of Tutorbot': 't', 'Tutorbot': 'Hm?'}"))
    plain = turns(("human", "Help.\nStudent: Q."), ("gpt", "Hm?"))
    path = json_file(tmp_path / "a.json", [coded, plain])
    assert list(records_of(f"conversations:{path}")) == [
        Record((Message("system", "Help."), *user("Q.")), (Answer('{"Tutorbot": "Hm?"}'),), meta={"id": "identity_1"}),
        Record(user("Help.\nStudent: Q."), (Answer("Hm?"),), meta={"id": "identity_1"}),
    ]


def test_what_the_chatbot_answered(tmp_path):
    row = {"prompt": "q", "chosen": "y", "rejected": "n", "sample": ["a", "b"], "sample_finished": [False, True]}
    path = json_file(tmp_path / "a.json", [row])
    assert list(records_of(str(path))) == [Record(user("q"), (Answer("a", finished=False), Answer("b")))]
    with pytest.raises(RecordError, match="2 answers and 1 marks in sample_finished"):
        list(records_of(str(json_file(tmp_path / "b.json", [row | {"sample_finished": [True]}]))))


def test_a_class_that_reads_files_is_not_of_the_hub(tmp_path):
    import datasets

    datasets.Dataset.from_list([{"a": "b"}]).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match="the class that was named reads files"):
        list(records_of(f"rm-json:{tmp_path / 'saved'}"))
