"""The GPU suite without a GPU: the same code on tiny shapes, and checks that find what is broken on purpose."""

import contextlib
import dataclasses
import importlib
import itertools
import json
import subprocess
import time

import pytest
import torch
from gpu import decoding, parity, speed, stages, suite, table
from gpu.common import SIZES, Part, read
from gpu.suite import PARTS
from toy_folders import toy_tokenizer
from toys import ROOT
from transformers import AttentionInterface

from utils.errors import UserError
from utils.model import packed_attention
from utils.model.packed_attention import Layout
from utils.model.reward_model import RewardModel
from utils.model.scoring import Policy
from utils.tokens.templates import Renderer

RUN = ROOT / "tests" / "gpu" / "run.sh"


@pytest.fixture
def part(tmp_path):
    return lambda name, **settings: Part(name, tmp_path / "results.json", **settings)


def assert_passed(part):
    assert part.rows and part.passed and not part.left_out, [row for row in part.rows if not row["ok"]]
    (written,) = read(part.results).values()
    assert written["cases"] == part.rows and written["facts"]["device"]


# ---- the parts, in their CPU form: a few cases of each in every run, all of them in a full one


def test_parity(part):
    every = dict(parity.cases())
    assert len(every) == 27 * 3
    scorers = [(kind, *case) for kind in (Policy, RewardModel) for case in zip((8, 2, 1), (None, 24, 60), (1, 2, 64))]  # noqa: B905
    some = [(str(case), lambda case=case: parity.compare(*case)) for case in scorers]
    one = part("parity")
    one.run([(name, case) for name, case in every.items() if name.startswith("attention")] + some)
    assert_passed(one)


def test_decoding(part):
    one = part("decoding")
    one.run(itertools.islice(decoding.cases(), 13))  # all in float32, one in bfloat16
    assert_passed(one)


def test_stages(part):
    one = part("stages")
    stages.main(one, [("step2_reward", "bf16", 3)])
    assert_passed(one)


@pytest.mark.full
@pytest.mark.parametrize("name", ["speed_sft", "speed_generation"])
def test_speed(part, name):
    one = part(name)
    speed.main(one)
    assert_passed(one)
    assert one.rows[0]["tokens_per_second"] > 0 and one.rows[0]["peak_gib"] > 0


@pytest.mark.full
@pytest.mark.parametrize("name", PARTS)
def test_every_part_whole(part, name):
    one = part(name, budget=1800.0)  # two cores
    importlib.import_module(f"gpu.{PARTS[name].module}").main(one)
    assert_passed(one)


# ---- what is broken is found


def test_parity_finds_a_window_that_is_one_too_short(monkeypatch):
    right = Layout.mask
    monkeypatch.setattr(Layout, "mask", lambda *a: right(*a[:3], None if a[3] is None else a[3] - 1, *a[4:]))
    with pytest.raises(AssertionError, match="values differ"):
        parity.compare(Policy, 2, 24, 2)


def test_parity_finds_rounding_that_only_bfloat16_has():
    """An error of the packed path in bfloat16 alone, as a kernel could have it."""

    def wrong(module, query, *rest, **more):
        wrongly = query * (1.02 if query.dtype == torch.bfloat16 else 1)
        return packed_attention.packed_attention(module, wrongly, *rest, **more)

    AttentionInterface.register(packed_attention.PACKED, wrong)
    try:
        with pytest.raises(AssertionError, match="bf16"):
            parity.compare(Policy, 8, None, 2)
    finally:
        AttentionInterface.register(packed_attention.PACKED, packed_attention.packed_attention)


def test_parity_finds_keys_of_another_prompt(monkeypatch):
    right = Layout.varlen

    def shifted(self, device):
        index, *rest = right(self, device)
        return (index - (index > 0).long(), *rest)

    monkeypatch.setattr(Layout, "varlen", shifted)
    with pytest.raises(AssertionError, match="variable-length path"):
        parity.compare_varlen(2, None, 2)


@pytest.fixture(scope="module")
def decoded():
    """A case, its model and its answers by `model.generate`."""
    renderer, case = Renderer(toy_tokenizer(), "plain"), decoding.CASES[3]
    model = decoding.model_of(renderer, case.family)
    return model, renderer, case, decoding.answers_of(model, renderer, case, "hf")


@pytest.mark.parametrize("change", ["token", "end", "log-prob"])
def test_decoding_finds_a_changed_answer(decoded, change):
    model, renderer, case, theirs = decoded
    first = theirs[1][2]
    tokens, logprobs = list(first.tokens), list(first.logprobs)
    if change == "token":
        tokens[5] = tokens[5] + 1
    elif change == "end":
        tokens, logprobs = tokens[:-1], logprobs[:-1]
    else:
        logprobs[5] -= 0.01
    mine = [list(several) for several in theirs]
    assert decoding.compare(model, renderer, case, mine, theirs)["ties"] == 0
    mine[1][2] = dataclasses.replace(first, tokens=tokens, logprobs=logprobs)
    with pytest.raises(AssertionError):
        decoding.compare(model, renderer, case, mine, theirs)


def test_decoding_refuses_to_compare_hf_with_itself(monkeypatch):
    monkeypatch.setattr("utils.generation.backends.why_not_shared", lambda model: "a reason")
    with pytest.raises(AssertionError, match="shared does not read this model"):
        decoding.in_float32(decoding.CASES[0])


def test_stages_find_another_first_loss(monkeypatch, tmp_path, part):
    losses = iter([0.7, 0.8])
    monkeypatch.setattr(stages, "check", lambda *_: {"first_loss": next(losses)})
    one = part("stages")
    one.run(stages.cases(tmp_path, tmp_path, [("step3_dpo", "fp32", 0), ("step3_dpo", "fp32", 1)]))
    assert [row["ok"] for row in one.rows] == [True, False] and "first loss is 0.8" in one.rows[1]["error"]


# ---- parts keep their time, and what they found


def fails():
    raise AssertionError("two and two are five")


def test_a_failed_case_is_recorded_and_the_next_one_runs(part):
    one = part("parity")
    one.run([("wrong", fails), ("right", lambda: {"error": 0.0})])
    assert [row["ok"] for row in one.rows] == [False, True] and not one.passed
    assert "two and two" in read(one.results)["parity"]["cases"][0]["error"]


def test_what_no_longer_fits_is_left_out_and_named(part):
    one = part("parity", budget=1.5, alarm=True)
    started = time.monotonic()
    one.run([("quick", dict), ("endless", lambda: time.sleep(60)), ("never begun", fails)])
    assert time.monotonic() - started < 10
    assert [row["case"] for row in one.rows] == ["quick"] and one.left_out == ["endless", "never begun"]
    assert read(one.results)["parity"]["left_out"] == one.left_out


def test_parts_and_sizes_stand_beside_each_other(part):
    for name, size in (("parity", ""), ("speed_sft", "0.5b"), ("speed_sft", "1.5b"), ("parity", "")):
        part(name, size=size).run([("case", dict)])
    assert list(read(part("parity").results)) == ["speed_sft 0.5b", "speed_sft 1.5b", "parity"]


@pytest.mark.parametrize(
    "words, code, says",
    [
        (("list",), 0, "speed_generation"),
        (("nothing",), 2, "the part 'nothing' is unknown; known: all, list, table, parity"),
        (("speed_sft", "--size", "9b"), 2, "the size '9b' is unknown; known: tiny, 0.5b, 1.5b, 8b-lora"),
    ],
)
def test_the_command(words, code, says, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["suite.py", *words])
    with pytest.raises(SystemExit) if code else contextlib.nullcontext():
        suite.run_program(suite.main)
    assert says in "".join(capsys.readouterr())


def test_the_script_runs_from_anywhere(tmp_path):
    done = subprocess.run(["bash", RUN, "list"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and all(name in done.stdout for name in PARTS), done.stderr[-2000:]


# ---- tables

FACTS = {"device": "A GPU", "cuda": "13.0", "driver": "1", "versions": {"torch": "2"}, "commit": "c", "date": "d"}
RATIO = {"ratio": 3.0, "ratio_min": 2.5, "ratio_max": 3.5}
FOUND = {
    "parity": [{"case": "a", "ok": True}, {"case": "b", "ok": False, "error": "off"}],
    "speed_sft 0.5b": [{"case": "0.5b", "ok": True, "tokens_per_second": 12345.6, "peak_gib": 7.25}],
    "speed_sft 1.5b": [{"case": "1.5b", "ok": False, "error": "out of memory"}],
    "peers_dpo": [{"case": "dpo against TRL", "ok": True, "size": "0.5b", "unit": "pairs/s", "ours": 9.0, "theirs": 3.0,
                   "peak_gib": 1.0, "peak_gib_trl": 2.0, **RATIO}],
    "peers_generation": [{"case": "64 answers", "ok": True, "ours": 800.0, "generate": 200.0,
                          **{f"generate_{k}": v for k, v in RATIO.items()}, "absent": {"vllm": "not installed"}}],
}  # fmt: skip


def document(tmp_path, device, text=f"# Numbers\n\n{table.BEGIN}\nold\n{table.END}\nrest\n"):
    results, there = tmp_path / "results.json", tmp_path / "numbers.md"
    there.write_text(text)
    facts = {**FACTS, "device": device}
    results.write_text(json.dumps({k: {"facts": facts, "cases": v, "left_out": []} for k, v in FOUND.items()}))
    table.write(results, there)
    return there.read_text()


def test_tables_of_a_gpu(tmp_path):
    text = document(tmp_path, "A GPU")
    assert text.startswith("# Numbers\n") and text.endswith(f"{table.END}\nrest\n") and "old" not in text
    for line in (
        "A GPU, CUDA 13.0, driver 1; torch 2; commit c, d.",
        "| parity | 1 of 2 | 0 | b |",
        "| SFT | 12,346, 7.2 GiB | failed |",
        "| dpo against TRL, 0.5b | 9.0 pairs/s | 3.0 | 3.00 (2.50 to 3.50) | 1.0 and 2.0 GiB |",
        "| 64 answers | `model.generate` | 800 | 200 | 3.00 (2.50 to 3.50) |",
        "| 64 answers | vLLM | 800 | – | not installed |",
    ):
        assert line in text.splitlines(), line
    assert document(tmp_path, "A GPU", text) == text  # written again, the same


def test_numbers_of_a_cpu_stay_out_of_the_document(tmp_path):
    assert "old" in document(tmp_path, "cpu")


def test_a_document_without_its_markers_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected one <!-- gpu:begin -->"):
        document(tmp_path, "A GPU", "# Numbers\n")


def test_the_document_names_every_part():
    text = (ROOT / "docs" / "numbers.md").read_text(encoding="utf-8")
    assert text.count(table.BEGIN) == text.count(table.END) == 1
    assert [name for name in PARTS if f"`{name}`" not in text] == []
    assert all(f"`{size}`" in text for size in SIZES if size != "tiny")
