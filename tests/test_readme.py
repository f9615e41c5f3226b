"""The commands of README.md, run as a person types them: in a copy of the checkout, on a world in small, with the paid
judge's requests going to the oracle under the same name. Not run: `bash run.sh` (twenty minutes) and `bash test.sh`."""

import json
import random
import re
import socket

import pytest
from checkout import WAIT, fences, type_in
from toys import ROOT

from utils.llm.ledger import Ledger
from utils.records.files import read_records

FIRST, INSTALL, OWN_PAIRS, REAL, OWN_CSV, ORACLE, PAID, OWN, INFERENCE = fences(
    (ROOT / "README.md").read_text(encoding="utf-8"), "bash"
)
SETTINGS, COMMANDS = ORACLE.split("\n\n")  # of the judge; the five commands
pytestmark = pytest.mark.slow


def asked(checkout, folder):
    """What pairs.py made, and the report of a ledger."""
    assert list(read_records(checkout / folder / "sets/train.jsonl"))
    with Ledger(checkout / folder / "rankings.jsonl.ledger", create=False) as ledger:
        return ledger.report()


def test_a_script_for_other_gpus_is_one_line(checkout):
    pairs = checkout / "output/tutor/world/pairs"
    said = type_in(checkout, OWN_PAIRS.replace("/path/to/pairs", str(pairs)), code=2)
    assert said.count("\n") == 1 and "run training/step1_sft/run_llama.sh first" in said and "4 GPUs asked" in said


@pytest.mark.full
def test_real_data(checkout):
    """Polite answers and HH, in small; the first file has text enough for 2,000 pieces of words."""
    draw = random.Random(0)
    word = lambda: "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(draw.randint(1, 4)))  # noqa: E731
    text = lambda: " ".join(word() for _ in range(12))  # noqa: E731
    rows = [
        {"instruction": text(), "input": "", "output": text(), "chosen": f"please {text()}", "rejected": f"no {text()}"}
        for _ in range(150)
    ]
    polite, hh = checkout / "output/polite.json", checkout / "output/hh-rlhf/helpful-base"
    polite.write_text(json.dumps(rows))
    hh.mkdir(parents=True)
    dialogue = "\n\nHuman: {}\n\nAssistant: {}".format
    both = [{key: dialogue(row["instruction"], row[key]) for key in ("chosen", "rejected")} for row in rows[:40]]
    (hh / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in both))
    script = REAL.replace("/path/to/instruction-data-with-preference.json", str(polite))
    type_in(checkout, script.replace("/path/to/hh-rlhf/helpful-base", str(hh)))
    for name in ("polite", "hh"):
        config = json.loads((checkout / f"output/{name}/reward/config.json").read_text())
        assert config["architectures"] == ["LlamaForSequenceClassification"]


def test_a_csv_of_pairs_in_five_lines(checkout):
    """A tokenizer, SFT, a reward model and DPO of a file that holds pairs alone."""
    lines = [f'What is {n} + {n}?,"Count on, please, from {n}.",It is {2 * n}.' for n in range(24)]
    (checkout / "pairs.csv").write_text("\n".join(["prompt,chosen,rejected", *lines]) + "\n")
    assert len(OWN_CSV.strip().splitlines()) == 5
    type_in(checkout, OWN_CSV.replace("/path/to/pairs.csv", "pairs.csv"))
    kinds = {"sft": "LlamaForCausalLM", "reward": "LlamaForSequenceClassification", "dpo": "LlamaForCausalLM"}
    for name, kind in kinds.items():
        folder = checkout / "output/own" / name
        assert json.loads((folder / "config.json").read_text())["architectures"] == [kind]
        assert (folder / "finished.json").is_file() and "pairs.csv" in (folder / "README.md").read_text()


def test_feedback_of_the_oracle(checkout):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    server, *settings = SETTINGS.splitlines()
    lines = [f"URL=http://127.0.0.1:8008/v1\n{server}\n{WAIT.format('$URL')}", *settings, COMMANDS]
    said = type_in(checkout, "\n".join(lines).replace("8008", port))
    assert "unchanged" in said and "wait for" not in said  # a critique that asks for nothing leaves an answer as it is
    report = asked(checkout, "output/feedback")
    assert report["parsed"] == report["requests"] > 12 and report["usd"] is None


def test_feedback_of_a_paid_judge(checkout, judge, paid_judge):
    """The README's lines, with any key; OPENAI_BASE_URL, which the client reads, leads to an oracle that refuses what
    OpenAI's server refuses."""
    export, paid = PAID.strip().splitlines()
    answers = SETTINGS.splitlines()[2]
    script = "\n".join([export.split("=")[0] + "=any", answers, paid, COMMANDS])
    type_in(checkout, script, OPENAI_BASE_URL=paid_judge)
    report = asked(checkout, "output/paid")
    assert report["parsed"] == report["requests"] > 12 and 0 < report["usd"] < 0.1
    ranked = next(iter(read_records(checkout / "output/paid/rankings.jsonl")))
    assert {verdict.judge for verdict in ranked.verdicts} == {"gpt-6-luna"}
    assert "http://10.0.0.5:8000/v1" in OWN
    own = OWN.strip().replace("http://10.0.0.5:8000/v1", judge).replace("…", "any")
    type_in(checkout, "\n".join([answers, own, COMMANDS]))
    assert asked(checkout, "output/own")["parsed"] == report["parsed"]


def test_a_dry_run_says_what_the_paid_judge_would_cost(checkout):
    """Without a key, and without a connection to anybody."""
    paid = PAID.strip().splitlines()[1]
    first = COMMANDS.splitlines()[0].replace("$F", "output/dry")
    said = type_in(checkout, "\n".join([SETTINGS.splitlines()[2], paid, f"{first} --dry_run"]))
    cost = re.search(
        r"dry run: (\d+) requests, at most .* tokens in and at most .* out; at most \$([\d.]+), likely \$([\d.]+)", said
    )
    assert cost and int(cost[1]) > 12 and 0 < float(cost[3]) < float(cost[2]) < 5
    assert not list(checkout.glob("output/dry/rankings.jsonl"))


def test_answers_scores_perplexity_a_talk(checkout):
    generate, *others = INFERENCE.strip().splitlines()
    type_in(checkout, f"{generate} --output_path output/tutor/answers/dpo.jsonl")  # the newest under output/
    said = type_in(checkout, "\n".join([generate, *others]))
    assert "written to" in said and "perplexity" in said and "newest reward model" in said
    assert (checkout / "prompts-generate.jsonl").is_file() and (checkout / "prompts-ppl.jsonl").is_file()
