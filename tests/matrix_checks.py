"""What the cells of matrix.py share and what is checked of each, in processes of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from matrix_cells import STEPS, TOLERANCE, Cell
from processes import Failure
from stages import WALL_CLOCK, WORDS, demonstrations, toy_data, toy_model, weights
from toys import tiny_rm
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

REWARDS = """
def yes(record):
    return [float(answer.text.split().count("yes")) for answer in record.answers]

def short(record):
    return [-float(len(answer.text.split())) for answer in record.answers]
"""


def toys(folder: Path) -> None:
    """model, tied (one matrix for embeddings and head), other (a reference), reward; demos, pairs; rewards.py."""
    size = dict(
        vocab_size=len(WORDS), num_hidden_layers=2, hidden_size=32, intermediate_size=48
    )  # one token in 16 ends
    toy_model(folder / "model", **size)
    toy_model(folder / "tied", tie_word_embeddings=True, **size)
    toy_model(folder / "other", seed=1, **size)
    reward = tiny_rm(seed=2, **size)
    reward.save_pretrained(folder / "reward")
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "reward")
    demonstrations(folder / "demos", rows=24)
    toy_data(folder / "pairs", rows=24)
    (folder / "rewards.py").write_text(REWARDS)


def expect(true: bool, otherwise: str) -> None:
    if not true:
        raise Failure(otherwise)


def rows_of(out: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the fields that a clock decides; every number is finite."""

    def refuse(constant: str) -> None:
        raise Failure(f"metrics.jsonl holds {constant}")

    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    for row in rows:
        wrong = [name for name, value in row.items() if not math.isfinite(value)]
        expect(not wrong, f"step {row['step']}: {wrong} is not finite")
    return [{name: value for name, value in row.items() if name not in WALL_CLOCK} for row in rows]


def stopped(cell: Cell, world: Path, out: Path) -> None:
    """Leave what a run killed after the checkpoint of step 2 leaves, and what it ended with beside it."""
    finished(cell, world, out)
    expect((out / "checkpoints" / "step-00000002").is_dir(), "no checkpoint of step 2")
    (out / "finished.json").unlink()
    for kept in (out / "checkpoints").glob("rollout-*.pt"):
        kept.unlink()  # the third rollout is made again
    whole = out.with_name("whole")
    whole.mkdir()
    for name in ("metrics.jsonl", "model.safetensors"):
        (out / name).rename(whole / name)
    (out / "metrics.jsonl").write_bytes((whole / "metrics.jsonl").read_bytes())


def finished(cell: Cell, world: Path, out: Path) -> None:
    """Everything that a run must have written, and nothing else of its kind."""
    rows = rows_of(out)
    steps = [row["step"] for row in rows]
    expect(steps == list(range(STEPS + 1)), f"metrics.jsonl has the steps {steps}; expected 0 to {STEPS}")
    measured = [row["step"] for row in rows if any(name.startswith("eval/") for name in row)]
    expect(measured == cell.evaluated, f"evaluated at {measured}; expected {cell.evaluated}")
    start = world / ("tied" if cell["embeddings"] else "model")
    for place in [out, *(out / f"step-{n}" for n in range(1, STEPS + 1) if cell["pace"])]:
        check_model(cell, place, start)
        check_average(cell, place)
        has_critic = cell.stage == "ppo" and not cell["advantage"]
        expect((place / "critic").is_dir() == has_critic, f"{place.name}/critic is there: {not has_critic}")
        if has_critic:
            before, moved = start if cell["scoring"] else world / "reward", cell["unfinished"] != "none-finished"
            check_weights(place / "critic", before, reward=True, moved=moved)
    if cell["pace"]:
        last, final = weights(out / f"step-{STEPS}"), weights(out)
        expect(all(torch.equal(last[n], final[n]) for n in final), f"step-{STEPS}/ and the last weights differ")
    check_samples(cell, out)
    whole = out.with_name("whole")
    if whole.is_dir():
        log = out.with_name("log").read_text(encoding="utf-8")
        expect("continuing after step 2" in log, "it did not continue after step 2")
        expect(rows == rows_of(whole), "continued, its metrics are not those of the run that was not stopped")
        ours, theirs = weights(out), weights(whole)
        expect(all(torch.equal(ours[n], theirs[n]) for n in theirs), "continued, it ends with other weights")


def check_model(cell: Cell, folder: Path, start: Path) -> None:
    """The policy or reward model, its adapter."""
    model = check_weights(folder, start, reward=cell.stage == "reward", moved=cell.learns)
    check_ties(cell, model, folder)
    expect((folder / "adapter").is_dir() == cell["layout"].endswith("lora"), f"{folder.name}/adapter is wrong")


def check_weights(folder: Path, start: Path, reward: bool, moved: bool = True):
    """Plain transformers loads `folder`, whole and finite; its weights are not those of `start`, if they `moved`."""
    kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    lost = {name: found for name, found in info.items() if found}
    expect(not lost, f"{folder.name}: loading it found {lost}")
    state, before = model.state_dict(), weights(start)
    wrong = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    expect(not wrong, f"{folder.name}: {wrong[:1]} is not finite")
    same = all(torch.equal(state[n].float(), t.to(state[n].dtype).float()) for n, t in before.items() if n in state)
    expect(same != moved, f"{folder.name}: its weights are {'those' if same else 'not those'} of {start.name}")
    return model


def check_ties(cell: Cell, model, folder: Path) -> None:
    if cell.stage == "reward":
        return
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    expect(tied == bool(cell["embeddings"]), f"{folder.name}: embeddings and head are {'' if tied else 'not '}tied")
    head = weights(folder).get("lm_head.weight")
    expect(not tied or head is None or torch.equal(head, model.get_input_embeddings().weight), f"{folder.name}: two")


def check_average(cell: Cell, place: Path) -> None:
    """ema/ is there if asked, once there was an update, which it then equals; where every step was saved, it is their
    average, e <- (e + w) / 2 in each."""
    wanted = bool(cell["average"]) and cell.learns
    expect((place / "ema").is_dir() == wanted, f"{place.name}/ema is there: {not wanted}")
    if not wanted:
        return
    last = int(place.name[5:]) if place.name.startswith("step-") else STEPS
    moved = last > 1 or cell.stage == "ppo"
    model = check_weights(place / "ema", place, reward=cell.stage == "reward", moved=moved)
    check_ties(cell, model, place / "ema")
    if cell.stage == "ppo" or not cell["pace"] or cell["layout"].endswith("lora"):
        return  # an average of each update, or of an adapter's two factors
    folder = place if place.name == "out" else place.parent
    steps = [weights(folder / f"step-{n}") for n in range(1, last + 1)]
    for name, tensor in weights(place / "ema").items():
        average = steps[0][name].float()
        for later in steps[1:]:
            average = (average + later[name].float()) / 2
        near = torch.allclose(tensor.float(), average, atol=1e-6 if cell["dtype"] == "fp32" else 1e-2)
        expect(near, f"{place.name}/ema: {name} is not the average of the steps")


def check_samples(cell: Cell, out: Path) -> None:
    """As many rows as asked, with a score where there is a reward model."""
    found = sorted(int(path.stem.split("-")[-1]) for path in out.glob("samples-step-*.jsonl"))
    wanted = [1] if cell.stage == "ppo" else cell.evaluated if cell["sampling"] else []
    expect(found == wanted, f"samples of the steps {found}; expected {wanted}")
    for step in wanted:
        rows = [json.loads(line) for line in (out / f"samples-step-{step}.jsonl").read_text().splitlines()]
        count = 8 if cell.stage == "ppo" else 3
        expect(len(rows) == count, f"{len(rows)} samples at step {step}; expected {count}")
        score = "scores" if cell.stage == "ppo" else "score"
        scored = cell.stage == "ppo" or cell["sampling"] == "sampling+reward"
        expect(all((score in row) == scored for row in rows), f"samples at step {step}: {score} is wrong")


def agree(folders: list[Path]) -> None:
    """The metrics in these folders are the first one's, to TOLERANCE; so are the samples before training."""
    first = rows_of(folders[0])
    for folder in folders[1:]:
        here, there = folders[0].parent.name, folder.parent.name
        for ours, theirs in zip(first, rows_of(folder), strict=True):
            other = {name for name in ours.keys() ^ theirs.keys() if not name.endswith("gradient_norm")}
            expect(not other, f"only one of {here} and {there} has {sorted(other)}")  # ZeRO 0 takes no norm
            for name in ours.keys() & theirs.keys():
                near = math.isclose(ours[name], theirs[name], rel_tol=TOLERANCE, abs_tol=TOLERANCE)
                found = f"step {ours['step']}: {name} is {ours[name]:.6g} and {theirs[name]:.6g}"
                expect(near, f"{found} in {here} and {there}")
        for sample in folders[0].glob("samples-step-0.jsonl"):
            expect(sample.read_text() == (folder / sample.name).read_text(), f"{there} has other samples than {here}")
