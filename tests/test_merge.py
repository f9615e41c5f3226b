"""--merge_dtype: the folder of a LoRA run is the trained model, and merge.json says by how much it is not."""

import json

import in_process
import peft
import pytest
import torch
from in_process import PPO, REWARD, SFT
from safetensors.torch import load_file
from stages import demonstrations, run_stage, toy_data, toy_model, weights
from torch import nn
from toys import tiny_lm
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from utils.arguments.options import ModelArguments
from utils.errors import UserError
from utils.model.lora import add_lora, merged

ROUNDING = 0.4  # two attention kernels round the activations of a bfloat16 model differently
LORA = ("--lora_dim", "4", "--checkpoint_every", "0", "--max_steps", "4")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model with a head so large that rounding its weights to bfloat16 shows."""
    folder = tmp_path_factory.mktemp("world")
    toy_model(folder / "model", tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    model.lm_head.weight.data *= 30
    model.save_pretrained(folder / "model")
    demonstrations(folder / "demos")
    toy_data(folder / "pairs")
    (folder / "rewards.py").write_text("def one(record):\n    return [float(len(a.text)) for a in record.answers]\n")
    return folder


@pytest.fixture
def train(world, tmp_path):
    def run(name, *flags, stage=SFT, code=0):
        data = world / ("demos" if stage == SFT else "pairs")
        places = (world / "model", data, tmp_path / name, world / "cache")
        assert in_process.run_stage(stage, *places, *LORA, *flags) == code
        return tmp_path / name

    return run


def said(folder):
    return json.loads((folder / "merge.json").read_text())


def test_small_changes_survive_in_float32_only():
    """Weights of about 0.02, |B| of about 1e-4: what the merge adds is under half a step of bfloat16."""
    model = tiny_lm().bfloat16()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    adapted = add_lora(model, ModelArguments("x", lora_dim=8, lora_target_modules=["q_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=1e-4)
    state = {n: t.clone() for n, t in adapted.state_dict().items()}
    layer = adapted.get_base_model().model.layers[0].self_attn.q_proj
    base, delta = layer.weight.detach().double(), layer.get_delta_weight("default").detach().double()
    errors = {}
    for adapted.merge_dtype in ("bf16", "fp32"):
        weight = merged(adapted, state)["model.layers.0.self_attn.q_proj.weight"]
        assert weight.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[adapted.merge_dtype]
        errors[adapted.merge_dtype] = float((weight.double() - base - delta).norm() / delta.norm())
    assert errors["fp32"] < 0.01 and errors["bf16"] > 0.5


def kl_by_hand(world, folder):
    """KL(base with adapter || folder) per token, by transformers and peft alone, on the first answers held out."""
    base = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32)
    trained = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
    again, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    total, positions = 0.0, 0
    for line in (world / "demos" / "test.jsonl").read_text().splitlines()[:8]:
        row = json.loads(line)
        turns = [*row["prompt"], {"role": "assistant", "content": row["answers"][0]["text"]}]
        ids = lambda chat, **more: tokenizer.apply_chat_template(chat, return_dict=True, **more)["input_ids"]  # noqa: E731
        prompt, whole = ids(row["prompt"], add_generation_prompt=True), ids(turns)
        with torch.no_grad():
            p, q = (m(torch.tensor([whole])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
                    for m in (trained, again))  # fmt: skip
        total, positions = total + float((p.exp() * (p - q)).sum()), positions + len(p)
    return total / positions, positions


def test_a_lossy_merge_is_measured_and_warned_of(train, world, capsys, monkeypatch):
    monkeypatch.setattr("utils.training.extras.merging.LARGEST_KL", 1e-5)  # a toy of two layers loses 1e-4
    lossy = train("lossy", "--merge_dtype", "bf16")
    told = " ".join(capsys.readouterr().out.split())
    assert "warning" in told and "--merge_dtype fp32 keeps them" in told and "nats a token" in told
    assert json.loads((lossy / "config.json").read_text())["dtype"] == "bfloat16"
    assert all(t.dtype == torch.bfloat16 for t in weights(lossy).values())
    expected, positions = kl_by_hand(world, lossy)
    assert said(lossy)["positions"] == positions and said(lossy)["dtype"] == "bfloat16"
    assert said(lossy)["kl_per_token"] == pytest.approx(expected, rel=ROUNDING) and expected > said(lossy)["bound"]

    whole = train("whole")  # a float32 run merges in float32
    told = " ".join(capsys.readouterr().out.split())
    assert "merging the adapter into float32 weights changes the model by" in told and "fp32 keeps" not in told
    assert abs(said(whole)["kl_per_token"]) < 1e-6
    assert torch.equal(weights_of_adapter(lossy), weights_of_adapter(whole))


def weights_of_adapter(folder):
    state = load_file(folder / "adapter" / "adapter_model.safetensors")
    return torch.cat([state[name].flatten() for name in sorted(state)])


def test_float32_of_a_bfloat16_run(train):
    bf16 = ("--bf16", "--zero_stage", "2")
    whole, rounded = train("whole", *bf16, "--merge_dtype", "fp32"), train("rounded", *bf16)
    config = json.loads((whole / "config.json").read_text())
    assert config["dtype"] == "float32" and json.loads((rounded / "config.json").read_text())["dtype"] == "bfloat16"
    assert all(t.dtype == torch.float32 for t in weights(whole).values())
    assert AutoModelForCausalLM.from_pretrained(whole).dtype == torch.float32
    assert said(whole)["dtype"] == "float32"
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(tensor.bfloat16(), weights(rounded)[name], atol=0, rtol=0)
    assert any((t != t.bfloat16().float()).any() for t in weights(whole).values())


def test_a_reward_model_is_measured_by_its_scores(train):
    out = train("reward", "--merge_dtype", "bf16", stage=REWARD)
    assert said(out)["largest_score_difference"] > 1e-4 and said(out)["positions"] == 8
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.dtype == torch.bfloat16


def test_two_ranks_with_zero_3_measure_the_same(world, tmp_path):
    flags = (*LORA, "--zero_stage", "3", "--merge_dtype", "bf16", "--ema_decay", "0.5")
    run_stage(SFT, world / "model", world / "demos", tmp_path / "out", *flags, ranks=2)
    expected, positions = kl_by_hand(world, tmp_path / "out")
    assert said(tmp_path / "out")["kl_per_token"] == pytest.approx(expected, rel=ROUNDING)
    assert weights(tmp_path / "out" / "ema")["lm_head.weight"].dtype == torch.bfloat16


def test_ppo_measures_policy_and_critic(train, world):
    rollouts = ("--prompts_per_rollout", "8", "--samples_per_prompt", "2", "--minibatches", "1",
                "--max_answer_seq_len", "6", "--unfinished", "keep", "--eval_every", "never",
                "--reward_fn", f"{world / 'rewards.py'}:one", "--merge_dtype", "bf16")  # fmt: skip
    out = train("ppo", *rollouts, stage=PPO)
    assert said(out)["kl_per_token"] > 1e-6 and said(out / "critic")["largest_score_difference"] > 1e-6


def test_it_is_refused_without_an_adapter_and_part_of_a_finished_run(train, capsys):
    with pytest.raises(UserError, match="--merge_dtype needs --lora_dim above 0"):
        ModelArguments("x", merge_dtype="fp32")
    train("run")
    train("run", "--merge_dtype", "fp32")  # what None meant
    assert "already finished" in capsys.readouterr().out
    train("run", "--merge_dtype", "bf16", code=2)
    assert "other options (--merge_dtype fp32, now bf16)" in " ".join(capsys.readouterr().err.split())
