"""data_collect/request.py on the oracle over HTTP: every kind, every shape of rows, and nothing asked twice."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from oracle import oracle, wait_for
from requesting import PROGRAM, exchanges, formatted, lines, record, request, sent, write_lines
from toys import ROOT

from utils.feedback import PromptTemplates
from utils.feedback.forms import MATERIAL
from utils.records import Answer, Message, Record
from utils.records.files import read_records, write_jsonl
from utils.world.judge import Judge
from utils.world.oracle import assess
from utils.world.requests import read_request

WORLD = exchanges(12)


@pytest.fixture(scope="module")
def url():
    with oracle() as address:
        yield address


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "records.jsonl"
    write_jsonl(path, [record(item, number) for number, item in enumerate(WORLD)])
    return path


def group(tmp_path, **more):
    """Lines as grouping writes them: two outputs, a task, a kind each."""
    types, rows = ("critic", "refine", "prefer"), []
    for number, (_, turns, good, poor) in enumerate(exchanges(9, 1, turns=1)):
        rows.append({"prompt": formatted(turns), "task": "dialog", "loss": number / 10, "difficulty": "easy",
                     "feedback_type": types[number % 3], "output": {"m7": poor, "m13": good}, **more})  # fmt: skip
    return write_lines(tmp_path / "group.txt", rows)


# ---- records


def test_ratings_are_the_oracles_and_nothing_is_asked_twice(url, records, tmp_path, capsys):
    output = tmp_path / "rated.jsonl"
    words = ("--kind", "rating", "--input_files", records, "--output_file", output, "--base_models", "good,poor")
    before = sent(url)
    assert request(url, *words) == 0
    assert "24 questions: 24 parsed" in capsys.readouterr().out
    for (exchange, _, good, poor), found in zip(WORLD, read_records(output), strict=True):
        truth = [assess(exchange, text).rating for text in (good, poor)]
        assert [answer.rating for answer in found.answers] == [*truth, None]
    assert sent(url) == before + 24 and (tmp_path / "rated.jsonl.ledger").exists()
    first = output.read_bytes()
    output.unlink()
    assert request(url, *words) == 0
    assert output.read_bytes() == first and sent(url) == before + 24
    with records.open("a") as more:  # two more rows, two more answers each: these alone are paid for
        for number, item in enumerate(exchanges(2, 99)):
            more.write(json.dumps(record(item, f"new{number}").to_json()) + "\n")
    assert request(url, *words) == 0
    assert len(lines(output)) == 14 and sent(url) == before + 28
    assert output.read_bytes().startswith(first)


def test_another_prompt_is_another_question(url, records, tmp_path):
    words = ("--kind", "rating", "--input_files", records, "--output_file", tmp_path / "out.jsonl", "--nums", "2,4")
    before = sent(url)
    assert request(url, *words) == 0 and sent(url) == before + 6
    mine = tmp_path / "mine.txt"
    mine.write_text("kind: rating; version: 1\n### Task: rating\nRate from $low to $high.\n\n### Conversation\n"
                    "$conversation\n\n### Answer\n$answer\n\n### Reply\n$reply\n")  # fmt: skip
    assert request(url, *words, "--prompt_file", mine) == 0 and sent(url) == before + 12
    assert [row["id"] for row in lines(tmp_path / "out.jsonl")] == ["r2", "r3"]
    assert request(url, *words, "--prompt_file", mine, "--scale", "1,100") == 0 and sent(url) == before + 18
    assert any(answer["rating"] > 7 for row in lines(tmp_path / "out.jsonl") for answer in row["answers"])


def test_preferences_in_both_orders(url, records, tmp_path, capsys):
    output, before = tmp_path / "preferred.jsonl", sent(url)
    words = ("--kind", "preference", "--input_files", records, "--output_file", output, "--base_models", "good,poor")
    assert request(url, *words) == 0 and sent(url) == before + 24
    for found in read_records(output):
        (verdict,), (both,) = found.verdicts, found.meta["by_order"]
        assert (verdict.a, verdict.b, verdict.judge, verdict.order) == (0, 1, "oracle", None)
        assert verdict.preferred == both["ab"] == both["ba"]  # this judge does not look at the place
    assert "12 of 12 pairs judged alike" in capsys.readouterr().out
    verdicts = [found.verdicts for found in read_records(output)]
    assert request(url, *words, "--structured") == 0 and sent(url) == before + 48
    assert [found.verdicts for found in read_records(output)] == verdicts


def test_a_judge_that_looks_at_the_place_is_found_out(records, tmp_path, capsys):
    with oracle(position_bias=1.0) as url:
        words = ("--input_files", records, "--output_file", tmp_path / "out.jsonl", "--base_models", "good,poor")
        assert request(url, "--kind", "preference", *words) == 0
    assert {v.preferred for found in read_records(tmp_path / "out.jsonl") for v in found.verdicts} == {"tie"}
    assert "0 of 12 pairs judged alike; the answer shown first won 24 of 24" in capsys.readouterr().out


def test_rankings(url, records, tmp_path):
    output, before = tmp_path / "ranked.jsonl", sent(url)
    words = ("--kind", "ranking", "--input_files", records, "--output_file", output)
    assert request(url, *words, "--listwise") == 0 and sent(url) == before + 12
    for found in read_records(output):
        ranks = [answer.rank for answer in found.answers]
        assert sorted(ranks) in ([1, 2, 3], [1, 1, 3], [1, 2, 2], [1, 1, 1]) and len(found.verdicts) == 3
        for v in found.verdicts:
            assert v.preferred == ("a" if ranks[v.a] < ranks[v.b] else "b" if ranks[v.a] > ranks[v.b] else "tie")
    assert request(url, *words, "--nums", "2") == 0 and sent(url) == before + 24  # 2 rows, 3 pairs, 2 orders


def test_critiques_then_improvements_then_what_they_improve(url, records, tmp_path, capsys):
    critiques, improved, explained = (tmp_path / f"{name}.jsonl" for name in ("critiques", "improved", "explained"))
    words = ("--base_models", "poor", "--input_files")
    assert request(url, "--kind", "critique", *words, records, "--output_file", critiques) == 0
    assert request(url, "--kind", "improve", *words, critiques, "--output_file", improved) == 0
    assert request(url, "--kind", "explain", "--input_files", improved, "--output_file", explained) == 0
    gains = []
    for (exchange, _, _, poor), found in zip(WORLD, read_records(explained), strict=True):
        answer = found.answers[1]
        assert answer.critique and found.answers[0].critique is None and answer.refinement != poor
        told = [{"answer": 1, "why": "unchanged"}] if answer.refinement is None else None
        assert found.meta.get("not_improved") == told
        gains.append(assess(exchange, answer.refinement or poor).utility - assess(exchange, poor).utility)
        assert [each["of"] for each in found.meta["explain"]] == ["critique"]
    assert sum(gains) / len(gains) > 1
    assert "critique: A " in capsys.readouterr().out


def test_replies_that_cannot_be_read_are_kept_and_named(url, tmp_path, capsys):
    answers = (Answer("Roses."), Answer("Violets."))
    rows = [Record((Message("user", "Write a poem."),), answers, id="x"), record(WORLD[0], 1)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    words = ("--input_files", tmp_path / "rows.jsonl", "--output_file", tmp_path / "out.jsonl")
    assert request(url, "--kind", "ranking", *words, "--orders", "fixed") == 0
    poem, other = read_records(tmp_path / "out.jsonl")
    assert [v.preferred for v in poem.verdicts] == ["refused"] and len(other.verdicts) == 3
    said = capsys.readouterr().out
    assert "4 questions: 3 parsed, 1 unparsed" in said and f"1 unparsed: refusal ({tmp_path}/rows.jsonl:1)" in said


# ---- lines of prompt, outputs, feedback


def test_every_line_by_its_own_type(url, tmp_path):
    source, output, before = group(tmp_path), tmp_path / "feedbacks.txt", sent(url)
    words = ("--input_files", source, "--output_file", output, "--base_model", "m7,m13")
    assert request(url, *words, "--orders", "fixed") == 0 and sent(url) == before + 9
    for row, found in zip(lines(source), lines(output), strict=True):
        assert {**found, "feedback": 0, "prompt-api": 0} == {**row, "feedback": 0, "prompt-api": 0}
        asked = read_request(found["prompt-api"])
        assert asked.task == {"critic": "critique", "refine": "refinement"}.get(row["feedback_type"], "preference")
        shown = asked.answers if asked.task == "preference" else {"A": asked.parts["Answer"]}
        assert shown["A"] == row["output"]["m7"] and shown.get("B", row["output"]["m13"]) == row["output"]["m13"]
        system = PromptTemplates([], MATERIAL).of(asked.task, "dialogue").system
        messages = [{"role": "system", "content": system}, {"role": "user", "content": found["prompt-api"]}]
        assert found["feedback"] == Judge().reply(messages)


def test_a_line_has_one_critique(url, tmp_path):
    source, before = group(tmp_path, feedback_type="critic"), sent(url)
    assert request(url, "--input_files", source, "--output_file", tmp_path / "out.txt") == 0 and sent(url) == before + 9


def test_lines_in_both_orders(tmp_path):
    source, output = group(tmp_path), tmp_path / "feedbacks.txt"
    words = ("--kind", "preference", "--input_files", source, "--output_file", output, "--base_models", "m13,m7")
    with oracle() as url:
        assert request(url, *words) == 0
    for row, found in zip(lines(source), lines(output), strict=True):
        assert list(found["output"]) == ["m13", "m7"] and found["output"] == row["output"]  # A is the first
        first, second = found["feedback-both"]
        assert found["feedback"] == first and {first, second} in ({"Answer: A", "Answer: B"}, {"Answer: C"})
        assert found["feedback_type"] == "prefer"
    with oracle(position_bias=1.0) as url:
        assert request(url, *words, "--ledger", tmp_path / "other.ledger") == 0
    assert {row["feedback"] for row in lines(output)} == {"Answer: C"}
    assert all(row["feedback-both"] == ["Answer: A", "Answer: A"] for row in lines(output))


def test_lines_improved_and_explained(url, tmp_path):
    words = ("--base_models", "m7", "--input_files")
    criticised, improved, explained = (tmp_path / name for name in ("critic.txt", "improved.txt", "explained.txt"))
    source = group(tmp_path, feedback_type="critic")
    assert request(url, *words, source, "--output_file", criticised) == 0
    assert request(url, "--kind", "improve", *words, criticised, "--output_file", improved) == 0
    rows = lines(improved)
    assert rows and all(row["reject"] == row["output"]["m7"] != row["chosen"] for row in rows)
    pairs = write_lines(
        tmp_path / "pairs.txt", [{k: row[k] for k in ("prompt", "chosen", "reject", "task")} for row in rows]
    )
    assert request(url, "--kind", "explain", "--input_files", pairs, "--output_file", explained) == 0
    assert {row["judge"] for row in lines(explained)} <= {"Answer: A", "Answer: B", "Answer: C"}


def test_lines_gain_a_second_models_answers(url, tmp_path):
    rows = [{"prompt": formatted(turns), "task": "qa", "outputs": {"m7": "Hm."}} for _, turns, *_ in exchanges(3, 5, 1)]
    source, output = write_lines(tmp_path / "problems.txt", rows), tmp_path / "answered.txt"
    assert request(url, "--kind", "completion", "--input_files", source, "--output_file", output) == 0
    for row, found in zip(rows, lines(output), strict=True):
        assert found == {**row, "outputs": {"m7": "Hm.", "oracle": found["outputs"]["oracle"]}}


# ---- CSV files of instructions


def instructions(tmp_path, columns, rows):
    path = tmp_path / "in.csv"
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([columns, *rows])
    return path


def test_ratings_csv(url, tmp_path):
    items = exchanges(4, 7, turns=1)
    rows = [(turns[0].content, "", text) for _, turns, *texts in items for text in texts]
    source = instructions(tmp_path, ("instruction", "input", "response"), rows)
    output = tmp_path / "feedback.csv"
    assert request(url, "--kind", "rating", "--input_csv", source, "--save_feedback_csv", output) == 0
    truth = [assess(exchange, text).rating for exchange, _, *texts in items for text in texts]
    with output.open(newline="") as written:
        found = list(csv.reader(written))
    assert found == [[*row, str(score)] for row, score in zip(rows, truth, strict=True)]
    assert (
        request(url, "--kind", "rating", "--input_csv", source, "--save_feedback_csv", output, "--start_index", "6")
        == 0
    )
    assert len(output.read_text().splitlines()) == 2


def test_rankings_csv(url, tmp_path):
    items = exchanges(4, 8, turns=1)
    rows = [(turns[0].content, "", *texts) for _, turns, *texts in items]
    rows.append((items[0][1][0].content, "", "Same.", "Same."))
    rows.append(("Write a poem, a long one.", "on roses", "Roses.", "Violets, twice."))
    source = instructions(tmp_path, ("instruction", "input", "response1", "response2"), rows)
    output, before = tmp_path / "feedback.csv", sent(url)
    assert request(url, "--kind", "ranking", "--input_csv", source, "--save_feedback_csv", output) == 0
    assert sent(url) == before + 10  # the equal answers are not asked about
    with output.open(newline="") as written:
        found = list(csv.reader(written))
    assert [tuple(row[:4]) for row in found] == rows[:5]  # the poem was refused
    assert {row[4] for row in found} <= {"(a)", "(b)", "equal"} and found[4][4] == "equal"
    known = {"prompt": rows[0][0], "answers": list(rows[0][2:]), "verdicts": [{"a": 1, "b": 0, "preferred": "tie"}]}
    source = write_lines(tmp_path / "known.jsonl", [known])
    assert request(url, "--kind", "ranking", "--input_files", source, "--output_file", output) == 0
    assert len(output.read_text().splitlines()) == 1  # what was known before is not this judge's


# ---- generators, completions, lessons


def test_labels(url, tmp_path, capsys):
    items = exchanges(8, 3, turns=1)
    samples = tmp_path / "run" / "sharegpt_temp1.0"
    samples.mkdir(parents=True)
    ours = {f"Human: {turns[0].content}\n\nAssistant: ": [good] for _, turns, good, _ in items[:7]}
    (samples / "fastforward0.json").write_text(json.dumps(ours))
    theirs = {turns[0].content: [good if n == 6 else poor] for n, (_, turns, good, poor) in enumerate(items)}
    (tmp_path / "run" / "chatgpt.json").write_text(json.dumps(theirs))
    words = ("--kind", "label", "--base_dir", tmp_path / "run", "--max_num_comparisons", "5")
    before = sent(url)
    assert request(url, *words, "--filter_out_fraction", "0.25") == 0
    assert sent(url) == before + 4
    path = tmp_path / "run" / "comparisons_oracle" / "temp1.0_vs_chatgpt" / "annotations.json"
    rows = json.loads(path.read_text())
    assert [row["instruction"] for row in rows] == list(theirs)[2:7]
    for row, (_, _, good, poor) in zip(rows, items[2:7], strict=True):
        assert list(row) == [
            "instruction",
            "output_1",
            "generator_1",
            "output_2",
            "generator_2",
            "annotator",
            "preference",
        ]
        assert (row["generator_1"], row["generator_2"], row["annotator"]) == ("chatgpt", "temp1.0", "oracle")
        assert row["output_2"] == good and row["output_1"] in (poor, good) and row["preference"] in (0, 1, 2)
    assert rows[-1]["output_1"] == rows[-1]["output_2"] and rows[-1]["preference"] == 0
    assert sum(row["preference"] == 2 for row in rows) > sum(row["preference"] == 1 for row in rows)
    said = capsys.readouterr().out
    assert "5 comparisons; 1 prompts of chatgpt without an answer of temp1.0; 2 prompts left out" in said


def test_completions(url, tmp_path, capsys):
    prompts = [turns[0].content for _, turns, *_ in exchanges(4, 4, turns=1)]
    rows = [{"instruction": text} for text in [*prompts, prompts[1], "a " * 2000, "x" * 8000, "late"]]
    source, output, before = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "completions.json", sent(url)
    words = ("--kind", "completion", "--input_files", source, "--output_file", output, "--data_fraction", "0.875")
    assert request(url, *words, "--ff", "1") == 0 and sent(url) == before + 3
    found = json.loads(output.read_text())
    assert list(found) == prompts[1:] and all(len(texts) == 1 and texts[0] for texts in found.values())
    assert "8 rows, 3 prompts to answer; 2 are too long" in capsys.readouterr().out
    assert request(url, *words, "--max_tokens", "3") == 2  # every answer is cut: none is left
    assert "no rows left to write" in capsys.readouterr().err
    words = ("--kind", "completion", "--input_files", source, "--output_file", tmp_path / "out.jsonl", "--nums", "4")
    assert request(url, *words, "--temperature", "0.5", "--max_requests", "1", "--concurrency", "1") == 4
    assert "out.jsonl: 1 rows; 3 prompts without an answer" in capsys.readouterr().out
    assert request(url, *words, "--max_tokens", "3") == 2
    assert "out.jsonl: no rows left to write; 4 answers that did not come to their end" in capsys.readouterr().err


def test_lessons(url, tmp_path):
    objectives, output = tmp_path / "objectives.txt", tmp_path / "lessons.json"
    objectives.write_text("What is 3 + 4?\n\nWhat is 2 x 3?\nthe fall of Rome\n")
    before = sent(url)
    assert request(url, "--kind", "conversation", "--objectives", objectives, "--output_file", output) == 0
    assert sent(url) == before + 5  # Rome is not of this world: its problem fails, and no lesson is asked for
    rows = json.loads(output.read_text())
    assert [row["objective"] for row in rows] == ["What is 3 + 4?", "What is 2 x 3?"]
    for row in rows:
        first, second = row["conversations"][:2]
        assert first["from"] == "human" and "\nStudent: " in first["value"] and second["from"] == "gpt"
        assert json.loads(second["value"])["Tutorbot"] and "Student" not in json.loads(second["value"])


# ---- ways of asking


def test_a_dry_run_asks_nothing(url, records, tmp_path, capsys):
    before = sent(url)
    words = ("--kind", "rating", "--input_files", records, "--output_file", tmp_path / "out.jsonl", "--dry_run")
    assert request(url, *words, "--price", "1,2", "--max_tokens", "9") == 0
    assert sent(url) == before and not (tmp_path / "out.jsonl").exists() and "36" in capsys.readouterr().out


def test_anthropics_api(url, records, tmp_path):
    output = tmp_path / "rated.jsonl"
    words = ("--kind", "rating", "--input_files", records, "--output_file", output, "--provider", "anthropic")
    assert request(url.removesuffix("/v1"), *words) == 0
    for (exchange, _, good, _), found in zip(WORLD, read_records(output), strict=True):
        assert found.answers[0].rating == assess(exchange, good).rating


def test_a_run_that_stops_at_its_limit_goes_on(url, records, tmp_path, capsys):
    words = ("--kind", "rating", "--input_files", records, "--output_file", tmp_path / "out.jsonl")
    before = sent(url)
    assert request(url, *words, "--max_requests", "10") == 4
    assert sent(url) == before + 10
    assert request(url, *words) == 0 and sent(url) == before + 36
    assert "36 questions: 36 parsed" in capsys.readouterr().out


def test_faults_do_not_show(records, tmp_path):
    with oracle() as clean, oracle(faults="429=0.1,500=0.1,reset=0.1", seed=3) as faulty:
        words = ("--kind", "preference", "--input_files", records, "--base_models", "good,poor", "--output_file")
        assert request(clean, *words, tmp_path / "a.jsonl") == request(faulty, *words, tmp_path / "b.jsonl") == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_kill_loses_nothing(records, tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    with oracle(latency=0.2) as url:
        words = ("--kind", "rating", "--input_files", records, "--output_file", output, "--concurrency", "4",
                 "--temperature", "0")  # fmt: skip
        command = [sys.executable, PROGRAM, *words, "--base_url", url, "--api_type", "oracle"]
        process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
        wait_for(lambda: sent(url) >= 12)
        process.kill()
        process.wait()
        assert not output.exists()
        seen = sent(url)
        assert request(url, *words) == 0
        assert seen < 36 and 36 <= sent(url) <= 36 + 4  # what was in flight at the kill
    assert "36 questions: 36 parsed" in capsys.readouterr().out and len(lines(output)) == 12


DATA = Path(os.environ.get("PLUMBLINE_DATA", ROOT.parent / "shared" / "data"))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; PLUMBLINE_DATA names another place")
def test_real_files_are_read(url, tmp_path, capsys):
    """20 instructions with 5 answers each, of which two pairs are equal; 805 outputs of one model, twice."""
    sampled, outputs = (
        DATA / "sparse_feedback/sample_generation.json",
        DATA / "alpaca_eval/alpaca-7b/model_outputs.json",
    )
    words = ("--dry_run", "--input_files", sampled, "--output_file")
    assert request(url, "--kind", "rating", *words, tmp_path / "out.csv") == 0
    assert request(url, "--kind", "ranking", *words, tmp_path / "out.csv") == 0
    said = capsys.readouterr().out
    assert "dry run: 98 requests" in said and "dry run: 384 requests" in said
    words = ("--base_dir", tmp_path, "--input_files", outputs, outputs, "--model1_name", "a", "--model2_name", "b")
    assert request(url, "--kind", "label", "--max_num_comparisons", "900", *words) == 0
    rows = json.loads((tmp_path / "comparisons_oracle/a_vs_b/annotations.json").read_text())
    assert len(rows) == 805 and {row["preference"] for row in rows} == {0}
