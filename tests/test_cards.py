"""The model card that is saved with a model, and adapters that peft loads from any working directory."""

import json
import os
import re
import shutil
import subprocess
import sys

import in_process
import pytest
import torch
from in_process import DPO, REWARD, SFT
from processes import environment
from stages import metrics, toy_data, toy_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from utils.arguments.options import ModelArguments
from utils.model import loading
from utils.model.reward_model import load_reward_model
from utils.model.writing import save
from utils.tokens.templates import Renderer
from utils.training.extras import model_card

LORA = ("--lora_dim", "4", "--max_steps", "4")
KINDS = {DPO: AutoModelForCausalLM, REWARD: AutoModelForSequenceClassification}
ELSEWHERE = """
import sys, torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification
for kind, folder in zip((AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification), sys.argv[1:3]):
    model = kind.from_pretrained(folder).eval()
    with torch.no_grad():
        torch.save(model(torch.tensor([[1, 4, 7, 9, 2]])).logits, folder + "/logits.pt")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A reward model and a policy with LoRA, from relative paths; SFT with an average, saved twice."""
    folder = tmp_path_factory.mktemp("home")
    toy_model(folder / "base")
    toy_data(folder / "pairs")
    before = os.getcwd()
    os.chdir(folder)
    try:
        start = ("base", "pairs")
        for stage in KINDS:
            assert run(stage, *start, folder / stage, *LORA) == 0
        assert run(SFT, *start, folder / SFT, "--ema_decay", "0.5", "--save_every", "epoch") == 0
    finally:
        os.chdir(before)
    return folder


def run(stage, model, data, out, *flags):
    return in_process.run_stage(stage, model, data, out, out.parent / "cache", *flags)


def load_elsewhere(home, cwd):
    """The logits of the adapters of DPO and REWARD, as peft finds them in a process of its own."""
    folders = [str(home / stage / "adapter") for stage in (DPO, REWARD)]
    words = [sys.executable, "-c", ELSEWHERE, *folders]
    done = subprocess.run(words, cwd=cwd, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(f"{folder}/logits.pt") for folder in folders]


def check_adapters(home, cwd):
    for (stage, kind), found in zip(KINDS.items(), load_elsewhere(home, cwd), strict=True):
        merged = kind.from_pretrained(home / stage, dtype=torch.float32).eval()
        with torch.no_grad():
            torch.testing.assert_close(found, merged(torch.tensor([[1, 4, 7, 9, 2]])).logits, atol=1e-5, rtol=0)


def test_peft_loads_the_adapters_from_another_folder(home, tmp_path):
    check_adapters(home, tmp_path)
    assert (home / REWARD / "adapter/base/model.safetensors").is_symlink()
    for stage in KINDS:
        tokenizer = AutoTokenizer.from_pretrained(home / stage / "adapter")
        assert tokenizer.chat_template and "Information Needed" not in (home / stage / "adapter/README.md").read_text()
    assert json.loads((home / REWARD / "adapter/base/config.json").read_text())["pad_token_id"] == 0


def test_a_folder_that_moved_is_loaded_as_its_card_says(home, tmp_path):
    moved = shutil.copytree(home, tmp_path / "moved", symlinks=True)
    (home / "base").rename(home / "gone")  # the links lead nowhere
    try:
        for stage, kind in KINDS.items():
            cards = (moved / stage / "adapter/README.md").read_text()
            code = cards.split("```python\n")[-1].split("```")[0]
            code = code.replace('"BASE"', repr(str(moved / "base"))).replace("OUTPUT", str(moved / stage))
            scope = {}
            exec(code, scope)
            merged = kind.from_pretrained(moved / stage).eval()
            ids = torch.tensor([[1, 4, 7]])
            with torch.no_grad():
                torch.testing.assert_close(scope["model"].eval()(ids).logits, merged(ids).logits, atol=1e-5, rtol=0)
    finally:
        (home / "gone").rename(home / "base")


def test_a_base_of_the_hub(home, tmp_path):
    """A language model's adapter keeps the name; a reward model's has links to the files in the hub's cache."""
    cache, commit = tmp_path / "models--toy--base", "ab" * 20
    shutil.copytree(home / "base", cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    args = ModelArguments("toy/base", lora_dim=4, cache_dir=str(tmp_path))
    tokenizer = loading.load_tokenizer(str(home / "base"))
    for stage, load in ((DPO, loading.load_causal_lm), (REWARD, load_reward_model)):
        model = load(args, tokenizer)
        for name, weights in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weights, std=0.3)
        save(model, model.state_dict(), Renderer(tokenizer, None), tmp_path / stage)
    file = tmp_path / DPO / "adapter/adapter_config.json"
    config = json.loads(file.read_text())
    assert config["base_model_name_or_path"] == "toy/base"
    file.write_text(json.dumps(config | {"base_model_name_or_path": str(home / "base")}))  # no hub in the other process
    check_adapters(tmp_path, home)


def test_cards(home):
    """Base, hashes, command and metrics; nothing of the machine; what it says of loading works."""
    facts = json.loads((home / SFT / "finished.json").read_text())
    told = (home / SFT / "README.md").read_text()
    assert f"| model | `base` | `{facts['model']}` |" in told and f"| data | `pairs` | `{facts['data']}` |" in told
    assert "python training/step1_sft/main.py \\\n    --model_name_or_path base \\\n    --data_path pairs \\\n" in told
    assert "--output_dir OUTPUT" in told and "--ema_decay 0.5" in told and "--logging_steps" not in told
    last = metrics(home / SFT)[-1]
    assert f"| held-out rows, step {last['step']} | |" in told and f"| loss | {last['eval/loss']:.4g} |" in told
    for place in ("", "epoch-1", "ema", "epoch-1/ema"):
        card_of = (home / SFT / place / "README.md").read_text()
        assert str(home) not in card_of and not re.search(r"20\d\d-\d\d|\d\d:\d\d", card_of)
    assert "An average of the weights" in (home / SFT / "ema/README.md").read_text()
    epoch = metrics(home / SFT)[6]
    assert f"| held-out rows, step {epoch['step']} | |" in (home / SFT / "epoch-1/README.md").read_text()
    for stage, kind in {SFT: AutoModelForCausalLM, **KINDS}.items():
        told = (home / stage / "README.md").read_text()
        code = told.split("```python\n")[1].split("```")[0].replace("OUTPUT", str(home / stage))
        scope = {}
        exec(code.replace("…", "say yes"), scope)
        assert type(scope["model"]) is type(kind.from_config(scope["model"].config))


def test_a_card_of_somebody_else_stays_and_ours_is_the_same_again(home, tmp_path, monkeypatch):
    out = shutil.copytree(home / DPO, tmp_path / DPO, symlinks=True)
    monkeypatch.chdir(home)
    before = (out / "README.md").read_text()
    (out / "adapter/README.md").write_text("mine")
    (out / "finished.json").unlink()
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    assert in_process.run_stage(DPO, "base", "pairs", out, home / "cache", *LORA) == 0
    assert (out / "README.md").read_text() == before and (out / "adapter/README.md").read_text() == "mine"


@pytest.mark.parametrize(
    "text, told",
    [("/data/x/pairs.csv", "pairs.csv"), ("pairs:/data/x.csv=0.5", "pairs:x.csv=0.5"), ("owner/name", "owner/name"),
     ("~/model", "model"), ("../model", "../model"), (str(model_card.ROOT / "output/tutor/sft"), "output/tutor/sft")],
)  # fmt: skip
def test_paths_in_cards(text, told):
    assert model_card.shown(text) == told
