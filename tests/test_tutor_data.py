"""Tutoring data of coded turns: the split, the cleaning, the prompts, and pairs from a model's own answers."""

import ast
import csv
import json
import random

import pytest

from data_collect import tutor
from utils.feedback.tutor_turns import ACTIONS, EVALUATIONS, FIELDS, INSTRUCTION, STATES, is_valid_reference, why_worse
from utils.raw_datasets.whole import records_of
from utils.records import Message
from utils.world.exchanges import PROBLEMS
from utils.world.tasks import mock_conversation


def turn(evaluation="a", action="1", state="x", said="Not quite.", **more):
    return {**more, **dict(zip(FIELDS, (evaluation, action, state, "Is energy needed?", said), strict=True))}


def conversation(key, *turns, instruction="Old words. Student: "):
    """Turns of student and tutor by turns, the first after the instruction."""
    values = [instruction + turns[0], *turns[1:]]
    names = ["human", "gpt"] * len(values)
    return {"id": key, "conversations": [{"from": n, "value": str(v)} for n, v in zip(names, values, strict=False)]}


def data_sets(folder, *sizes):
    for number, size in enumerate(sizes, start=1):
        rows = [
            conversation(f"{number}-{i}", f"q{number}-{i}", turn(), "It needs ATP.", turn("b")) for i in range(size)
        ]
        (folder / f"bio-dataset-{number}.json").write_text(json.dumps(rows))
    return folder


def read(path):
    return json.loads(path.read_text())


def split(folder, *flags):
    tutor.main(["split", "--data_dir", str(folder), *flags])
    return {name: read(folder / f"bio-{name}.json") for name in ("sft", "dpo", "test")}


def test_the_split_is_the_one_that_the_source_draws(tmp_path):
    """200, 200 and at most 150 of each file; random.seed(42) once, then random.sample from each file in turn."""
    found = split(data_sets(tmp_path, 600, 420, 7))
    random.seed(42)
    expected = {"sft": [], "dpo": [], "test": []}
    for number, size in ((1, 600), (2, 420), (3, 7)):
        drawn = random.sample([f"{number}-{i}" for i in range(size)], min(550, size))
        for name, part in (("sft", drawn[:200]), ("dpo", drawn[200:400]), ("test", drawn[400:])):
            expected[name] += part
    assert {name: [row["id"] for row in rows] for name, rows in found.items()} == expected
    assert [len(rows) for rows in found.values()] == [200 + 200 + 7, 400, 150 + 20]
    assert len(read(tmp_path / "bio-dpo_formatted.json")["prompt"]) == 2 * 400


def test_another_seed_and_other_sizes(tmp_path):
    sizes = ("--num_sft", "3", "--num_dpo", "2", "--num_test", "1")
    first = split(data_sets(tmp_path, 30), *sizes)
    assert [len(rows) for rows in first.values()] == [3, 2, 1]
    assert split(tmp_path, *sizes) == first  # its own output is no input
    assert split(tmp_path, *sizes, "--seed", "7") != first


def test_conversations_are_cleaned_and_cut(tmp_path, capsys):
    """Thoughts go, N/A becomes a code, a turn that cannot be parsed takes the student's turn and the rest with it; a
    conversation that is left with two turns is in the conversations and not in the prompts."""
    na, last = turn("N/A", "N/A", "N/A", **{"Thoughts of Tutorbot": "hm"}), turn("b", "3", "z")
    rows = [
        conversation("whole", "Explain diffusion.", na, "It needs ATP", json.dumps(turn()), "So none?", last),
        conversation("cut", "What is osmosis?", turn(), "Water moves", "{'Tutorbot': ", "And?", turn()),
        conversation("no codes", "What is a cell?", turn(), "A room", turn("b"), "Yes?", {"Tutorbot": "Yes."}),
        conversation("gone", "Why?", "no object", "Why?", turn()),
        conversation("out of turn", "How?", turn(), "So", turn("c"), "And"),
        conversation("short", "Who?", turn()),
    ]
    rows[4]["conversations"][3]["from"] = "human"
    (tmp_path / "bio-dataset-1.json").write_text(json.dumps(rows))
    (tmp_path / "words.txt").write_text("Guide.\n")
    found = split(tmp_path, "--num_sft", "0", "--num_dpo", "6", "--num_test", "0", "--instruction_file",
                  str(tmp_path / "words.txt"))  # fmt: skip
    said = {row["id"]: [t["value"] for t in row["conversations"]] for row in found["dpo"]}
    assert said == {
        "whole": ["Guide.\n\nStudent: Explain diffusion.", str(turn("g", "12", "w")), "It needs ATP", str(turn()),
                  "So none?", str(last)],
        "cut": ["Guide.\n\nStudent: What is osmosis?", str(turn())],
        "no codes": ["Guide.\n\nStudent: What is a cell?", str(turn()), "A room", str(turn("b"))],
        "out of turn": ["Guide.\n\nStudent: How?", str(turn())],
    }  # fmt: skip
    formatted = read(tmp_path / "bio-dpo_formatted.json")
    pairs = dict(zip(formatted["prompt"], formatted["chosen"], strict=True))
    opening = "System: Guide.\n\nStudent: Explain diffusion.\n"
    second = f"{opening}Tutorbot: {turn('g', '12', 'w')}\nStudent: It needs ATP\n"
    assert [prompt for prompt in pairs if "diffusion" in prompt] == [
        f"{opening}\nTutorbot:",
        f"{second}\nTutorbot:",
        f"{second}Tutorbot: {turn()}\nStudent: So none?\n\nTutorbot:",
    ]
    assert pairs[f"{opening}\nTutorbot:"] == str(turn("g", "12", "w"))
    assert len(pairs) == 3 + 2  # of the whole one and of the one without codes
    out = capsys.readouterr().out
    assert "6 conversations, 1 of at most two turns, 5 drawn" in out
    assert "bio-dpo.json: 4 of 5 conversations; 13 turns cut away" in out  # 4 of cut, 2, 4 of gone, 3


def test_the_worlds_lessons_go_all_the_way(tmp_path):
    """Split, then read by the tutoring class as prompts and answers."""
    rng, rows = random.Random(0), []
    for number, problem in enumerate(PROBLEMS.values()):
        lesson = mock_conversation(problem, rng)
        said = [word for t in lesson for word in (t["Student"], {k: v for k, v in t.items() if k != "Student"})]
        rows.append(conversation(f"identity_{number}", *said))
    (tmp_path / "bio-dataset-1.json").write_text(json.dumps(rows))
    found = split(tmp_path, "--num_sft", "10", "--num_dpo", "10")
    assert all("Thoughts" not in str(row) and row["conversations"][0]["value"].startswith(INSTRUCTION.rstrip())
               for row in found["dpo"])  # fmt: skip
    records = list(records_of(str(tmp_path / "bio-dpo_formatted.json")))
    assert len(records) == sum(len(row["conversations"]) // 2 for row in found["dpo"]) == 50
    assert records[0].prompt[0] == Message("system", INSTRUCTION.strip())
    assert set(ast.literal_eval(records[0].answers[0].text)) == set(FIELDS)
    assert len(list(records_of(f"tutoring:{tmp_path / 'bio-sft.json'}"))) == 10


def test_test_questions_that_are_trained_on_are_reported(tmp_path, capsys):
    rows = [conversation(i, "the same question", turn(), "so?", turn()) for i in range(3)]
    (tmp_path / "bio-dataset-1.json").write_text(json.dumps(rows))
    split(tmp_path, "--num_sft", "2", "--num_dpo", "0", "--num_test", "1")
    assert "1 of 1 test conversations open with a question that is also trained on" in capsys.readouterr().out


def test_the_instruction_names_every_code():
    codes = [*EVALUATIONS, *STATES, *(code for ways in ACTIONS.values() for code in ways)]
    assert len(codes) == 7 + 4 + 12 and set(ACTIONS) == set(EVALUATIONS)
    assert all(f"\n{code}" in INSTRUCTION for code in codes) and all(name in INSTRUCTION for name in FIELDS)


# ---- pairs

GPT = turn("a", "1", "x")
CASES = [  # the model's turn, why the teacher's is preferred
    ("Not quite, think again.", "unparsable"),
    ("", "unparsable"),
    ("{'Tutorbot': ", "unparsable"),
    ("['a', '1', 'x']", "unparsable"),
    ({"Tutorbot": "Not quite."}, "incomplete"),
    (dict.fromkeys(FIELDS, ""), "incomplete"),
    (turn("b", "1", "x"), "evaluation"),
    (turn("b", "2", "y"), "evaluation"),  # the first that differs
    (turn("a", "2", "y"), "action"),
    (turn("a", "1", "y"), "state"),
    (turn("a", 1, "x"), None),  # a number is its digits
    (turn(" a", "1 ", "x", said="Other words."), None),
    (json.dumps({**turn(), "Tutorbot": None}), None),  # JSON's spelling, with a null
]


@pytest.mark.parametrize("response, reason", CASES)
def test_why_the_teachers_turn_is_preferred(response, reason):
    assert why_worse(str(response), GPT) == reason


@pytest.mark.parametrize(
    "reference, valid",
    [
        (turn("g", "12", "w"), True),
        (turn("a, c"), False),
        (turn("a", "123"), False),
        (turn("a", "1", ""), False),
        (turn("a", 1), False),
        ({"Tutorbot": "Hm."}, False),
        (None, False),
    ],
)
def test_a_teachers_turn_needs_codes_of_the_right_length(reference, valid):
    assert is_valid_reference(reference) is valid


def responses(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("prompt", "response", "gpt"))
        writer.writerows(rows)
    return str(path)


def pairs(tmp_path, *flags):
    tutor.main(
        ["pairs", "--response_file", str(tmp_path / "responses.csv"), "--data_file", str(tmp_path / "p.json"), *flags]
    )
    return read(tmp_path / "p.json")


def test_pairs_keep_their_reason(tmp_path, capsys):
    rows = [(f"p{i}", response, GPT) for i, (response, _) in enumerate(CASES)]
    rows += [("bad", "x", turn("aa")), ("worse", "x", "no object")]
    responses(tmp_path / "responses.csv", rows)
    found = pairs(tmp_path)
    kept = [(i, response, reason) for i, (response, reason) in enumerate(CASES) if reason]
    assert found == {
        "prompt": [f"p{i}" for i, _, _ in kept],
        "chosen": [str(GPT)] * 10,
        "rejected": [str(response) for _, response, _ in kept],
        "reason": [reason for _, _, reason in kept],
    }
    out = capsys.readouterr().out
    assert "retained 10 of 15 rows (66.67%)" in out
    assert "unparsable 4, incomplete 2, evaluation 2, action 1, state 1, the same codes 3, invalid references 2" in out


def test_use_all_keeps_every_row_of_a_valid_reference(tmp_path):
    rows = [("p", turn(), GPT), ("q", json.dumps(turn()), GPT), ("r", "x", turn("aa"))]
    responses(tmp_path / "responses.csv", rows)
    found = pairs(tmp_path, "--use_all")
    assert found["prompt"] == ["p", "q"] and found["rejected"] == [str(turn()), json.dumps(turn())]
    assert found["reason"] == ["none", "none"]


def test_the_pairs_are_read_as_comparisons(tmp_path):
    prompt = "System: Guide. Student: Explain diffusion.\n\nTutorbot:"
    responses(tmp_path / "responses.csv", [(prompt, 'Particles\nspread, "so".', GPT), (prompt, turn("b"), GPT)])
    pairs(tmp_path)
    first, second = records_of(str(tmp_path / "p.json"))
    assert first.prompt == (Message("system", "Guide."), Message("user", "Explain diffusion."))
    assert [answer.text for answer in first.answers] == [str(GPT), 'Particles\nspread, "so".']
    assert first.pairs() == [(0, 1)] and second.meta == {"reason": "evaluation"}
