"""win_rate.py compare and agreement: two evaluations, and two raters, on records and on people's ratings of tutors."""

import json

import pytest
from in_process import run
from toy_rows import DATA, real_data
from toys import ROOT

from utils.evaluation.agreement import agreement_of, of_numbers, of_verdicts
from utils.records import Answer, Message, Record, Verdict
from utils.records.files import write_jsonl

PROGRAM = ROOT / "inference" / "win_rate.py"


def record(number, *preferred, orders=("ab",), judge="j", model="mine", sampling=None, reference="b" * 9):
    answers = (Answer("a" * 5, model, sampling or {"temperature": 1.0, "seed": 1}), Answer(reference, "ref"))
    verdicts = tuple(Verdict(0, 1, p, judge, order) for p, order in zip(preferred, orders, strict=True))
    return Record((Message("user", f"q{number}"),), answers, verdicts)


@pytest.fixture
def evaluated(tmp_path, capsys):
    def evaluated(name, records, *words):
        write_jsonl(tmp_path / f"{name}.jsonl", records)
        out = tmp_path / f"{name}.json"
        words = ("--input", tmp_path / f"{name}.jsonl", "--model", "mine", "--reference", "ref", *words)
        assert run(PROGRAM, "judged", *words, "--json", out) == 0
        return out

    return evaluated


def compare(tmp_path, capsys, first, second):
    capsys.readouterr()
    code = run(PROGRAM, "compare", "--first", first, "--second", second, "--json", tmp_path / "out.json")
    said = capsys.readouterr()
    assert code == (2 if said.err else 0)
    return said.err or json.loads((tmp_path / "out.json").read_text()), said.out


def test_two_evaluations_are_paired_by_prompt(tmp_path, capsys, evaluated):
    """Outcomes 1, 1, 0, 1/2 and 1, 0, 0, 1: differences 0, -1, 0, 1/2; the seeds of sampling may differ."""
    first = evaluated("first", [record(n, p) for n, p in enumerate(["a", "a", "b", "tie"])])
    other = {"temperature": 1.0, "seed": 2}
    second = evaluated("second", [record(n, p, sampling=other) for n, p in enumerate(["a", "b", "b", "a"])])
    found, said = compare(tmp_path, capsys, first, second)
    assert found["difference"]["value"] == pytest.approx(-12.5) and found["difference"]["n"] == 4
    assert (found["better"], found["equal"], found["worse"], found["sign_test"]) == (1, 2, 1, 1)
    assert found["difference"]["low"] < -12.5 < found["difference"]["high"] and found["unknown"] == ["template"]
    assert "second - first: -12.50 percentage points" in said and "not checked to be equal: template" in said


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"judge": "k"}, "were not evaluated alike (judge: j, k); evaluate both in the same way"),
        ({"sampling": {"temperature": 0.7}}, 'decoding: {"temperature": 1.0}, {"temperature": 0.7}'),
        ({"orders": ("ba",)}, "orders: ab, ba"),
        ({"reference": "other"}, "reference_answers: "),
    ],
)
def test_evaluations_of_other_manifests_are_refused(tmp_path, capsys, evaluated, changes, line):
    first = evaluated("first", [record(n, "a") for n in range(3)])
    second = evaluated("second", [record(n, "b", **changes) for n in range(3)])
    said, _ = compare(tmp_path, capsys, first, second)
    assert line in said and said.count("\n") == 1


def test_the_template_is_that_of_the_answers(tmp_path, capsys, evaluated):
    files = []
    for name, template in (("first", "llama3"), ("second", "chatml")):
        answers = tmp_path / f"{name}-answers.jsonl"
        answers.write_text("{}\n")
        facts = {"what": "generating", "template": template, "temperature": [1.0], "weights": name}
        (tmp_path / f"{answers.name}.args.json").write_text(json.dumps(facts))
        files.append(evaluated(name, [record(n, "a") for n in range(3)], "--answers", answers))
    said, _ = compare(tmp_path, capsys, *files)
    assert "template: llama3, chatml)" in said and "decoding" not in said


def test_disjoint_prompts_and_other_files_are_one_line(tmp_path, capsys, evaluated):
    first, second = evaluated("first", [record(1, "a")]), evaluated("second", [record(2, "a")])
    said, _ = compare(tmp_path, capsys, first, second)
    assert "share no prompt of 1 and 1" in said
    second.write_text("{}")
    said, _ = compare(tmp_path, capsys, first, second)
    assert "has no manifest and outcomes" in said
    second.write_text('{"manifest": ')
    said, _ = compare(tmp_path, capsys, first, second)
    assert "cannot be read as JSON" in said


def test_position_is_reported(evaluated, tmp_path):
    """Shown first and preferred in three of four; both orders of q0, and those that request.py made one verdict of."""
    by_order = Record((Message("user", "q2"),), record(2, "a").answers, (Verdict(0, 1, "a", "j"),),
                      meta={"by_order": [{"a": 0, "b": 1, "ab": "a", "ba": "a"}]})  # fmt: skip
    found = json.loads(evaluated("x", [record(0, "a", "b", orders=("ab", "ba")), by_order]).read_text())
    assert found["first_shown"]["value"] == 0.75 and found["first_shown"]["n"] == 2
    assert found["n"] == 3 and found["prompts"]["n"] == 2 and found["win_rate"] == pytest.approx(200 / 3)


def test_refused_and_failed_are_counted_and_none_left_is_an_error(evaluated, tmp_path, capsys):
    found = json.loads(evaluated("x", [record(0, "a"), record(1, "refused"), record(2, "failed")]).read_text())
    assert (found["n"], found["refused"], found["failed"]) == (1, 1, 1)
    write_jsonl(tmp_path / "y.jsonl", [record(1, "refused")])
    assert run(PROGRAM, "judged", "--input", tmp_path / "y.jsonl", "--model", "mine") == 2
    assert "none of 1 verdicts on mine decides: 1 were refused" in capsys.readouterr().err


def test_agreement_by_hand():
    """Three pairs in both: agree, agree, disagree. Cells a/a, b/b, a/b: kappa (2/3 - 4/9) / (1 - 4/9) = 0.4."""
    first = of_verdicts([record(0, "a"), record(1, "b"), record(2, "a"), record(3, "tie")])
    second = of_verdicts(
        [record(0, "a", judge="k"), record(1, "b"), record(2, "b"), record(4, "a"), record(5, "failed")]
    )
    found = agreement_of(first, second, seed=0)
    assert (found["pairs"], found["only_first"], found["only_second"]) == (3, 1, 1)
    assert found["agreement"]["value"] == pytest.approx(2 / 3) and found["kappa"]["value"] == pytest.approx(0.4)
    assert found["second"]["undecided"] == 1 and found["first"]["ties"] == 1
    # The first rater prefers the shorter answer, the first one, in two of its three decisions.
    assert found["first"]["longer"]["value"] == pytest.approx(1 / 3) and found["first"]["first_shown"]["n"] == 4


def test_orders_that_disagree_are_a_tie_and_a_flip():
    found = of_verdicts([record(0, "a", "b", orders=("ab", "ba")), record(1, "b", "b", orders=("ab", "ba"))])
    assert sorted(found.says.values()) == ["b", "tie"] and sorted(found.orders) == [False, True]
    assert [sorted(each) for each in found.first_shown.values()] == [[1, 1], [0, 1]]


def test_one_judge_of_several_is_chosen(tmp_path, capsys):
    write_jsonl(tmp_path / "x.jsonl", [record(n, "a", "b", orders=("ab", "ab"), judge="j") for n in range(2)])
    both = [
        Record(r.prompt, r.answers, (r.verdicts[0], Verdict(0, 1, "a", "k"))) for r in [record(0, "a"), record(1, "b")]
    ]
    write_jsonl(tmp_path / "two.jsonl", both)
    words = ("--first", tmp_path / "two.jsonl", "--second", tmp_path / "two.jsonl")
    chosen = ("--first_by", "verdicts:j", "--second_by", "verdicts:k")
    assert run(PROGRAM, "agreement", *words, *chosen, "--json", tmp_path / "out.json") == 0
    assert json.loads((tmp_path / "out.json").read_text())["agreement"]["value"] == 0.5
    for by, line in (
        ("verdicts:m", "have verdicts:m"),
        ("thumbs", "--first_by is 'thumbs'"),
        ("scores:x", "'scores:x'"),
    ):
        assert run(PROGRAM, "agreement", *words, "--first_by", by) == 2 and line in capsys.readouterr().err


@real_data
def test_a_reward_models_agreement_with_people(tmp_path, capsys):
    """MRBench: two kinds of scores against people's ratings of tutors. Scores that are the ratings agree fully; those
    by length agree as often as people prefer the longer answer, apart from answers of equal length."""
    worth = {"Yes": 2, "To some extent": 1, "No": 0}
    asked = ("Mistake_Identification", "Providing_Guidance", "Actionability")
    people, perfect, by_length = [], [], []
    for row in json.loads((DATA / "mrbench" / "MRBench_V1.json").read_text()):
        texts = {said["response"]: said["annotation"] for said in row["anno_llm_responses"].values()}
        rated = [Answer(t, rating=sum(worth.get(notes[a], 0) for a in asked)) for t, notes in texts.items()]
        prompt = (Message("user", row["conversation_history"]),)
        people.append(Record(prompt, tuple(rated)))
        perfect.append(Record(prompt, tuple(Answer(a.text, scores={"rm": a.rating}) for a in rated)))
        by_length.append(Record(prompt, tuple(Answer(a.text, scores={"rm": float(len(a.text))}) for a in rated)))
    judged = of_numbers(people, "ratings")
    found = agreement_of(of_numbers(perfect, "scores"), judged, seed=0)
    assert found["agreement"]["value"] == found["kappa"]["value"] == 1 and found["pairs"] > 4000
    found = agreement_of(of_numbers(by_length, "scores"), judged, seed=0)
    liked = found["second"]["longer"]["value"]
    assert found["without_ties"]["value"] == pytest.approx(liked) and found["decided"] > 3000
    assert 0.5 < found["without_ties"]["low"] < found["without_ties"]["high"] < 0.8
    for name, records in (("people", people), ("scored", by_length)):
        write_jsonl(tmp_path / f"{name}.jsonl", records)
    words = ("--first", tmp_path / "scored.jsonl", "--first_by", "scores", "--second", tmp_path / "people.jsonl")
    assert run(PROGRAM, "agreement", *words, "--second_by", "ratings") == 0
    assert "without ties: " in capsys.readouterr().out
