"""inference/tutoring.py: the worked values of Tutorbot-Spock's script, generation and perplexity with a real model."""

import ast
import csv
import dataclasses
import json
import math
import random

import pytest
import torch
from in_process import run
from test_tutor_data import conversation, turn
from toy_folders import lm_folder
from toys import ROOT

from data_collect import tutor
from utils.answering.inference_model import InferenceModel
from utils.arguments.inference import ReaderArguments
from utils.evaluation.tutoring import Coded, accuracy, hint_and_solution, macro_f1
from utils.raw_datasets.tutoring import Tutoring
from utils.records import Answer
from utils.world.exchanges import PROBLEMS
from utils.world.tasks import mock_conversation

PROGRAM = ROOT / "inference" / "tutoring.py"
WORKED = {  # six turns; the fifth answer cannot be parsed, the sixth lacks action and state
    "evaluation": (("a", "a", "b", "c", "b", "c"), ("a", "a", "b", "b", "", "c")),
    "action": (("1", "1", "3", "4", "3", "4"), ("1", "2", "3", "3", "", "")),
    "state": (("x", "x", "y", "x", "z", "x"), ("x", "x", "y", "y", "", "")),
}
FIELDS = ("Evaluation of Student Response", "Action Based on Evaluation", "Subproblem State")


def responses(path, rows):
    """responses.csv of (prompt, response, gpt)."""
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([("prompt", "response", "gpt"), *rows])
    return path


def worked(path):
    rows = []
    for n in range(6):
        actual = turn(*(values[0][n] for values in WORKED.values()))
        predicted = str(turn(*(values[1][n] for values in WORKED.values())))
        if n == 4:
            predicted = "I would say it is right."
        if n == 5:
            predicted = str({FIELDS[0]: "c"})
        prompt = f"System: Teach. Student: q{n}\nTutorbot: {turn()}\nStudent: it needs ATP\n\nTutorbot:"
        rows.append((prompt, predicted, str(actual)))
    first = ("System: Teach. Student: q0\n\nTutorbot:", str(turn("g", "12", "w")), str(turn("g", "12", "w")))
    invalid = ("System: Teach. Student: q1\n\nTutorbot:", str(turn()), str(turn(evaluation="aa")))
    return responses(path, [*rows, first, invalid])


@pytest.fixture
def measured(tmp_path, capsys):
    def measured(path, *words, mode="metrics", flag="--response_file"):
        capsys.readouterr()
        assert run(PROGRAM, mode, flag, path, *words, "--json", tmp_path / "out.json") == 0
        return json.loads((tmp_path / "out.json").read_text()), capsys.readouterr().out

    return measured


@pytest.mark.parametrize("quirk", [(), ("--quirk",)])
def test_the_worked_values(measured, tmp_path, quirk):
    """Everywhere a prediction is empty, so that the source's script drops the right label, and both ways agree."""
    found, said = measured(worked(tmp_path / "responses.csv"), *quirk)
    expected = {"evaluation": (0.6667, 0.7222), "action": (0.3333, 0.2917), "state": (0.5, 0.4444)}
    for name, (share, f1) in expected.items():
        assert found[name]["accuracy"]["value"] == pytest.approx(share, abs=5e-5)
        assert found[name]["macro_f1"]["value"] == pytest.approx(f1, abs=5e-5)
        assert found[name]["macro_f1"]["low"] <= f1 <= found[name]["macro_f1"]["high"]
    assert found["n"] == 6 and found["evaluation"]["accuracy"]["n"] == 6
    assert "1 cannot be parsed; left out: 1 first turns, 1 invalid references" in said


def test_first_turns_are_counted_when_they_are_kept(measured, tmp_path):
    found, _ = measured(worked(tmp_path / "responses.csv"), "--first_turns", "keep")
    assert found["n"] == 7 and found["evaluation"]["accuracy"]["value"] == pytest.approx(5 / 7)
    # The first turn and a later one of q0 are one conversation.
    assert found["evaluation"]["accuracy"]["n"] == 6


def codes(actual, predicted):
    return [Coded(f"{n}", *pair) for n, pair in enumerate(zip(actual, predicted, strict=True))]


def test_the_sources_quirk_loses_a_class_where_no_prediction_is_empty():
    """a: 2/3, b: 2 * 1 / (2 + 2) = 1/2, c: 0; without a the mean is 1/4."""
    of_four = codes("aabc", "abbb")
    assert macro_f1(of_four, 0).value == pytest.approx(7 / 18) and round(7 / 18, 4) == 0.3889
    assert macro_f1(of_four, 0, quirk=True).value == pytest.approx(0.25)
    assert accuracy(of_four, 0).value == 0.5


def test_turns_of_one_conversation_are_no_further_conversations():
    rng = random.Random(0)
    once = codes(rng.choices("abc", k=60), rng.choices("abc", k=60))
    fourfold = [code for code in once for _ in range(4)]
    assert macro_f1(fourfold, 1) == pytest.approx(macro_f1(once, 1))
    assert math.isnan(macro_f1(once[:1], 0).low) and macro_f1(once[:1], 0).n == 1


def test_hints_and_solutions_are_pooled_by_tokens():
    """1: exp(6 / 3); 1 and 4 together: exp((6 + 2) / (3 + 5))."""
    found = hint_and_solution([("1", 6.0, 3), ("2", 8.0, 2), ("4", 2.0, 5), ("9", 1.0, 1)])
    assert found["1"]["perplexity"] == pytest.approx(math.exp(2)) and found["5"]["perplexity"] is None
    assert found["hint, 1+4"] == {"perplexity": pytest.approx(math.e), "turns": 2, "tokens": 8}
    assert found["solution, 2+5"]["perplexity"] == pytest.approx(math.exp(4))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return lm_folder(tmp_path_factory.mktemp("model") / "lm")


def test_from_the_split_to_metrics(model, tmp_path, measured):
    """The built-in world's conversations: split, answered, measured; the same command changes nothing."""
    draw = random.Random(0)
    rows = []
    for number, problem in enumerate(list(PROBLEMS.values())[:3]):
        turns = []
        for each in mock_conversation(problem, draw):
            turns += [each.pop("Student"), each]
        rows.append(conversation(f"c{number}", *turns, instruction="Teach. Student: "))
    (tmp_path / "bio-dataset-1.json").write_text(json.dumps(rows))
    (tmp_path / "words.txt").write_text("Teach.")
    tutor.main(["split", "--data_dir", str(tmp_path), "--num_sft", "1", "--num_dpo", "1", "--num_test", "1",
                "--instruction_file", str(tmp_path / "words.txt")])  # fmt: skip
    split = json.loads((tmp_path / "bio-test_formatted.json").read_text())
    words = ("--model_name_or_path", model, "--data_path", tmp_path / "bio-test_formatted.json", "--template",
             "human_assistant", "--max_new_tokens", 8, "--max_prompt_seq_len", 100)  # fmt: skip
    out = tmp_path / "eval" / "responses.csv"
    assert run(PROGRAM, "generate", *words, "--output_path", out) == 0
    written = out.read_bytes()
    with out.open(newline="") as lines:
        answered = list(csv.DictReader(lines))
    assert [row["prompt"] for row in answered] == split["prompt"] and all(row["response"] for row in answered)
    assert [ast.literal_eval(row["gpt"]) for row in answered] == list(map(ast.literal_eval, split["chosen"]))
    assert run(PROGRAM, "generate", *words, "--output_path", out) == 0 and out.read_bytes() == written
    found, said = measured(out)
    assert found["n"] == len(split["prompt"]) - 1 and found["evaluation"]["accuracy"]["n"] == 1
    assert f"{found['n']} cannot be parsed" in said and found["action"]["macro_f1"]["value"] == 0
    assert run(ROOT / "data_collect/tutor.py", "pairs", "--response_file", out, "--data_file", tmp_path / "p.json") == 0
    assert len(json.loads((tmp_path / "p.json").read_text())["rejected"]) == len(split["prompt"])


def perplexity_set(path):
    pairs = [(turn("a", "1"), turn("a", "2")), (turn("c", "4"), turn("c", "5")), (turn("b", "3"), turn("a", "2"))]
    rows = []
    for number, (original, alternative) in enumerate(pairs):
        rows.append(conversation(f"{number}", f"q{number}", original, instruction="Teach. Student: "))
        rows[-1]["conversations"].append({"from": "gpt", "value": str({**alternative, "Tutorbot": "It is 4."})})
    path.write_text(json.dumps(rows))
    return rows


@pytest.mark.parametrize("quirk", [False, True])
def test_perplexity_of_hints_and_solutions(model, tmp_path, measured, quirk):
    """Against transformers' own logits of each turn alone; the third conversation has no such pair."""
    path = tmp_path / "ppl.json"
    rows = perplexity_set(path)
    words = ["--model_name_or_path", model, "--template", "human_assistant", *(["--quirk"] if quirk else [])]
    found, _ = measured(path, *words, mode="perplexity", flag="--data_path")
    reader = InferenceModel(ReaderArguments(model, template="human_assistant"))
    sums = []
    for row, actions in zip(rows, (("1", "2"), ("4", "5")), strict=False):
        question, *answers = row["conversations"]
        for action, answer in zip(actions, answers, strict=True):
            record = Tutoring.record({"conversations": [question, answer]}, "here")
            prompt = reader.prompt(record, 1 << 20)
            said = dataclasses.replace(record, answers=(Answer(record.answers[0].text, finished=False),))
            (ids,) = (answer.tolist() for answer in reader.group(said, 0).answers)
            assert reader.renderer.tokenizer.decode(ids).strip() == record.answers[0].text
            logits = reader.model(torch.tensor([prompt + ids])).logits[0].float().log_softmax(-1)
            nll = -sum(float(logits[len(prompt) + n - 1, token]) for n, token in enumerate(ids))
            sums.append((action, nll, len(ids) - quirk))
    expected = hint_and_solution(sums)
    for name, each in expected.items():
        assert found[name]["tokens"] == each["tokens"]
        assert found[name]["perplexity"] == pytest.approx(each["perplexity"], rel=1e-4)
    assert (found["conversations"], found["left_out"]) == (2, 1)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prompt,response\na,b\n", "found the columns prompt, response; expected prompt, response, gpt"),
        ("prompt,response,gpt\na,b,c\n", "no turn is left of {'rows': 1, 'invalid references': 1}"),
        ('prompt,response,gpt\na,b,"c\n', "responses.csv"),
    ],
)
def test_wrong_responses_are_one_line(tmp_path, capsys, text, line):
    path = tmp_path / "responses.csv"
    path.write_text(text)
    assert run(PROGRAM, "metrics", "--response_file", path) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"conversations": [{"from": "human", "value": "q"}]}, "expected conversations of a history and two"),
        (
            conversation("1", "q", turn("b", "3"), "yes", turn("b", "3")),
            "the last three turns are by assistant, user, assistant; expected the student",
        ),
    ],
)
def test_wrong_conversations_are_one_line(model, tmp_path, capsys, row, line):
    path = tmp_path / "ppl.json"
    path.write_text(json.dumps([row]))
    assert run(PROGRAM, "perplexity", "--model_name_or_path", model, "--data_path", path) == 2
    assert line in capsys.readouterr().err
