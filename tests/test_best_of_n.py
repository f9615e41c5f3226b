"""rerank.py: where answers and scores come from, who may be chosen, the curve over n, a kill, and wrong input."""

import ast
import csv
import itertools
import json
import os
import statistics

import numpy as np
import pytest
import torch
from chats import HUMAN, chat, lm, models, one_thread, rm  # noqa: F401 (fixtures)
from in_process import run as run_here
from oracle import oracle
from requesting import exchanges, sent
from requesting import record as of_world
from test_tutor_data import conversation, turn
from toy_folders import lm_folder, read_rows, run, write_rows
from toys import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_collect import convert, tutor
from inference import rerank
from utils.answering.rows import answer_row
from utils.model.reward_model import RewardModel
from utils.raw_datasets.tutoring import Tutoring
from utils.raw_datasets.whole import records_of
from utils.records.files import read_records, write_jsonl
from utils.tokens.templates import Renderer
from utils.world.truth import utilities

TEXTS = ["hello", "what is two plus three?", "be kind", "five"]
REFERENCE = "z" * 40
LONGEST = "def length(record):\n    return [len(answer.text) for answer in record.answers]\n"


@pytest.fixture
def here(tmp_path):
    """davinci.json: generations of a reference whose answers are longer than any other; length.py: a reward."""
    rows = [{"dataset": "koala", "generator": "davinci", "instruction": text, "output": REFERENCE} for text in TEXTS]
    rows[3]["dataset"] = "selfinstruct"
    (tmp_path / "davinci.json").write_text(json.dumps(rows))
    (tmp_path / "length.py").write_text(LONGEST)
    return tmp_path


def start(*words):
    rerank.main([str(word) for word in words])


def best(path):
    return json.loads(path.read_text())


def test_a_reference_is_chosen_only_where_it_is_asked_for(folder, here, capsys):
    """The longest answer wins: the reference, if it took part. By chatbot.py's plain rows, by records, by rerank.py."""
    by_length = ["--reward_fn", f"{here / 'length.py'}:length"]
    sampling = ["--num_samples", 3, "--max_new_tokens", 5]
    lm(folder, "generate", "--data_path", here / "davinci.json", *sampling, "--output_path", here / "plain.jsonl",
       "--generator", "alpaca7b")  # fmt: skip
    lm(folder, "generate", "--data_path", f"generations:{here / 'davinci.json'}", *sampling,
       "--output_path", here / "records.jsonl")  # fmt: skip
    sampled = [row["sample"] for row in read_rows(here / "plain.jsonl")]
    assert [row["sample_generator"] for row in read_rows(here / "plain.jsonl")] == ["alpaca7b"] * 4
    named = {"plain": "alpaca7b", "records": f"{folder.name}/lm"}
    for name, model in named.items():
        start("--data_path", here / f"{name}.jsonl", *by_length, "--output_path", here / f"{name}-best.json")
        rows = best(here / f"{name}-best.json")
        assert [row["output"] for row in rows] == [max(texts, key=len) for texts in sampled]
        assert [(row["generator"], row["instruction"], row["dataset"]) for row in rows] == [
            *((model, text, "koala") for text in TEXTS[:3]), (model, TEXTS[3], "selfinstruct")
        ]  # fmt: skip
        assert best(here / f"{name}-best-curve.json")["best_of"].keys() == {"3"}  # not 4: the reference is none of n
    start("--data_path", here / "plain.jsonl", *by_length, "--output_path", here / "all.json", "--with_references")
    assert {row["output"] for row in best(here / "all.json")} == {REFERENCE}
    capsys.readouterr()
    rm(folder, "--data_path", here / "plain.jsonl", "--output_path", here / "scored.jsonl")
    assert "over 4 prompts (12 answers)" in capsys.readouterr().out


def test_generations_n_are_scored_and_reranked_and_selfinstruct_left_out(folder, here):
    lm(folder, "generate", "--data_path", here / "davinci.json", "--num_samples", 3, "--max_new_tokens", 5)
    sampled = here / "davinci-generate.jsonl"
    convert.main(
        ["--from", "chatbot", "--to", "generations-n", "--input", str(sampled), "--output", str(here / "n.json")]
    )
    assert {row["generator"] for row in best(here / "n.json")} == {f"{folder.name}/lm"}
    rm(folder, "--data_path", here / "n.json")
    scores = [row["score"] for row in read_rows(here / "n-rm.jsonl")]
    assert [len(row) for row in scores] == [3] * 4
    start("--data_path", here / "n.json", "--reward_model_name_or_path", folder / "rm", *HUMAN,
          "--output_path", here / "best.json", "--leave_out", "selfinstruct")  # fmt: skip
    rows = zip(best(here / "best.json"), best(here / "n.json"), scores, strict=False)
    assert [chosen["output"] == row["outputs"][np.argmax(of)] for chosen, row, of in rows] == [True] * 3
    assert len(best(here / "best.json")) == 3


def test_sampled_answers_are_killed_continued_and_the_same_bytes(folder, here):
    """SIGKILL while the third prompt is scored; then again to the end, against a run that was never stopped."""
    (here / "reward.py").write_text(
        "import os, pathlib\n" + LONGEST.replace(
            "    return", "    mark = pathlib.Path(__file__).with_name('killed')\n"
            "    if record.prompt[0].content == 'be kind' and not mark.exists():\n"
            "        mark.touch()\n        os.kill(os.getpid(), 9)\n    return"
        )
    )  # fmt: skip
    words = ["--policy_name_or_path", folder / "lm", *HUMAN, "--data_path", here / "davinci.json", "--n", "1,8",
             "--max_new_tokens", 5, "--batch_size", 1, "--reward_fn", f"{here / 'reward.py'}:length"]  # fmt: skip
    killed = run("inference/rerank.py", *words, "--output_path", here / "a.json")
    assert killed.returncode == -9 and (here / "killed").exists() and not (here / "a-of-8.json").exists()
    assert len(list((here / ".a-samples-function.jsonl.parts").glob("rank-0.jsonl"))) == 1
    start(*words, "--output_path", here / "a.json")
    start(*words, "--output_path", here / "b.json")
    for ending in ("-samples.jsonl", "-samples.json", "-samples-function.jsonl", "-of-1.json", "-of-8.json"):
        assert (here / f"a{ending}").read_bytes() == (here / f"b{ending}").read_bytes()
    assert [len(row["outputs"]) for row in best(here / "a-samples.json")] == [8] * 4
    scored = list(read_records(here / "a-samples-function.jsonl"))
    for record, row in zip(scored, best(here / "a-of-8.json"), strict=True):
        (name,) = record.answers[0].scores
        assert len(row["output"]) == max(answer.scores[name] for answer in record.answers) != len(REFERENCE)
        assert row["generator"] == f"{folder.name}/lm"


def test_implicit_reward_and_perplexity_are_those_of_plain_transformers(folder, here):
    lm_folder(here / "reference", seed=3)
    write_rows(here / "x.jsonl", [{"prompt": text, "answers": ["yes", "it is five", "no"]} for text in TEXTS])
    words = ["--data_path", here / "x.jsonl", "--model_name_or_path", folder / "lm", *HUMAN]
    start(
        *words, "--reference_model_name_or_path", here / "reference", "--beta", 0.1, "--output_path", here / "i.jsonl"
    )
    start(*words, "--score_by", "perplexity", "--output_path", here / "p.jsonl")
    renderer = Renderer(AutoTokenizer.from_pretrained(folder / "lm"), "human_assistant")
    plain = [AutoModelForCausalLM.from_pretrained(path).eval() for path in (folder / "lm", here / "reference")]
    pairs = zip(read_records(here / "x-implicit.jsonl"), read_records(here / "x-perplexity.jsonl"), strict=True)
    for implicit, perplexity in pairs:
        for k in range(3):
            whole = renderer.group(implicit, [k])
            answer = torch.from_numpy(whole.answers[0]).long()
            ids, found = torch.cat((torch.from_numpy(whole.prompt).long(), answer)), []
            for model in plain:
                with torch.no_grad():
                    logprobs = model(ids[None]).logits[0, len(whole.prompt) - 1 : -1].log_softmax(-1)
                found.append(float(logprobs.gather(-1, answer[:, None]).sum()))
            (score,), (mean,) = implicit.answers[k].scores.values(), perplexity.answers[k].scores.values()
            assert score == pytest.approx(0.1 * (found[0] - found[1]), abs=1e-4)
            assert mean == pytest.approx(found[0] / len(answer), abs=1e-4)
    chosen = read_records(here / "p.jsonl")
    for record, one in zip(read_records(here / "x-perplexity.jsonl"), chosen, strict=True):
        likeliest = max(record.answers, key=lambda answer: answer.scores["logprob_per_token"])
        assert one.answers[0].text == likeliest.text


def test_a_judge_rates_through_the_ledger_and_the_truth_is_beside_its_scores(tmp_path, capsys):
    """The oracle's server as the judge. Curves against all subsets by hand; the second run asks nothing."""
    items = exchanges(6, turns=1)
    data = tmp_path / "x.jsonl"
    write_jsonl(data, [of_world(item, number) for number, item in enumerate(items)])
    with oracle() as url:
        words = ["--data_path", data, "--judge", "oracle", "--base_url", url, "--output_path", tmp_path / "b.jsonl"]
        start(*words, "--dry_run")
        assert sent(url) == 0 and "dry run: 18 requests" in capsys.readouterr().out
        start(*words)
        first, asked = (tmp_path / "b.jsonl").read_bytes(), sent(url)
        start(*words)
        assert sent(url) == asked == 18 and (tmp_path / "b.jsonl").read_bytes() == first
    found = best(tmp_path / "b-curve.json")
    for n in (1, 2, 3):
        expected, worth = [], []
        for record in read_records(tmp_path / "x-judge.jsonl"):
            scores, truth = [a.scores["oracle"] for a in record.answers], utilities(record)
            top = [max(those, key=lambda k: (scores[k], -k)) for those in itertools.combinations(range(3), n)]
            expected.append(statistics.fmean(scores[k] for k in top))
            worth.append(statistics.fmean(truth[k] for k in top))
        assert found["expected"].get(str(n), {}).get("score", {}).get("value") == pytest.approx(
            statistics.fmean(expected)
        )
        assert found["true_reward"][str(n)]["value"] == pytest.approx(statistics.fmean(worth))
    page = (tmp_path / "b-curve.html").read_text()
    assert page.count("<svg") == 4 and "true reward" in page and "http" not in page


def test_answers_of_a_prompt_share_it_in_rows_of_bounded_length(folder, here, monkeypatch):
    """64 answers, the prompt once in each row; a row holds at most --tokens_per_batch tokens (filled up to 64s)."""
    rows, forward = [], RewardModel.forward

    def watched(self, batch):
        rows.append((batch.tokens, len(batch.answer_ends)))
        return forward(self, batch)

    write_rows(here / "x.jsonl", [{"prompt": TEXTS[1], "answers": [f"it is {n}" for n in range(64)]}])
    words = ["--data_path", here / "x.jsonl", "--reward_model_name_or_path", folder / "rm", *HUMAN, "--overwrite"]
    start(*words)
    (whole,) = read_records(here / "x-rm.jsonl")
    monkeypatch.setattr(RewardModel, "forward", watched)
    start(*words, "--tokens_per_batch", 200)
    (split,) = read_records(here / "x-rm.jsonl")
    assert sum(answers for _, answers in rows) == 64 and all(tokens <= 200 for tokens, _ in rows)
    prompt = (sum(tokens for tokens, _ in rows) - rows_tokens(folder, whole)) / len(rows)
    assert prompt == rows_prompt(folder, whole) and len(rows) < 10
    for one, other in zip(whole.answers, split.answers, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)


def rows_tokens(folder, record):
    renderer = Renderer(AutoTokenizer.from_pretrained(folder / "rm"), "human_assistant")
    return sum(map(len, renderer.group(record, list(range(len(record.answers)))).answers))


def rows_prompt(folder, record):
    return len(Renderer(AutoTokenizer.from_pretrained(folder / "rm"), "human_assistant").group(record, [0]).prompt)


def test_from_the_tutoring_split_to_responses_csv_in_two_commands(folder, tmp_path, monkeypatch):
    """What is sampled has the four turns that training reads, and `tutor.py pairs` reads the file."""
    monkeypatch.chdir(tmp_path)
    taught = [conversation(f"{n}", f"q{n}", turn(), "It needs ATP.", turn("b")) for n in range(203)]
    (tmp_path / "bio-dataset-1.json").write_text(json.dumps(taught))
    tutor.main(["split", "--data_dir", str(tmp_path)])
    prompts = list(records_of(f"formatted:{tmp_path / 'bio-dpo_formatted.json'}"))
    assert [message.role for message in prompts[1].prompt] == ["system", "user", "assistant", "user"]
    words = ["--data_path", "bio-dpo_formatted.json", "--num_samples", 1, "--temperature", 0.3, "--max_new_tokens", 5]
    lm(folder, "generate", *words, "--output_path", "responses.jsonl", "--max_prompt_seq_len", 200)
    convert.main(
        ["--from", "records", "--to", "responses-csv", "--input", "responses.jsonl", "--output", "responses.csv"]
    )
    with open("responses.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    split = best(tmp_path / "bio-dpo_formatted.json")
    assert [ast.literal_eval(row["gpt"]) for row in rows] == list(map(ast.literal_eval, split["chosen"]))
    assert [record.prompt for record in records_of("responses.csv")] == [record.prompt for record in prompts]
    sampled = [record.answers[1].text for record in read_records("responses.jsonl")]
    assert [row["response"] for row in rows] == sampled
    row = {name: values[1] for name, values in split.items()}
    assert answer_row(row, "x").record.prompt == Tutoring.record(row, "x").prompt == prompts[1].prompt
    del row["chosen"]
    assert answer_row(row, "x").record.prompt == prompts[1].prompt
    tutor.main(["pairs", "--response_file", "responses.csv", "--data_file", "pairs.json"])
    assert len(best(tmp_path / "pairs.json")["prompt"]) == 6


ROW = '{"instruction": "q", "outputs": ["b"]'


@pytest.mark.parametrize(
    "content, words, says",
    [
        ('[{"generator": "a", "outputs": ["b"]}]', [], "x.json[1]: found the columns generator, outputs"),
        (f'[{ROW}}}, {{"instr', [], "x.json:1: not JSON"),
        ('[{"instruction": "q", "outputs": ["b", 3]}]', [], "x.json[1]: column 'outputs' is "),
        (f'[{ROW}, "score": [NaN]}}]', [], "x.json[1]: answer 1 has the score nan of score"),
        (f'[{ROW}}}, {{"instruction": "p", "outputs": []}}]', [], "x.json[2]: no answers to choose from"),
        (f"[{ROW}}}]", ["--reward_fn", "{h}/nan.py:nan"], "expected 1 finite numbers"),
        (f"[{ROW}}}]", ["--policy_name_or_path", "p"], "nothing scores the sampled answers; give --reward"),
        (f"[{ROW}}}]", ["--top_p", "0.5"], "--top_p is for sampling; give --policy_name"),
        (f"[{ROW}}}]", ["--judge", "m", "--reward_fn", "f"], "--reward_fn is for --score_by"),
        (f"[{ROW}}}]", ["--max_usd", "1"], "limits of asking are for --judge"),
        (f"[{ROW}}}]", ["--leave_out", "koala", "selfinstruct"], "have no scores; give"),
        (f'[{ROW}, "dataset": "koala"}}]', ["--leave_out", "koala"], "leaves out every row"),
        (f"[{ROW}}}]", ["--score_by", "implicit"], "--reference_model_name_or_path is miss"),
    ],
)
def test_wrong_input_is_one_clear_line(here, capsys, content, words, says):
    (here / "x.json").write_text(content)
    (here / "nan.py").write_text("def nan(record):\n    return [float('nan') for _ in record.answers]\n")
    words = [word.format(h=here) for word in words]
    code = run_here(ROOT / "inference/rerank.py", "--data_path", here / "x.json", *words)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(errors) == 1 and says in errors[0], errors
    assert not list(here.glob("x-*"))


def test_a_prompt_that_comes_twice_is_named(here, capsys):
    rows = [{"instruction": "q", "outputs": ["b", "cc"], "score": [0.0, n]} for n in (1.0, 2.0)]
    write_rows(here / "x.jsonl", rows)
    start("--data_path", here / "x.jsonl")
    said = capsys.readouterr()
    assert "x.jsonl:2 has the prompt of" in said.out + said.err and os.path.exists(here / "x-best-of-all.jsonl")


def test_accuracy_of_a_reward_model_on_comparisons(folder, here, capsys):
    """Pairs of any class; turned round, what was right is wrong."""
    pairs = [{"prompt": text, "chosen": "yes", "rejected": "it is five"} for text in TEXTS]
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs]
    found = []
    for name, rows in (("a", pairs), ("b", turned)):
        write_rows(here / f"{name}.jsonl", rows)
        rm(folder, "--data_path", f"pairs:{here / f'{name}.jsonl'}")
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("accuracy on comparisons:")]
        found.append(float(line.split()[3]))
        assert "over 4 prompts (4 pairs)" in line
        scored = list(read_records(here / f"{name}-rm.jsonl"))
        right = [a.scores[f"{folder.name}/rm"] > b.scores[f"{folder.name}/rm"] for a, b in (r.answers for r in scored)]
        assert found[-1] == pytest.approx(statistics.fmean(right), abs=1e-3)
    assert sum(found) == pytest.approx(1)
