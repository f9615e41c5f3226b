"""The whole of feedback collection on the oracle: a small world, teachers' answers, every kind of feedback through the
real server, sets of pairs; the ledger adds up; killed and started again, nothing is asked twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import in_process
import pytest
from oracle import control, oracle, oracle_program, wait_for
from toys import ROOT

from utils.llm.ledger import Ledger
from utils.records import Record
from utils.records.files import read_records, write_jsonl
from utils.world.exchanges import read_prompt
from utils.world.oracle import assess
from utils.world.serving.faults import key_of
from utils.world.tasks import critique

COLLECT = ROOT / "data_collect"
PROMPTS = 24
FAULTS = "429=0.05,429-retry-after=0.05,500=0.05,reset=0.05,malformed=0.05,slow=0.05"


def run(program, *words):
    assert in_process.run(COLLECT / program, *words) == 0


class Collected:
    """A folder of feedback: `ask(kind)` reads one file of it and writes another."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url

    def ask(self, output, given, *words, model="oracle"):
        """What request.py wrote, and the requests that the server saw for it."""
        before = control(self.url, "counts")["requests"]
        path = self.folder / output
        server = ("--provider", "openai", "--base_url", self.url, "--api_type", model, "--backoff", 0.02)
        run("request.py", "--input_files", self.folder / given, "--output_file", path, *server, *words)
        return list(read_records(path)), control(self.url, "counts")["requests"] - before

    def report(self, output):
        with Ledger(self.folder / f"{output}.ledger", create=False) as ledger:
            return ledger.report()


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """A world, and for each of its prompts four answers: two by each teacher, asked for over HTTP."""
    folder = tmp_path_factory.mktemp("collected")
    sizes = ["--num_demonstrations", 300, "--num_prompts", PROMPTS, "--num_pairs", 20, "--num_test", 5]
    run("make_world.py", "--output_dir", folder / "world", *sizes, "--vocab_size", 400)
    (folder / "prompts.jsonl").write_bytes((folder / "world/prompts/train.jsonl").read_bytes())
    with oracle(noise_temperature=0.0) as url:
        work = Collected(folder, url)
        given = "prompts.jsonl"
        for model, temperature in (("strong", 0), ("weak", 0), ("strong", 0.8), ("weak", 0.8)):
            output = f"{model}-{temperature}.jsonl"
            _, sent = work.ask(output, given, "--kind", "completion", "--temperature", temperature, model=model)
            assert sent == PROMPTS
            given = output
        records = [Record(r.prompt, r.answers) for r in read_records(folder / given)]  # one id for all that follows
        assert [[a.model for a in r.answers] for r in records] == [["strong", "weak"] * 2] * PROMPTS
        write_jsonl(folder / "answers.jsonl", records)
        yield work


def judged(records):
    """(record, its exchange, the assessments of its answers)."""
    for record in records:
        exchange = read_prompt(record.prompt)
        yield record, exchange, [assess(exchange, answer.text) for answer in record.answers]


# --- each kind gets what the oracle knows, and makes pairs ---


def test_ratings(collected):
    records, sent = collected.ask("ratings.jsonl", "answers.jsonl", "--kind", "rating")
    assert sent == len({(r.prompt, a.text) for r in records for a in r.answers}) > 3 * PROMPTS
    for record, _, seen in judged(records):
        assert [answer.rating for answer in record.answers] == [each.rating for each in seen]
    assert best_first(collected, "ratings.jsonl") > PROMPTS


def test_orders(collected):
    records, sent = collected.ask("orders.jsonl", "answers.jsonl", "--kind", "ranking", "--listwise")
    assert sent == PROMPTS
    for record, _, seen in judged(records):
        utilities = [each.utility for each in seen]
        for answer, mine in zip(record.answers, utilities, strict=True):
            assert answer.rank == 1 + sum(utility > mine for utility in utilities)
        for verdict in record.verdicts:
            gap = utilities[verdict.a] - utilities[verdict.b]
            assert verdict.preferred == ("a" if gap > 0 else "b" if gap < 0 else "tie")
    assert best_first(collected, "orders.jsonl") > 3 * PROMPTS


def test_preferences_in_both_orders(collected):
    records, sent = collected.ask("verdicts.jsonl", "answers.jsonl", "--kind", "ranking")
    assert sent > 10 * PROMPTS  # 6 pairs, 2 orders; equal texts are not asked about
    for record, _, seen in judged(records):
        for verdict in record.verdicts:
            gap = seen[verdict.a].rating - seen[verdict.b].rating
            assert verdict.preferred == ("a" if gap > 0 else "b" if gap < 0 else "tie")
        assert all(both["ab"] == both["ba"] for both in record.meta["by_order"])
    assert best_first(collected, "verdicts.jsonl") > 3 * PROMPTS


def test_critiques_improved_and_explained(collected):
    records, _ = collected.ask("critiques.jsonl", "answers.jsonl", "--kind", "critique")
    for record, exchange, _ in judged(records):
        assert [a.critique for a in record.answers] == [critique(exchange, a.text) for a in record.answers]
    improved, _ = collected.ask("improved.jsonl", "critiques.jsonl", "--kind", "improve")
    changed = 0
    for record, exchange, seen in judged(improved):
        for answer, was in zip(record.answers, seen, strict=True):
            if answer.refinement is None:
                assert answer.critique in ("It is a good answer.", "It is too long.")
            else:
                changed += 1
                assert assess(exchange, answer.refinement).utility > was.utility
    assert changed > 2 * PROMPTS and best_first(collected, "improved.jsonl") == changed
    explained, _ = collected.ask("explained.jsonl", "critiques.jsonl", "--kind", "explain")
    assert any(record.meta.get("explain") for record in explained)


def test_refinements(collected):
    records, _ = collected.ask("refined.jsonl", "answers.jsonl", "--kind", "refinement")
    for record, exchange, seen in judged(records):
        for answer, was in zip(record.answers, seen, strict=True):
            assert assess(exchange, answer.refinement).utility >= was.utility
    assert best_first(collected, "refined.jsonl", strictly=False) > PROMPTS


def test_lessons(collected):
    goals = collected.folder / "objectives.txt"
    goals.write_text("Find the capital of Japan.\nLearn what 3 x 4 is.\nWho wrote Faust?\n")
    lessons = collected.folder / "lessons.json"
    words = ("--provider", "openai", "--base_url", collected.url, "--api_type", "oracle", "--backoff", 0.02)
    run("request.py", "--kind", "conversation", "--objectives", goals, "--output_file", lessons, *words)
    rows = json.loads(lessons.read_text())
    assert [row["problem"]["Solution"] for row in rows] == ["The answer is Tokyo.", "The answer is 12."]
    assert all(len(row["conversations"]) == 10 for row in rows)
    report = collected.report("lessons.json")
    assert report["parsers"]["problem"]["unparsed"] == 1 and report["requests"] == 5  # Faust is not of its world


def best_first(collected, name, strictly=True):
    """How many pairs pairs.py makes of a file; in each the oracle, which does not err here, rates the chosen higher."""
    sets = collected.folder / f"sets-{name}"
    run("pairs.py", "--data_path", collected.folder / name, "--output_dir", sets, "--valid_share", 0.2, "--stats")
    parts = [list(read_records(sets / f"{part}.jsonl")) for part in ("train", "valid")]
    prompts = [{record.prompt for record in part} for part in parts]
    assert all(prompts) and not prompts[0] & prompts[1]
    for record, _, seen in judged(parts[0] + parts[1]):
        ((win, lose),) = record.pairs()
        gap = seen[win].utility - seen[lose].utility
        assert gap > 0 or (gap == 0 and not strictly)
    return len(parts[0] + parts[1])


# --- structured replies, Anthropic's API, and a judge that errs ---


def test_schemas_and_the_other_api_say_the_same(collected):
    plain, _ = collected.ask("plain.jsonl", "answers.jsonl", "--kind", "rating", "--nums", 5)
    by_schema, _ = collected.ask("schema.jsonl", "answers.jsonl", "--kind", "rating", "--nums", 5, "--structured")
    address = ("--provider", "anthropic", "--base_url", collected.url.removesuffix("/v1"), "--max_tokens", 100)
    path = collected.folder / "anthropic.jsonl"
    words = ("--kind", "rating", "--nums", 5, "--api_type", "oracle", *address)
    run("request.py", "--input_files", collected.folder / "answers.jsonl", "--output_file", path, *words)
    assert plain == by_schema == list(read_records(path))
    with Ledger(f"{path}.ledger", create=False) as ledger:
        assert ledger.report()["parsed"] == ledger.report()["requests"] > 10


def test_a_judge_that_favours_a_place_is_found_out(collected, capsys):
    with oracle(noise_temperature=0.0, position_bias=0.5) as url:
        Collected(collected.folder, url).ask("biased.jsonl", "answers.jsonl", "--kind", "ranking")
    records = list(read_records(collected.folder / "biased.jsonl"))
    said = Counter(both["ab"] == both["ba"] for record in records for both in record.meta["by_order"])
    assert said[False] > 0.2 * said.total()
    for record, _, seen in judged(records):  # what is left when both orders agree is hardly ever wrong
        for verdict in record.verdicts:
            gap = seen[verdict.a].rating - seen[verdict.b].rating
            assert verdict.preferred == "tie" or gap * (1 if verdict.preferred == "a" else -1) > 0
    assert "both orders: " in capsys.readouterr().out


# --- nothing is lost, nothing is asked twice ---


def test_the_report_adds_up(collected):
    """The ledger against the server's own counts, with every fault that passes."""
    with oracle(noise_temperature=0.0, faults=FAULTS, slow=0.05, retry_after=0.05) as url:
        work = Collected(collected.folder, url)
        records, sent = work.ask("faulty.jsonl", "answers.jsonl", "--kind", "rating", "--max_retries", 20)
        counts, report = control(url, "counts"), work.report("faulty.jsonl")
        again, more = work.ask("faulty.jsonl", "answers.jsonl", "--kind", "rating", "--max_retries", 20)
    clean, _ = collected.ask("ratings.jsonl", "answers.jsonl", "--kind", "rating")
    assert records == clean == again and more == 0
    assert report["attempts"] == sent and report["answered"] == report["requests"] == counts["answered"]
    assert report["retries"] == sum(n for kind, n in counts["faults"].items() if kind != "slow") > 10
    assert report["requests"] + report["retries"] == report["attempts"] and report["parsed"] == report["requests"]


def stored(path):
    """Server keys of the bodies that a ledger has answers to."""
    with Ledger(path, create=False) as ledger:
        return {key_of(row["body"]) for state in ("parsed", "unparsed", "unread") for row in ledger.rows(state)}


@pytest.mark.slow
def test_killed_and_started_again(collected, tmp_path):
    words = ["--input_files", collected.folder / "answers.jsonl", "--output_file", tmp_path / "verdicts.jsonl"]
    words += ["--kind", "ranking", "--api_type", "oracle", "--provider", "openai", "--concurrency", 8]
    words += ["--backoff", 0.02, "--max_retries", 20]
    ledger, settled, served = tmp_path / "verdicts.jsonl.ledger", set(), {}
    flags = ("--faults", FAULTS, "--slow", "0.05", "--retry_after", "0.05", "--latency", "0.05")
    with oracle_program(tmp_path, *flags, "--noise_temperature", "0") as (_, url):
        command = [str(word) for word in (sys.executable, COLLECT / "request.py", *words, "--base_url", url)]
        for kill in range(3):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT, env={**os.environ})
            wait_for(lambda goal=60 * (kill + 1): control(url, "counts")["answered"] >= goal)
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(0.3)  # the server notices that its client has gone
            bodies = control(url, "counts")["bodies"]
            assert all(bodies[key]["requests"] == served[key] for key in settled)
            settled = stored(ledger)
            served = {key: tally["requests"] for key, tally in bodies.items()}
        assert len(settled) > 100 and not (tmp_path / "verdicts.jsonl").exists()
        assert subprocess.run(command, stdout=subprocess.DEVNULL, cwd=ROOT).returncode == 0
        counts = control(url, "counts")
        assert subprocess.run(command, stdout=subprocess.DEVNULL, cwd=ROOT).returncode == 0
        assert control(url, "counts") == counts
    assert all(counts["bodies"][key]["requests"] == served[key] for key in settled)
    again = sum(tally["answered"] - 1 for tally in counts["bodies"].values())
    assert 0 <= again <= 3 * 8  # answered, and killed before it was stored: at most what was in flight
    with Ledger(ledger, create=False) as kept:
        report = kept.report()
    assert report["answered"] == report["requests"] == len(counts["bodies"]) and report["planned"] == 0
    assert again <= report["possibly_billed"] and report["attempts"] >= counts["requests"]
    expected, _ = collected.ask("verdicts.jsonl", "answers.jsonl", "--kind", "ranking")
    assert list(read_records(tmp_path / "verdicts.jsonl")) == expected
