"""convert.py: the bytes of other systems' own scripts, both ways, folders, two files, and what it says."""

import io
import json
import random
import re

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import run
from toy_rows import DATA, HELLO, real_data, user
from toys import ROOT

from utils.feedback.conversions import together
from utils.formats import FORMATS
from utils.outputs import is_own
from utils.raw_datasets.instructions import MISSING
from utils.raw_datasets.whole import records_of
from utils.records import Answer, Record, content_id
from utils.records.files import write_jsonl

PROGRAM = ROOT / "data_collect" / "convert.py"
NASTY = ['say "hi"', "a,b", "two\nlines", "dos\r\nlines", " space ", "é 漢 🙂", "'single'", "tab\t", "#", "\\n", "0"]
TEXT = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
TEXT = TEXT.map(lambda text: re.sub("\r(?!\n)", "", text)).filter(lambda text: text.strip() and text not in MISSING)
INPUT = st.one_of(st.just(""), TEXT)
EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def convert(tmp_path, capsys):
    """convert(from, to, content or path, …, *flags) -> (the output's bytes, what was said)."""

    def run_it(source, target, *inputs, flags=(), output=tmp_path / "output"):
        paths = []
        for number, content in enumerate(inputs):
            paths.append(content)
            if isinstance(content, bytes | list | dict):
                paths[-1] = tmp_path / f"input{number}"
                paths[-1].write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        words = ("--from", source, "--to", target, "--input", *paths, "--output", output, *flags)
        assert run(PROGRAM, *words) == 0, capsys.readouterr().err
        return output.read_bytes() if output.is_file() else None, capsys.readouterr().out

    return run_it


# ---- what the sources' scripts do with pandas and json


def table(rows, *names):
    return pandas.DataFrame(rows, columns=list(names)).to_csv(index=False).encode()


def their_ratings(rows):
    lines = [(r["instruction"], r["input"], answer) for r in rows for answer in r["responses"]]
    return table(lines, "instruction", "input", "response")


def their_rankings(rows):
    lines = []
    for row in rows:
        for i in range(len(row["responses"])):
            for j in range(i + 1, len(row["responses"])):
                lines.append((row["instruction"], row["input"], row["responses"][i], row["responses"][j]))
    return table(lines, "instruction", "input", "response1", "response2")


def their_pairs(feedback):
    names = ["instruction", "input", "output1", "output2", "feedback"]
    frame = pandas.read_csv(io.BytesIO(feedback), names=names, dtype=str).drop_duplicates()
    head = "Below is an instruction that describes a task"
    rest = ". Write a response that appropriately completes the request.\n\n### Instruction:\n"
    found = {}
    for row in frame.itertuples():
        prompt = f"{head}{rest}{row.instruction}\n\n### Response: "
        if isinstance(row.input, str):
            context = ", paired with an input that provides further context"
            prompt = f"{head}{context}{rest}{row.instruction}\n\n### Input:\n{row.input}\n\n### Response: "
        if row.feedback == "(a)":
            found.setdefault(prompt, {"sentences": []})["sentences"].append([row.output1, row.output2])
        if row.feedback == "(b)":
            found.setdefault(prompt, {"sentences": []})["sentences"].append([row.output2, row.output1])
    return json.dumps(found).encode()


def headerless(rows):
    return pandas.DataFrame(rows).to_csv(index=False, header=False).encode()


RESPONSES = st.lists(
    st.fixed_dictionaries({"instruction": TEXT, "input": INPUT, "responses": st.lists(TEXT, min_size=2, max_size=4)}),
    min_size=1, max_size=3,
)  # fmt: skip
RANKED = st.lists(
    st.tuples(st.sampled_from(["q", "r\n"]), st.sampled_from(["", "x"]), TEXT, TEXT,
              st.sampled_from(["(a)", "(b)", "equal"])),
    min_size=1, max_size=6,
)  # fmt: skip


def test_sampled_answers_to_the_rows_to_be_rated_and_ranked(convert):
    @EXAMPLES
    @given(RESPONSES)
    def check(rows):
        assert convert("responses", "ratings-csv", rows)[0] == their_ratings(rows)
        assert convert("responses", "rankings-csv", rows)[0] == their_rankings(rows)

    check()


def test_rankings_to_pairs_for_a_reward_model(convert):
    @EXAMPLES
    @given(RANKED, st.integers(0, 99))
    def check(rows, seed):
        rows = rows + random.Random(seed).choices(rows, k=2)  # a script that was run again appended them
        rows.append(("q", "", "better", "worse", "(b)"))
        feedback = headerless(rows)
        assert convert("rankings-feedback-csv", "rm-json", feedback)[0] == their_pairs(feedback)

    check()


def test_prompts_are_in_the_order_of_their_first_decision(convert):
    rows = [
        ("p", "", "a", "b", "equal"),
        ("q", "", "a", "b", "(a)"),
        ("p", "", "a", "c", "(b)"),
        ("r", "", "a", "b", "?"),
    ]
    written, _ = convert("rankings-feedback-csv", "rm-json", headerless(rows))
    assert written == their_pairs(headerless(rows)) and written.index(b"nq") < written.index(b"np")


def test_an_input_that_pandas_wrote_as_nan_is_none(convert):
    written, _ = convert("rankings-feedback-csv", "rm-json", b"q,nan,a,b,(a)\nq,,a,b,(a)\n")
    assert written == their_pairs(b"q,nan,a,b,(a)\n") and b"Input" not in written


GENERATIONS = [
    {"dataset": "koala", "generator": "m", "instruction": "q\n\n### Input:\nx", "output": 'a, "b"'},
    {"dataset": "selfinstruct", "generator": "m", "instruction": "r", "output": "NA"},
    {"dataset": "koala", "generator": "m", "instruction": "s", "output": "c\nd"},
    {"dataset": "oasst", "generator": "m", "instruction": "s", "output": "e"},
]


def test_outputs_to_the_rows_to_be_rated(convert):
    written, said = convert("generations", "ratings-eval-csv", GENERATIONS)
    kept = [(r["instruction"], "", r["output"]) for r in GENERATIONS if r["dataset"] != "selfinstruct"]
    assert written == table(kept, "instruction", "input", "response")
    assert "output: 3 rows of ratings-eval-csv" in said and "records of the data set selfinstruct (1)" in said


def test_two_files_of_outputs_to_the_rows_to_be_ranked(convert):
    model = [{**row, "output": f"new {row['output']}"} for row in reversed(GENERATIONS[1:])]
    reference = [{**row, "output": row["output"].replace("NA", "ok")} for row in GENERATIONS]
    written, _ = convert("generations", "rankings-eval-csv", reference, model)
    rows = [("s", "", "e", "new e"), ("s", "", "e", "new c\nd"), ("r", "", "ok", "new NA")]
    assert written == table(rows, "instruction", "input", "response1", "response2")


@real_data
def test_real_answers_give_the_bytes_of_the_scripts_and_come_back(convert, tmp_path):
    path = DATA / "sparse_feedback" / "sample_generation.json"
    rows = json.loads(path.read_text())
    rated, _ = convert("responses", "ratings-csv", path)
    assert rated == their_ratings(rows) and pandas.read_csv(io.BytesIO(rated)).notna().all().all()
    assert json.loads(convert("ratings-csv", "responses", rated)[0]) == rows
    ranked, _ = convert("responses", "rankings-csv", path)
    assert ranked == their_rankings(rows)
    back = json.loads(convert("rankings-csv", "responses", ranked)[0])
    assert [{*row["responses"]} for row in back] == [{*row["responses"]} for row in rows]
    feedback = [
        (*line, ("(a)", "(b)", "equal")[n % 3]) for n, line in enumerate(pandas.read_csv(io.BytesIO(ranked)).values)
    ]
    written, _ = convert("rankings-feedback-csv", "rm-json", headerless(feedback))
    assert written == their_pairs(headerless(feedback))
    outputs = DATA / "alpaca_eval" / "alpaca-7b" / "model_outputs.json"
    kept = [
        (r["instruction"], "", r["output"]) for r in json.loads(outputs.read_text()) if r["dataset"] != "selfinstruct"
    ]
    assert convert("generations", "ratings-eval-csv", outputs)[0] == table(kept, "instruction", "input", "response")
    assert len(kept) == 553


@real_data
def test_real_annotations_come_back(convert):
    path = DATA / "alpaca_eval" / "alpaca-7b" / "annotations.json"
    records, said = convert("annotations", "records", path.parent)
    assert "805 rows of records" in said and "warning" not in said
    rows = json.loads(convert("records", "annotations", records)[0])
    assert rows == json.loads(path.read_text())


@real_data
def test_a_folder_of_train_and_test_files_becomes_another(convert, tmp_path):
    source, target = DATA / "hh-rlhf" / "helpful-base", tmp_path / "new" / "pairs"
    _, said = convert("hh", "pairs", source, output=target)
    written = {path.name for path in target.iterdir() if not path.name.startswith(".")}
    assert written == {"test.jsonl", "train.jsonl"} and list(tmp_path.glob("new/*")) == [target]
    assert all(is_own("convert.py", target / name) for name in written)
    assert "pairs that differ before the last turn" in said
    assert list(records_of(str(target))) == list(records_of(str(source)))
    convert("pairs", "hh", target, output=tmp_path / "both.jsonl")
    assert list(records_of(str(tmp_path / "both.jsonl"))) == list(records_of(str(source)))


# ---- rows made by hand, there and back


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("pairs", [{"prompt": HELLO, "chosen": " Fig.", "rejected": " No.", "task": "qa"}]),
        ("pairs-reject", [{"prompt": HELLO.strip(), "chosen": "Fig.", "reject": "No.", "difficulty": "hard"}]),
        ("pairs-reject", [{"prompt": "Human: POST x\n\nAssistant: TL;DR:", "chosen": "s", "reject": "t"}]),
        ("hh", [{"chosen": HELLO + " Fig.", "rejected": HELLO + " No."}]),
        ("feedback-lines", [{"prompt": HELLO.strip(), "outputs": {"m": "Fig.", "n": "No."}, "task": "qa", "loss": 1.5,
          "difficulty": "hard", "feedback_type": "prefer", "feedback": "I say (B), because.", "prompt-api": "x"}]),
        ("feedback-lines", [{"prompt": HELLO.strip(), "outputs": {"m": "Fig.", "n": "No."}, "feedback_type": "refine",
          "feedback": "Too short. A better answer is: A fig."}]),
        ("messages", [{"messages": [{"role": "user", "content": " q"}, {"role": "assistant", "content": "a"}]}]),
    ],
)  # fmt: skip
def test_json_lines_there_and_back(convert, name, rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    records, _ = convert(name, "records", lines)
    back, said = convert("records", name, records)
    assert [json.loads(line) for line in back.splitlines()] == rows


CODED = '{"Evaluation of Student Response": "a", "Subproblem State": "x", "Tutorbot": "Not quite"}'
LESSON = {
    "id": "identity_3",
    "conversations": [
        {"from": "human", "value": "Help.\nStudent: Q. Explain diffusion."},
        {"from": "gpt", "value": '{"Tutorbot": "Hm?"}'},
        {"from": "human", "value": "it needs ATP"},
        {"from": "gpt", "value": CODED},
    ],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conversations", [LESSON]),
        ("sharegpt", [{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}], "n": 1}]),
        ("responses", [{"instruction": "i", "input": "x", "responses": ["a", ""], "source": "dolly"}]),
        ("generations", GENERATIONS),
        ("generations-n", [{"dataset": "d", "generator": "m", "instruction": "i", "outputs": ["a", "b"]}]),
        ("alpaca-eval", [{"instruction": "i", "output": "o", "generator": "m", "dataset": "koala"}]),
        ("completions", {"i": ["a"], "j\n": ["b", "c"]}),
        ("samples", {"Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: ": ["x ", "y"]}),
        ("formatted", {"prompt": ["System: s Student: q\n\nTutorbot:", "Student: r\n\nTutorbot:"],
                       "chosen": ["a", "b"]}),
        ("formatted", {"prompt": [f"Student: q\nTutorbot: {CODED}\nStudent: r\n\nTutorbot:", "Student: r\n\nTutorbot:"],
                       "chosen": ["a", "c"], "rejected": ["b", "d"]}),
    ],
)  # fmt: skip
def test_json_files_there_and_back(convert, name, value):
    records, _ = convert(name, "records", value)
    assert json.loads(convert("records", name, records)[0]) == value


def test_csv_files_there_and_back(convert):
    feedback = b'i,,"a\r\n",5\ni,,b,4.5\nj,x,"c\rd",1\n'
    assert (
        convert("records", "ratings-feedback-csv", convert("ratings-feedback-csv", "records", feedback)[0])[0]
        == feedback
    )
    rankings = b'i,,"a,",b,(a)\ni,,b,c,equal\nj,x,"""",y,(b)\n'
    assert (
        convert("records", "rankings-feedback-csv", convert("rankings-feedback-csv", "records", rankings)[0])[0]
        == rankings
    )
    tutor = b"prompt,response,gpt\n\"Student: q\n\nTutorbot:\",no idea,\"{'Tutorbot': 'Hm?', 'n': None}\"\n"
    assert convert("records", "responses-csv", convert("responses-csv", "records", tutor)[0])[0] == tutor


def test_ratings_imply_pairs(convert):
    written, said = convert("ratings-feedback-csv", "rm-json", b"i,,a,5\ni,,b,2\ni,,c,5\n")
    (pairs,) = json.loads(written).values()
    assert pairs == {"sentences": [["a", "b"], ["c", "b"]]} and "no place for" in said and "ratings (1)" in said


def test_a_conversation_gives_a_formatted_row_for_every_tutor_turn(convert):
    written, _ = convert("conversations", "formatted", [LESSON])
    first = "System: Help. Student: Q. Explain diffusion.\n"
    assert json.loads(written) == {
        "prompt": [f"{first}\nTutorbot:", first + 'Tutorbot: {"Tutorbot": "Hm?"}\nStudent: it needs ATP\n\nTutorbot:'],
        "chosen": ['{"Tutorbot": "Hm?"}', CODED],
    }


def test_sampled_answers_of_the_chatbot(convert, tmp_path):
    answers = tuple(Answer(text, "sft", {"temperature": 0.7}) for text in ("a", "b", "a"))
    write_jsonl(tmp_path / "records.jsonl", [Record(user("i\n\n### Input:\nx"), answers, meta={"dataset": "koala"})])
    plain = b'{"instruction": "i", "input": "x", "dataset": "koala", "sample": ["a", "b", "a"]}\n'
    row = {"instruction": "i", "input": "x", "responses": ["a", "b", "a"], "dataset": "koala"}
    outputs = {"dataset": "koala", "generator": "sft", "instruction": "i\n\n### Input:\nx", "outputs": ["a", "b", "a"]}
    for name, source, generator in (("records", tmp_path / "records.jsonl", "sft"), ("chatbot", plain, "")):
        assert json.loads(convert(name, "responses", source)[0]) == [row]
        assert json.loads(convert(name, "generations-n", source)[0]) == [outputs | {"generator": generator}]


def test_bad_rows_are_left_out_when_asked_and_counted(convert):
    rows = [{"instruction": "i", "input": "", "responses": ["a", "null", "b"]}, {"instruction": "j"}]
    written, said = convert("responses", "ratings-csv", rows, flags=("--on_bad_row", "skip"))
    assert written == b"instruction,input,response\ni,,a\ni,,b\n"
    assert re.search(r"1 bad rows left out \(first: .*input0\[1\]: response is 'null'", said)
    assert re.search(r"input0: 1 bad rows \(first: .*input0\[2\]: column 'responses' is 'None'", said)
    reference = [row for row in GENERATIONS if row["instruction"] != "s"]
    written, said = convert("generations", "rankings-eval-csv", reference, GENERATIONS, flags=("--on_bad_row", "skip"))
    assert len(written.splitlines()) > 1 and b"s," not in written and "has no answer to 's'" in said


# ---- the list


def test_the_list_names_every_format_and_what_directions_lose(capsys):
    assert run(PROGRAM, "--list") == 0
    said = capsys.readouterr().out
    assert all(f"  {name}: {form.about}" in said for name, form in FORMATS.items())
    assert all(f"\n  {name} -> " in said for name in FORMATS)
    assert run(PROGRAM, "--list", "--from", "responses") == 0
    said = capsys.readouterr().out.splitlines()
    assert "  responses -> ratings-csv*, rankings-eval-csv: drops further columns" in said
    assert "  responses -> generations-n, records: drops nothing" in said
    assert all(line.startswith("  responses -> ") and "rm-json" not in line for line in said if " -> " in line[:30])
    assert run(PROGRAM, "--list", "--from", "annotations", "--to", "rm-json") == 0
    assert capsys.readouterr().out.endswith(
        "annotations -> rm-json: drops models, ties, failures, judges, further columns\n"
    )


def test_the_rows_of_one_instruction_are_joined_once(monkeypatch):
    """An id is a hash of all answers of a record: 500 are made for the rows, and one for each joined record."""
    hashed = []

    def counted(prompt, answers):
        hashed.append(len(answers))
        return content_id(prompt, answers)

    monkeypatch.setattr("utils.records.content_id", counted)
    rows = [Record(user("q"), (Answer(f"a{number % 300}"),)) for number in range(500)]
    (joined,) = together(rows)
    (distinct,) = together(rows, distinct=True)
    assert len(joined.answers) == 500 and len(distinct.answers) == 300
    assert sum(hashed) == 500 + 500 + 300
