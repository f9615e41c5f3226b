"""The report: numbers by hand, a page that needs nothing beside it, and missing pieces said in words."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from toy_folders import rm_folder, write_rows
from transformers import AutoTokenizer

from inference import evaluate_world, report
from utils.charts import Curve, binned, interval, short
from utils.errors import UserError
from utils.records import Answer, Message, Record, Verdict, write_jsonl
from utils.world.exchanges import PROBLEMS

SUM = next(problem for problem in PROBLEMS.values() if problem.kind == "sum")
QUESTIONS = tuple(f"What is {SUM.topic}? I think it is {wrong}." for wrong in SUM.wrong)
GOOD = f"Not quite. {SUM.hints[0]} What do you get now?"  # utility 6.5
FAIR = "Not quite."  # 4
BAD = "<script>alert(1)</script>"  # 1


def answers(path: Path, *rows: tuple[str, ...]) -> Path:
    prompts = [(Message("user", question),) for question in QUESTIONS]
    records = (
        Record(p, tuple(map(Answer, row)), id=str(i)) for i, (p, row) in enumerate(zip(prompts, rows, strict=True))
    )
    write_jsonl(path, records)
    return path


def verdicts(path: Path, decided: int, asked: str = QUESTIONS[0]) -> None:
    """So many decided ones, a tie, and one of an empty answer, which no training uses."""
    three = (Answer(GOOD), Answer(FAIR), Answer(" "))
    judged = [*[Verdict(0, 1, "a")] * decided, Verdict(0, 1, "tie"), Verdict(0, 2, "a")]
    write_jsonl(path, [Record((Message("user", asked),), three, tuple(judged))])


def begun(folder: Path, rows: list[dict], finished: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "metrics.jsonl", rows)
    (folder / "args.json").write_text(json.dumps({"commit": "abc"}))
    if finished:
        (folder / "finished.json").write_text("{}")


@pytest.fixture
def tutor(tmp_path):
    """What run.sh leaves, in small: 10 verdicts, of which the reward model gets 8."""
    speed = {"tokens_per_second": 1000.0, "gemm_share": 0.5}
    evaluation = {"eval/loss": 0.5, "eval/accuracy": 0.8, "eval/margin": 1.0, "eval/brier": 0.2, "eval/ece": 0.1}
    begun(tmp_path / "sft", [{"step": 0, "eval/loss": 7.0}, {"step": 1, "loss": 6.0, **speed}])
    rm_folder(tmp_path / "reward")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "reward")
    turn = "{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}"
    tokenizer.chat_template = f"{{% for m in messages %}}{turn}{{% endfor %}}"
    tokenizer.save_pretrained(tmp_path / "reward")
    begun(tmp_path / "reward", [{"step": 1, "loss": 0.7, "accuracy": 0.4, **speed}, {"step": 2, **evaluation}])
    pairs = {"accuracy": 0.6, "margin": 0.1, **speed}
    begun(tmp_path / "dpo", [{"step": 1, "loss": 0.69, **pairs}, {"step": 2, "loss": 0.68, **pairs}])
    rollout = {"score": 0.3, "true_score": 4.0, "kl": 0.2, **speed}
    begun(tmp_path / "ppo", [{"step": 0, "eval/score": 0.1, "eval/true_score": 3.5}, {"step": 1, **rollout}])
    verdicts(tmp_path / "feedback" / "test.jsonl", 10)
    (tmp_path / ".done").mkdir()
    for number, name, seconds in ((8, "best_of_16", 30), (10, "truth", 0), (2, "sft", 75)):  # in another order
        (tmp_path / ".done" / name).write_text(f"bash {name} \n{number} {seconds}\n")
    sft = answers(tmp_path / "answers" / "sft.jsonl", (BAD, FAIR), (FAIR, FAIR))
    dpo = answers(tmp_path / "answers" / "dpo.jsonl", (GOOD, FAIR), (GOOD, BAD))
    evaluate_world.main(["--answers", f"sft={sft}", f"dpo={dpo}", "--results", str(tmp_path / "results.json")])
    return tmp_path


def made(folder: Path, *more: str) -> tuple[dict, str]:
    report.main(["--folder", str(folder), *more])
    return json.loads((folder / "results.json").read_text()), (folder / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Every opened tag is closed in order; `words` are what a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.words, self.seen = [], "", set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.seen |= {tag, *(name for name, _ in attributes)}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data if "style" not in self.open else ""


def test_numbers_by_hand(tutor):
    before = json.loads((tutor / "results.json").read_text())["true_reward"]
    results, _ = made(tutor)
    assert results["true_reward"] == before
    reward = results["reward_model"]
    # Wilson, 8 of 10: centre (8 + 1.9207) / 13.8415, half width 1.96 / 13.8415 * sqrt(1.6 + 0.9604)
    assert reward["accuracy"] == pytest.approx({"value": 0.8, "low": 0.4901625, "high": 0.9433178, "n": 10}, abs=1e-6)
    # 6.5 against 4 ten times, and against 1: (10 / (1 + exp(-2.5 / 0.7)) + 1 / (1 + exp(-5.5 / 0.7))) / 11
    assert reward["ceiling"] == pytest.approx((10 * 0.9726532 + 0.9996132) / 11, abs=1e-6)
    assert reward["share_of_ceiling"] == pytest.approx(0.8 / 0.9751043, abs=1e-6)
    assert (reward["step"], reward["margin"], reward["brier"], reward["ece"]) == (2, 1.0, 0.2, 0.1)
    # prompt 1: 6.5 and 4 against 1 and 4 win 1, 1, 1, 1/2; prompt 2: 6.5 and 1 against 4 and 4 win 1, 1, 0, 0
    assert results["against_first"]["win_rate"]["dpo"]["value"] == pytest.approx((3.5 / 4 + 2 / 4) / 2)
    assert list(results["seconds"].items()) == [("sft", 75), ("best_of_16", 30), ("truth", 0)]  # in run.sh's
    assert results["stages"]["sft"]["first"] == [{"step": 0, "eval/loss": 7.0}]
    assert results["missing"] == [] and results["versions"]["torch"]


def test_the_page_is_whole_and_needs_nothing(tutor):
    _, text = made(tutor)
    tags = Tags(text)
    assert not {"script", "link", "img", "iframe", "src", "href", "onclick"} & tags.seen
    assert not any(word in text for word in ("http:", "https:", "@import", "url("))
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    for words in ("SFT earns 3.25, DPO 4.50", BAD, GOOD, "evaluation +1.5", "82.0%", "Nothing: every", "1 min 45 s"):
        assert words in tags.words, words
    assert text.count('class="exchange"') == 2 and text.count("<polyline") == 9


def test_answers_are_scored_by_the_reward_model(tutor):
    shown = report.Pipeline(tutor, 0.7).exchanges(2)
    assert [[a["text"] for a in row["answers"].values()] for row in shown] == [[BAD, GOOD], [FAIR, GOOD]]
    assert [[a["utility"] for a in row["answers"].values()] for row in shown] == [[1, 6.5], [4, 6.5]]
    scores = {a["score"] for row in shown for a in row["answers"].values()}
    assert len(scores) == 4 and all(isinstance(score, float) for score in scores)
    (tutor / "reward" / "finished.json").unlink()
    assert {a["score"] for row in report.Pipeline(tutor, 0.7).exchanges(1) for a in row["answers"].values()} == {None}


def test_what_is_missing_is_said(tmp_path):
    begun(tmp_path / "sft", [{"step": 1, "loss": 6.0}, {"step": 2, "loss": 5.0}], finished=False)
    results, text = made(tmp_path)
    missing = "\n".join(results["missing"])
    for words in ("sft: stopped after step 2", "reward: ", "dpo: ", "ppo: ", "true reward"):
        assert words in missing
    words = Tags(text).words
    assert all(line in words for line in results["missing"]) and "has not been measured yet" in words


def test_an_empty_folder_makes_a_report(tmp_path):
    results, text = made(tmp_path)
    assert len(results["missing"]) == 5 and Tags(text).words.count("Not measured yet") == 5


def test_accuracy_over_other_pairs_gets_no_interval(tutor):
    verdicts(tutor / "feedback" / "test.jsonl", 9)
    results, _ = made(tutor)
    assert results["reward_model"]["accuracy"] == {"value": 0.8, "low": None, "high": None, "n": None}
    assert "how many pairs" in results["missing"][0]


def test_the_ceiling_is_of_the_noise_that_the_oracle_was_told(tutor):
    assert made(tutor, "--noise_temperature", "0")[0]["reward_model"]["ceiling"] == 1


def test_verdicts_of_another_world_have_no_ceiling(tutor):
    verdicts(tutor / "feedback" / "test.jsonl", 10, "Why is the sky blue?")
    results, text = made(tutor)
    (line,) = results["missing"]
    assert line.startswith("the ceiling of the reward model's accuracy: ")
    assert "test.jsonl:1: the prompt names no problem of the tutor's world" in line
    assert "ceiling" not in results["reward_model"] and results["reward_model"]["accuracy"]["n"] == 10
    assert line in Tags(text).words


def test_no_verdicts_no_ceiling(tutor):
    (tutor / "feedback" / "test.jsonl").unlink()
    results, _ = made(tutor)
    assert results["missing"][1].endswith("feedback/test.jsonl has no decided verdict")
    assert "ceiling" not in results["reward_model"]


def test_a_moved_folder_still_finds_its_answers(tutor, tmp_path):
    moved = tutor.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    results, text = made(moved)
    assert results["missing"] == [] and GOOD in text
    (moved / "answers" / "dpo.jsonl").unlink()
    results, _ = made(moved)
    assert "the answers of DPO" in results["missing"][0] and results["against_first"] == {}


def test_wrong_input_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        report.main(["--folder", str(tmp_path / "nowhere")])
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json: not JSON"):
        report.main(["--folder", str(tmp_path), "--overwrite"])
    with pytest.raises(UserError, match="--num_prompts is -1"):
        report.main(["--folder", str(tmp_path), "--num_prompts", "-1"])
    with pytest.raises(UserError, match="--noise_temperature is nan"):
        report.main(["--folder", str(tmp_path), "--noise_temperature", "nan"])


# ---- drawings


def test_an_interval_is_drawn_to_scale():
    drawn = interval(4.0, 3.0, 5.5, (2, 6), width=212)  # 50 a unit, from 6
    assert 'cx="106.0"' in drawn and 'x1="56.0" x2="181.0"' in drawn
    assert "band" not in interval(4.0, None, None, (2, 6))


def test_a_curve_runs_from_corner_to_corner():
    drawn = Curve("a & b", [(0, 1.0), (10, 3.0)], [(10, 3.0)], (2.0, "half"), log=False).svg(width=320, height=150)
    assert 'points="46.0,128.0 274.0,12.0"' in drawn and "a &amp; b" in drawn
    assert '<line class="level" x1="46" x2="274" y1="70.0" y2="70.0"/>' in drawn and "half 2.00" in drawn
    middle = Curve("", [(0, 1.0), (5, 10.0), (10, 100.0)], log=True).svg()
    assert "160.0,70.0" in middle and "log scale" in middle  # 10 is half way from 1 to 100
    assert Curve("", [(1, 2.0)]).svg()  # one point, no range


def test_long_runs_are_binned():
    assert binned([(n, float(n)) for n in range(6)], most=3) == [(0.5, 0.5), (2.5, 2.5), (4.5, 4.5)]
    assert len(binned([(n, 0.0) for n in range(100_000)])) <= 60 and binned([]) == []


def test_numbers_are_short():
    numbers = {1067.4: "1,067", 6.973: "6.97", 0.3836: "0.384", -0.00123: "−0.0012", 1e-9: "0", 0: "0", -3e-5: "0"}
    assert {number: short(number) for number in numbers} == numbers
