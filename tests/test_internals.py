"""What the project relies on inside other libraries (utils/engine/internals.py) is still there.

A check runs in a process of its own, on the installed libraries, with a real engine or model where one is needed. When
a new version breaks a touch, the test's message names it, what it relies on, and what to do.
"""

import argparse
import importlib
import importlib.metadata
import inspect
import logging
import sys
from pathlib import Path

import datasets
import pytest
import torch
from processes import run_function, together
from torch import nn
from toy_folders import lm_folder
from toys import tiny_lm

from utils.arguments.options import ModelArguments
from utils.engine import internals
from utils.model.adapted import plain
from utils.model.lora import add_lora

FILE = "utils/engine/internals.py"
CHECKS = {}


def check(touch):
    """Register a check of a function of internals.py; it is given an empty folder."""

    def register(function):
        CHECKS[touch.__name__] = function
        return function

    return register


def run_check(name, folder):
    """Run one check; whatever it raises ends the process with a line that names the touch and the remedy."""
    try:
        CHECKS[name](Path(folder))
    except Exception as error:
        relies = inspect.getdoc(getattr(internals, name)).partition("Relies on: ")[2]
        installed = {library: importlib.metadata.version(library) for library in internals.SEEN}
        print(
            f"{name} in {FILE} does not hold any more: {type(error).__name__}: {error}\nIt relies on: {relies}\n"
            f"Seen in {internals.SEEN}, installed are {installed}.\nRemedy: read how the installed version does this, "
            f"change that one function, then SEEN."
        )
        sys.exit(1)


TOUCHES = [n for n, value in vars(internals).items() if getattr(value, "__module__", "") == internals.__name__]


@pytest.mark.parametrize("name", TOUCHES)
def test_the_installed_libraries_are_as_internals_takes_them(name, tmp_path):
    assert "Relies on: " in inspect.getdoc(getattr(internals, name)), f"{name} must say what it relies on"
    assert name in CHECKS, f"{name} of {FILE} has no check in {Path(__file__).name}; write one"
    code = together(run_function, tmp_path / "log", "test_internals", "run_check", name, str(tmp_path))
    assert code == 0, (tmp_path / "log").read_text()


def test_a_touch_that_broke_is_named(tmp_path):
    """As if DeepSpeed had given the step another name."""
    code = together(run_function, tmp_path / "log", "test_internals", "run_broken", str(tmp_path))
    told = (tmp_path / "log").read_text()
    assert code == 1 and f"before_update in {FILE} does not hold any more: AttributeError" in told
    assert "It relies on: step() calls the attribute `_take_model_step`" in told and "Remedy: " in told


def run_broken(folder):
    import deepspeed

    engine = deepspeed.DeepSpeedEngine
    engine._update_model = engine._take_model_step
    del engine._take_model_step
    run_check("before_update", folder)


# ---- the checks


OUTPUTS = 2_000  # 16,000 weights: up to 10,000 (ds_configs/zero3.json) stay whole on every rank


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, OUTPUTS, bias=False)

    def forward(self, x):
        return self.layer(x).square().mean()


def engine_of(stage, bf16=False):
    from utils.arguments.options import TrainingArguments
    from utils.engine.deepspeed_engine import Engine, start

    args = TrainingArguments("unused", zero_stage=stage, bf16=bf16, learning_rate=0.1, weight_decay=0.0)
    start(args)
    torch.manual_seed(0)
    return Engine(Linear(), args, 4)


def step(engine):
    dtype = torch.bfloat16 if engine.config["bf16"]["enabled"] else torch.float32
    engine.backward(engine(torch.ones(2, 8, dtype=dtype)))
    engine.step()


@check(internals.skip_shared_memory_collectives)
def shared_memory(folder):
    import deepspeed
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    assert ShareMemCommBuilder.NAME == "deepspeed_shm_comm"
    deepspeed.ops.__compatible_ops__[ShareMemCommBuilder.NAME] = True
    internals.skip_shared_memory_collectives()
    communication = importlib.import_module("deepspeed.comm.torch")  # deepspeed.comm.torch is torch itself
    assert communication.build_shm_op() is None


@check(internals.check_zero_block)
def zero_block(folder):
    internals.check_zero_block({"stage": 2})
    with pytest.raises(ValueError) as refused:
        internals.check_zero_block({"stage": 9})
    assert {"loc", "input", "msg"} <= refused.value.errors()[0].keys() and refused.value.errors()[0]["input"] == 9


@check(internals.skip_reduction)
def reduction(folder):
    for stage, bf16 in ((0, False), (1, True), (1, False)):
        engine, reduced = engine_of(stage, bf16), []
        real = engine.deepspeed.allreduce_gradients
        engine.deepspeed.allreduce_gradients = lambda *a, real=real, seen=reduced, **k: (seen.append(1), real(*a, **k))
        before = engine.full_state_dict()["layer.weight"]
        step(engine)
        shards = hasattr(engine.deepspeed.optimizer, "reduce_gradients")
        assert shards == (stage == 1 and not bf16), f"reduce_gradients at ZeRO-{stage}, bf16 {bf16}: {shards}"
        assert bool(reduced) == shards, f"ZeRO-{stage}, bf16 {bf16}: reduced {len(reduced)} times"
        assert not torch.equal(engine.full_state_dict()["layer.weight"], before), "no update without a reduction"
        engine.deepspeed.enable_backward_allreduce = True
        step(engine)
        assert reduced, "enable_backward_allreduce does not decide whether gradients are reduced"


@check(internals.before_update)
def update(folder):
    engine, seen = engine_of(0), []
    weight = engine.module.layer.weight
    internals.before_update(engine.deepspeed, lambda: seen.append((weight.grad.clone(), weight.detach().clone())))
    before = weight.detach().clone()
    step(engine)
    ((gradient, there),) = seen
    assert gradient.abs().sum() > 0 and torch.equal(there, before) and not torch.equal(weight, before)
    assert engine.gradient_norm() == pytest.approx(float(gradient.norm()))


@check(internals.without_hooks)
def hooks(folder):
    import deepspeed

    engine, x = engine_of(3), torch.ones(2, 8)
    layer = engine.module.layer
    hooks_of = lambda: [len(h) for h in (layer._forward_pre_hooks, layer._forward_hooks)]  # noqa: E731
    step(engine)
    usual, weight = hooks_of(), engine.full_state_dict()["layer.weight"]
    assert min(usual) > 0 and layer.weight.numel() == 0, "ZeRO-3 no longer shards by hooks of every module"
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())), internals.without_hooks(engine.deepspeed):
        assert hooks_of() == [0, 0], f"{hooks_of()} hooks are left"
        assert torch.equal(engine.module(x), (x @ weight.T).square().mean()) and layer.weight.shape == (OUTPUTS, 8)
    assert hooks_of() == usual and layer.weight.numel() == 0, "the hooks or the shards did not come back"
    before = engine.full_state_dict()["layer.weight"]
    step(engine)
    assert not torch.equal(engine.full_state_dict()["layer.weight"], before)


@check(internals.forget_module)
def forgotten(folder):
    import gc
    import weakref

    from deepspeed.runtime.zero import parameter_offload

    from utils.arguments.options import TrainingArguments
    from utils.engine.deepspeed_engine import start
    from utils.engine.freezing import frozen, release

    args = TrainingArguments("unused", zero_stage=3)
    start(args)
    reader, other = frozen(Linear(), args), frozen(Linear(), args)
    held = weakref.ref(reader.module)
    assert any(module is reader.module for module in parameter_offload.FWD_MODULE_STACK), "it is kept elsewhere now"
    release(reader)
    del reader
    gc.collect()
    assert held() is None, "something else holds the module"
    assert any(module is other.module for module in parameter_offload.FWD_MODULE_STACK)


def masters(stage, bf16):
    """The float32 numbers of the one rank, before and after a step: the weights themselves, and views of them."""
    from utils.engine.masters import owned

    engine = engine_of(stage, bf16)
    ((name, part),) = owned(engine.module, stage)
    assert name == "layer.weight" and part.start == 0 and part.values.dtype == torch.float32
    for _ in range(2):
        whole = engine.full_state_dict()["layer.weight"]
        assert torch.equal(part.values.view(OUTPUTS, 8).to(whole.dtype), whole), (
            "these are not the weights that are updated"
        )
        before = part.values.clone()
        step(engine)
        assert not torch.equal(part.values, before), "the values are a copy: a step does not change them"


@check(internals.master_fragment)
def fragments(folder):
    masters(1, bf16=False)
    masters(2, bf16=True)


@check(internals.master_shard)
def shards(folder):
    masters(3, bf16=True)


@check(internals.whole_shape)
def shape(folder):
    weight = engine_of(3).module.layer.weight
    assert weight.shape == (0,) and internals.whole_shape(weight) == (OUTPUTS, 8)
    assert internals.whole_shape(nn.Parameter(torch.ones(2, 3))) == (2, 3)


@check(internals.whole_size)
def size(folder):
    weight = engine_of(3).module.layer.weight
    assert weight.numel() == 0 and internals.whole_size(weight) == OUTPUTS * 8
    assert internals.whole_size(nn.Parameter(torch.ones(2, 3))) == 6


def sharded(model):
    return all(parameter.numel() == 0 for parameter in model.parameters() if parameter.dim())


@check(internals.shard_while_loading)
def loading_in_shards(folder):
    from transformers import AutoModelForCausalLM

    path = lm_folder(folder / "model")
    engine_of(3)
    assert sharded(AutoModelForCausalLM.from_pretrained(path)), "transformers loads whole weights at ZeRO-3"
    internals.shard_while_loading(None)
    assert not sharded(AutoModelForCausalLM.from_pretrained(path))


@check(internals.shards_while_loading)
def asked(folder):
    for stage in (3, 1):
        internals.shard_while_loading({"zero_optimization": {"stage": stage}})
        assert internals.shards_while_loading() == (stage == 3)
    internals.shard_while_loading(None)
    assert not internals.shards_while_loading()


@check(internals.whole_models)
def whole(folder):
    engine_of(3)
    with internals.whole_models():
        assert not sharded(tiny_lm()), "a model comes in shards"
    assert internals.shards_while_loading(), "the configuration of ZeRO-3 is not back"


@check(internals.no_load_report)
def report(folder):
    from transformers import AutoModelForSequenceClassification

    path, seen = lm_folder(folder / "model"), []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logging.getLogger("transformers.modeling_utils").addHandler(handler)
    for context, told in ((internals.no_load_report(), False), (pytest.MonkeyPatch.context(), True)):
        seen.clear()
        with context:
            AutoModelForSequenceClassification.from_pretrained(path)
        assert bool([line for line in seen if "LOAD REPORT" in line]) == told, f"{seen}"


@check(internals.draw_weights)
def drawn(folder):
    model, layer = tiny_lm(), nn.Linear(400, 400)
    before = layer.weight.detach().clone()
    internals.draw_weights(model, layer)
    assert not torch.equal(layer.weight, before) and not layer.bias.any()
    assert float(layer.weight.std()) == pytest.approx(model.config.initializer_range, rel=0.05)


@check(internals.attention_of)
def attention(folder):
    model = tiny_lm()
    for name in ("eager", "sdpa"):
        model.set_attn_implementation(name)
        assert internals.attention_of(model) == name


@check(internals.padded_attention)
def padded(folder):
    assert internals.padded_attention(tiny_lm()) == "sdpa" == internals.attention_of(tiny_lm())
    assert internals.padded_attention(nn.Linear(1, 1)) == "eager"


@check(internals.takes_attention)
def taken(folder):
    assert internals.takes_attention(tiny_lm()) and not internals.takes_attention(tiny_lm("falcon"))


@check(internals.Borrower)
def borrowed(folder):
    class Borrowing(internals.Borrower):
        def __init__(self, owner):
            super().__init__()
            self.weight = owner.weight

    model = nn.Module()
    model.layer = nn.Linear(2, 2, bias=False)
    model.borrower = Borrowing(model.layer)
    assert list(model.state_dict()) == ["layer.weight"]
    found = model.load_state_dict({"layer.weight": torch.zeros(2, 2)})
    assert not found.missing_keys and not model.borrower.weight.any()


# ---- names of others that stay outside of internals.py


def test_argparse_lists_its_options_and_datasets_knows_its_content():
    """The two rooms below the engine: see tests/test_foreign_names.py."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--some_flag", "--some-flag")
    assert [a.option_strings for a in parser._actions][-1] == ["--some_flag", "--some-flag"], "argparse: _actions"
    rows = datasets.Dataset.from_list([{"text": "a"}, {"text": "b"}])
    assert rows._fingerprint and rows.select([0])._fingerprint != rows._fingerprint, "datasets: Dataset._fingerprint"


def test_peft_names_an_adapters_parts_as_lora_and_head_read_them():
    """Public names of peft, on which utils/model/lora.py, utils/model/head and utils/generation/graphs.py rely."""
    options = ModelArguments("m", lora_dim=4, lora_alpha=8, lora_target_modules=["q_proj", "lm_head"])
    model = add_lora(tiny_lm(), options)
    head = plain(model).get_output_embeddings()
    assert type(head.base_layer) is nn.Linear and head.scaling["default"] == 2.0, "peft: base_layer, scaling"
    assert head.lora_A["default"].weight.shape == (4, 64) and head.lora_B["default"].weight.shape == (211, 4)
    assert list(head.lora_dropout) == ["default"] and head.merged is False and list(head.active_adapters) == ["default"]
    with model.disable_adapter():
        assert head.disable_adapters is True, "peft: disable_adapters"
    assert head.disable_adapters is False
    names = model.state_dict().keys()
    for part in ("base_layer", "lora_A.default", "lora_B.default"):
        assert f"base_model.model.lm_head.{part}.weight" in names, f"peft: the name of {part} in state_dict()"
