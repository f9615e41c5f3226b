"""--reference_model_name_or_path: once its log-probs are known, nothing holds the reference model."""

import subprocess
import sys

import pytest
from processes import environment
from stages import toy_model

PROGRAM = """
import gc, sys, weakref
from utils.model import loading
from utils.arguments.options import ModelArguments, TrainingArguments
from utils.engine.deepspeed_engine import start
from utils.tokens.group import group
from utils.training.reference import ReferenceModel, references
from utils.model.scoring import Policy

folder, cache, stage = sys.argv[1:]
args = TrainingArguments("out", zero_stage=int(stage), report_to=["none"])
model_args = ModelArguments(folder, cache_dir=cache)
start(args)
policy = Policy(loading.load_causal_lm(model_args, loading.load_tokenizer(folder)))
held = []
load = loading.load_causal_lm


def loaded(*given):
    model = load(*given)
    held.extend(weakref.ref(thing) for thing in (model, *model.modules(), *model.parameters()))
    return model


loading.load_causal_lm = loaded
gc.collect()
gc.disable()  # what is let go of goes without waiting for Python's next round
store = [group([6, 7, 8], [[9, 10], [11]])]
found = references(None, [store], model_args, args, ReferenceModel("hash", folder))
assert len(held) > 20 and found[0]._sums[0].shape == (2,)
print("held:", sorted({type(ref()).__name__ for ref in held if ref() is not None}))
"""


@pytest.mark.parametrize("stage", [pytest.param(0, marks=pytest.mark.full), 3])
def test_nothing_holds_the_reference(tmp_path, stage):
    toy_model(tmp_path / "model")
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "model"), str(tmp_path / "cache"), str(stage)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True)
    assert "held: []" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
