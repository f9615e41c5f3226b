"""The report: numbers by hand, a page that needs nothing beside it, and missing pieces said in words."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from toy_folders import rm_folder, write_rows
from toys import ROOT
from transformers import AutoTokenizer

from inference import evaluate_world, report, rerank
from utils.errors import UserError
from utils.llm.ledger import Ledger, Question, steps
from utils.llm.providers import Price, Reply, request_of
from utils.parsing import PARSERS
from utils.records import Answer, Message, Record, Verdict
from utils.records.files import write_jsonl
from utils.report.page import COLOURS, side_by_side
from utils.report.pipeline import Pipeline
from utils.world.exchanges import PROBLEMS

SUM = next(problem for problem in PROBLEMS.values() if problem.kind == "sum")
QUESTIONS = tuple(f"What is {SUM.topic}? I think it is {wrong}." for wrong in SUM.wrong)
GOOD = f"Not quite. {SUM.hints[0]} What do you get now?"  # utility 6.5
FAIR = "Not quite."  # 4
BAD = "<script>alert(1)</script>"  # 1


def answers(path: Path, *rows: tuple[str, ...], scores: tuple[tuple[float, ...], ...] = ()) -> Path:
    prompts = [(Message("user", question),) for question in QUESTIONS]
    texts = [tuple(Answer(text) for text in row) for row in rows]
    if scores:
        texts = [
            tuple(Answer(a.text, scores={"tutor/reward": s}) for a, s in zip(row, of_row, strict=True))
            for row, of_row in zip(texts, scores, strict=True)
        ]
    write_jsonl(path, (Record(p, row, id=str(i)) for i, (p, row) in enumerate(zip(prompts, texts, strict=True))))
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


def asked(path: Path, model: str, price: Price | None) -> None:
    """A ledger with one answered question: 1,000 tokens in, 200 out."""
    with Ledger(path) as ledger:
        question = Question(
            request_of("openai", model, [{"role": "user", "content": "?"}]), "rating", {"low": 1, "high": 7}
        )
        ledger.plan([question])
        ledger.do([lambda db: steps.claim(db, ledger.process, 9)])
        (attempt,) = ledger.do([lambda db: steps.send(db, ledger.process, question.request.key, None, None)])
        reply = Reply(text="Rating: 6", finish_reason="stop", input_tokens=1000, output_tokens=200, raw="{}")
        ledger.do([lambda db: steps.store(db, attempt, question.request.key, reply, price)])
        ledger.parse_new(PARSERS)


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
    bins = [{"low": 0.7, "high": 0.8, "n": 10, "predicted": 0.75, "observed": {"value": 0.8, "low": 0.4, "high": 0.9}}]
    (tmp_path / "reward" / "calibration.json").write_text(json.dumps({"step": 2, "bins": bins}))
    pairs = {"accuracy": 0.6, "margin": 0.1, "chosen_logprob": -7.5, "rejected_logprob": -12.25, **speed}
    begun(tmp_path / "dpo", [{"step": 1, "loss": 0.69, **pairs}, {"step": 2, "loss": 0.68, **pairs}])
    rollout = {"score": 0.3, "true_score": 4.0, "kl": 0.2, "tokens_per_second": 50.0}
    evaluation = {"eval/score": 0.1, "eval/true_score": 3.5, "eval/kl": 0.4}
    begun(tmp_path / "ppo", [{"step": 0, **evaluation}, {"step": 1, **rollout}])
    verdicts(tmp_path / "feedback" / "test.jsonl", 10)
    (tmp_path / "feedback" / "stats.json").write_text('{"kinds": {"rating": 33}}')
    asked(tmp_path / "asked" / "ledger", "gpt-4o", Price(2.5, 10))
    (tmp_path / ".done").mkdir()
    for number, name, seconds in ((8, "best_of_16", 30), (10, "truth", 0), (2, "sft", 75)):  # in another order
        (tmp_path / ".done" / name).write_text(f"bash {name} \n{number} {seconds}\n")
    of_sft = tmp_path / "answers" / "sft.jsonl"
    sft = answers(of_sft, (BAD, FAIR), (FAIR, FAIR), scores=((2.0, 1.0), (0.5, 0.0)))
    rerank.main(["--data_path", str(sft), "--n", "2", "--output_path", str(sft.with_name("best_of_2.jsonl"))])
    dpo = answers(tmp_path / "answers" / "dpo.jsonl", (GOOD, FAIR), (GOOD, BAD))
    evaluate_world.main(["--answers", f"sft={sft}", f"dpo={dpo}", "--results", str(tmp_path / "results.json")])
    return tmp_path


def made(folder: Path, *more: str) -> tuple[dict, str]:
    report.main(["--folder", str(folder), *more])
    return json.loads((folder / "results.json").read_text()), (folder / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Every opened tag is closed in order; `words` are what a reader sees, `links` where the page leads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.words, self.seen, self.links = [], "", set(), []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.seen |= {tag, *(name for name, _ in attributes)}
        self.links += [value for name, value in attributes if name == "href"]
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
    rates = results["win_rates"]["oracle"]
    assert rates["dpo"]["sft"]["value"] == pytest.approx((3.5 / 4 + 2 / 4) / 2)
    assert rates["sft"]["dpo"]["value"] == pytest.approx(1 - (3.5 / 4 + 2 / 4) / 2)
    assert list(results["seconds"].items()) == [("sft", 75), ("best_of_16", 30), ("truth", 0)]  # in run.sh's
    assert results["stages"]["sft"]["first"] == [{"step": 0, "eval/loss": 7.0}]
    assert results["missing"] == [] and results["versions"]["torch"]


def test_win_rates_by_the_reward_model(tutor):
    """Of two scored sets: prompt 1 wins 3 against 2 and 1, and loses 0; prompt 2 ties 0.5 once and loses the rest."""
    answers(tutor / "answers" / "dpo.jsonl", (GOOD, FAIR), (GOOD, BAD), scores=((3.0, 0.0), (0.5, -1.0)))
    results, text = made(tutor)
    rate = results["win_rates"]["reward_model"]["dpo"]["sft"]
    assert rate["value"] == pytest.approx((2 / 4 + 1.5 / 4) / 2) and rate["n"] == 2
    words = Tags(text).words
    assert "by the oracle" in words and "by the reward model" in words and "43.8%" in words and "56.2%" in words


def test_the_page_is_whole_and_needs_nothing(tutor):
    _, text = made(tutor)
    tags = Tags(text)
    assert not {"script", "link", "img", "iframe", "src", "onclick"} & tags.seen
    assert not any(word in text for word in ("http:", "https:", "@import", "url("))
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    for words in ("SFT earns 3.25, DPO 4.50", BAD, GOOD, "evaluation +1.5", "82.0%", "Nothing: every", "1 min 45 s"):
        assert words in tags.words, words
    # 10 charts of training, of which one has two lines; PPO's path in two; the key of a line
    assert text.count('class="exchange"') == 2 and text.count("<polyline") == 11 + 2 + 1


def test_the_commit_is_that_of_the_runs(tutor):
    """The page shows the commit of the runs, not that of the checkout that makes it; if the runs differ, each run's."""
    for name in ("sft", "reward", "dpo", "ppo"):
        (tutor / name / "args.json").write_text(json.dumps({"commit": "abc+", "versions": {"torch": "2.0"}}))
    results, text = made(tutor)
    assert results["commit"] != "abc+" and "<pre>git checkout abc\nbash run.sh</pre>" in text
    assert "Commit abc+ (+: files differed from it); torch 2.0. This page: commit " in Tags(text).words
    (tutor / "ppo" / "args.json").write_text(json.dumps({"commit": "<def>", "versions": {"torch": "2.1"}}))
    text = made(tutor)[1]
    assert "<pre>bash run.sh</pre>" in text and "trained at different commits" in text
    words = "Commit abc+ (SFT, reward, DPO); <def> (PPO) (+: files differed from it); torch 2.0 ("
    assert words in Tags(text).words and "torch 2.1 (PPO)" in text


def test_links_lead_to_files_beside_the_page(tutor):
    (tutor / "sft" / "samples-step-0.jsonl").write_text("")
    _, text = made(tutor)
    links = Tags(text).links
    assert {"results.json", "sft/metrics.jsonl", "sft/samples-step-0.jsonl", "reward/calibration.json"} <= set(links)
    assert {"answers/best_of_2-curve.json", "answers/dpo.jsonl", "feedback/stats.json"} <= set(links)
    assert all((tutor / link).is_file() for link in links)


def test_best_of_n_is_drawn_from_the_files(tutor):
    """Of 1 the means over both answers; of 2 the answers with the scores 2 and 0.5, which are worth 1 and 4."""
    results, text = made(tutor)
    found = results["best_of_n"]
    assert (found["of"], found["scorer"]) == ("sft", "tutor/reward")
    assert {n: e["value"] for n, e in found["score"].items()} == {"1": 0.875, "2": 1.25}
    assert {n: e["value"] for n, e in found["reward"].items()} == {"1": 3.25, "2": 2.5}
    assert found["kl_bound"] == pytest.approx({"1": 0, "2": 0.1931472}, abs=1e-6)
    for said in ("1: 0.875", "2: 1.25", "1: 3.25", "2: 2.50", "0.193: 1.25", "0.193: 2.50", "0.4: 0.100", "0.4: 3.50"):
        assert f"<title>{said}</title>" in text, said  # over n; against KL; PPO's evaluation against KL


def test_the_two_samplings_of_ppo_are_told_apart(tutor):
    ppo = answers(tutor / "answers" / "ppo.jsonl", (GOOD, GOOD), (FAIR, FAIR))
    evaluate_world.main(["--answers", f"ppo={ppo}", "--results", str(tutor / "results.json")])
    words = Tags(made(tutor)[1]).words
    assert "PPO's last dot, a true reward of 3.50" in words and "The 5.25 of the table above is over 2 answers" in words


def test_curves_end_at_the_files_numbers(tutor):
    words = Tags(made(tutor)[1]).words
    for said in ("chosen −7.50", "rejected −12.2", "0.750: 0.800", "ceiling 0.975", "0.8"):
        assert said.replace("0.750", "0.75") in words, said


def test_a_share_that_is_not_measured_is_no_zero(tutor):
    results, text = made(tutor)
    assert results["stages"]["ppo"]["median_gemm_share"] is None
    rows = dict(re.findall(r"<tr><td>(SFT|PPO)</td><td>[^<]*</td><td>([^<]*</td><td>[^<]*)</td>", text))
    assert rows == {"SFT": "1,000</td><td>50%", "PPO": "50</td><td>–"}


def test_what_the_feedback_cost(tutor):
    results, text = made(tutor)
    assert results["feedback"]["usd"] == pytest.approx(1000 * 2.5e-6 + 200 * 10e-6)
    row = '<td>gpt-4o</td><td>1</td><td class="optional">1</td><td>1,000</td><td>200</td><td>0.0045</td>'
    assert (
        row in text and "<td>rating</td><td>1</td><td>0</td><td>33</td>" in text and "oracle is a program" not in text
    )
    (tutor / "asked" / "ledger").unlink()
    asked(tutor / "asked" / "ledger", "oracle", None)
    text = made(tutor)[1]
    assert "<td>200</td><td>0</td>" in text and "oracle is a program on this machine and costs nothing" in text
    (tutor / "asked" / "ledger").unlink()
    asked(tutor / "asked" / "ledger", "mine", None)
    assert "<td>200</td><td>price not known</td>" in made(tutor)[1]


@pytest.mark.parametrize("names, across", [(2, 2), (3, 3), (4, 2), (5, 3), (6, 3)])
def test_no_answer_stands_alone_in_its_row(names, across):
    answer = {"text": "Yes.", "utility": 4.0, "points": {}, "score": None}
    shown = side_by_side({"prompt": [], "answers": {f"model {n}": answer for n in range(names)}})
    assert f'class="answers of-{across}"' in shown and names % across != 1


def test_answers_are_scored_by_the_reward_model(tutor):
    shown = report.exchanges(Pipeline(tutor, 0.7), 2)
    assert [[a["text"] for a in row["answers"].values()] for row in shown] == [[BAD, GOOD], [FAIR, GOOD]]
    assert [[a["utility"] for a in row["answers"].values()] for row in shown] == [[1, 6.5], [4, 6.5]]
    scores = {a["score"] for row in shown for a in row["answers"].values()}
    assert len(scores) == 4 and all(isinstance(score, float) for score in scores)
    (tutor / "reward" / "finished.json").unlink()
    assert {a["score"] for row in report.exchanges(Pipeline(tutor, 0.7), 1) for a in row["answers"].values()} == {None}


def test_a_partial_run_has_a_whole_page_that_lists_what_is_missing(tmp_path):
    begun(tmp_path / "sft", [{"step": 1, "loss": 6.0}, {"step": 2, "loss": 5.0}], finished=False)
    results, text = made(tmp_path)
    missing = "\n".join(results["missing"])
    for words in ("sft: stopped after step 2", "reward: ", "dpo: ", "ppo: ", "true reward", "best-of-n", "feedback"):
        assert words in missing
    page = Tags(text)
    assert all(line in page.words for line in results["missing"]) and "has not been measured yet" in page.words
    assert page.words.count("Not measured yet") == 7 and text.count("<figure>") == 1
    assert page.links == ["results.json", "sft/metrics.jsonl", "sft/args.json"]


def test_a_folder_without_a_run_is_refused(tutor, tmp_path_factory):
    """Another folder, one with files of its own, and one stage's folder; nothing is written there."""
    other = tmp_path_factory.mktemp("other")
    (other / "answers").mkdir()
    said = r"no run of the pipeline; expected one of sft/metrics\.jsonl, .* and results\.json in it; `bash run\.sh`"
    with pytest.raises(UserError, match=said):
        report.main(["--folder", str(other)])
    assert [path.name for path in other.iterdir()] == ["answers"]
    with pytest.raises(UserError, match=rf"one stage's folder; .*; give --folder {tutor}$"):
        report.main(["--folder", str(tutor / "sft")])
    for name in ("results.json", ".results.json.plumbline.json"):  # with the record of what wrote it
        shutil.copy(tutor / name, other)
    assert "SFT earns 3.25" in Tags(made(other)[1]).words


def test_every_colour_has_one_meaning_and_contrast(tutor):
    """Each colour is in the legend once; text and marks reach WCAG's 4.5 : 1 on the paper, by day and by night."""
    legend = made(tutor)[1].split('<div class="legend">')[1].split("</div>")[0]
    css = (ROOT / "utils" / "report" / "page" / "page.css").read_text()
    day, night = (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in css.split("@media (prefers", 1)[:2])
    assert day.keys() == night.keys() and set(COLOURS) < day.keys()
    for colour in COLOURS:
        assert legend.count(f'class="key {colour}" viewBox="0 0 24 12" role="presentation"><rect') == 1
    for palette in (day, night):
        for colour in (*COLOURS, "ink", "soft"):
            assert contrast(palette[colour], palette["paper"]) >= 4.5, (colour, palette)
        assert len({palette[colour] for colour in COLOURS}) == len(COLOURS)


def contrast(one: str, other: str) -> float:
    """(L1 + 0.05) / (L2 + 0.05) of relative luminances (WCAG 2.2)."""
    light = sorted(luminance(colour) for colour in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_tie_of_scores_counts_half(tutor):
    """8.5 of 10 pairs are right where two scores are equal: those are the pairs, and the interval is that of 8.5."""
    file = tutor / "reward" / "metrics.jsonl"
    file.write_text(file.read_text().replace('"eval/accuracy": 0.8', '"eval/accuracy": 0.85'))
    results, _ = made(tutor)
    # Wilson, 8.5 of 10: centre (8.5 + 1.9207) / 13.8415, half width 1.96 / 13.8415 * sqrt(1.275 + 0.9604)
    expected = {"value": 0.85, "low": 0.5411540, "high": 0.9645731, "n": 10}
    assert results["reward_model"]["accuracy"] == pytest.approx(expected, abs=1e-6)


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
    assert "the answers of DPO" in results["missing"][0] and results["win_rates"] == {}


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
