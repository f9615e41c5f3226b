"""--ema_decay: ema/ holds the average of the weights that step-1/, step-2/, … hold, whatever ZeRO shares out."""

import in_process
import pytest
import torch
from in_process import PPO, REWARD, SFT
from safetensors.torch import load_file
from stages import demonstrations, run_stage, toy_data, toy_model, weights
from transformers import AutoModelForCausalLM

DECAY, STEPS = 0.8, 4
FLAGS = ("--ema_decay", str(DECAY), "--save_every", "1", "--max_steps", str(STEPS), "--eval_every", "never",
         "--checkpoint_every", "3")  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    toy_model(folder / "tied", tie_word_embeddings=True)
    demonstrations(folder / "demos")
    toy_data(folder / "pairs")
    (folder / "rewards.py").write_text("def one(record):\n    return [float(len(a.text)) for a in record.answers]\n")
    return folder


def train(stage, world, out, *flags, ranks=1):
    data = world / ("demos" if stage == SFT else "pairs")
    if ranks == 1 and "3" not in flags:
        assert in_process.run_stage(stage, world / "tied", data, out, world / "cache", *FLAGS, *flags) == 0
    else:
        run_stage(stage, world / "tied", data, out, *FLAGS, *flags, ranks=ranks)


def average_by_hand(out, file="model.safetensors", last=STEPS):
    """e <- d e + (1 - d) w over the saved steps, begun with the first."""
    average = {n: t.double() for n, t in load_file(out / "step-1" / file).items()}
    for step in range(2, last + 1):
        now = load_file(out / f"step-{step}" / file)
        average = {n: DECAY * e + (1 - DECAY) * now[n].double() for n, e in average.items()}
    return average


def check(out, file="model.safetensors", atol=2e-7):
    expected, found = average_by_hand(out, file), load_file(out / "ema" / file)
    last = load_file(out / f"step-{STEPS}" / file)
    assert expected.keys() == found.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), expected[name], atol=atol, rtol=0)
    assert max(float((found[n] - last[n]).abs().max()) for n in found) > 1e-3


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_zero_stages_and_ranks_average_alike(world, tmp_path, stage, ranks):
    """Tied embeddings: as plain transformers loads ema/, the head is the embedding, and both are the average."""
    train(SFT, world, tmp_path / "out", "--zero_stage", str(stage), ranks=ranks)
    check(tmp_path / "out")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "ema", output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    embedding = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is embedding
    expected = average_by_hand(tmp_path / "out")["model.embed_tokens.weight"]
    torch.testing.assert_close(embedding.double(), expected, atol=2e-7, rtol=0)


@pytest.mark.parametrize(
    "stage, flags, ranks",
    [
        (SFT, ("--lora_dim", "4", "--zero_stage", "2"), 2),
        (SFT, ("--lora_dim", "4", "--zero_stage", "3"), 2),
        (REWARD, ("--lora_dim", "4"), 1),
        (SFT, ("--zero_stage", "2", "--offload"), 1),
        (SFT, ("--zero_stage", "3", "--offload"), 2),
    ],
    ids=["lora, zero-2", "lora, zero-3", "reward, lora", "offload", "offload, zero-3"],
)
def test_only_what_is_trained_is_averaged(world, tmp_path, stage, flags, ranks):
    train(stage, world, tmp_path / "out", *flags, ranks=ranks)
    lora = "--lora_dim" in flags
    check(tmp_path / "out", "adapter/adapter_model.safetensors" if lora else "model.safetensors")
    if lora:
        name = "model.embed_tokens.weight"
        assert torch.equal(weights(tmp_path / "out" / "ema")[name], weights(tmp_path / "out")[name])


def test_bfloat16_averages_the_float32_master_weights(world, tmp_path):
    out = tmp_path / "out"
    train(SFT, world, out, "--bf16", "--zero_stage", "2", ranks=2)
    for name, tensor in load_file(out / "ema" / "model.safetensors").items():
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor.double(), average_by_hand(out)[name], atol=2e-3, rtol=2**-7)
    kept = [torch.load(out / "checkpoints" / "step-00000003" / f"rank-{r}.pt", weights_only=False) for r in (0, 1)]
    parts = [rank["extra"]["ema"]["parts"] for rank in kept]
    assert all(t.dtype == torch.float32 for part in parts for t in part.values())
    assert any((t != t.bfloat16().float()).any() for part in parts for t in part.values())
    sizes = [sum(t.numel() for t in part.values()) for part in parts]
    assert min(sizes) > 0 and sum(sizes) == sum(t.numel() for t in weights(out).values())  # each weight once


@pytest.mark.parametrize("flags, ranks", [((), 1), (("--zero_stage", "3", "--lora_dim", "4"), 2)])
def test_ppo_averages_its_policy(world, tmp_path, flags, ranks):
    """One update a step, the first of them after a step in which the critic alone learns."""
    rollouts = ("--prompts_per_rollout", "8", "--samples_per_prompt", "2", "--minibatches", "1", "--ppo_epochs", "1",
                "--value_warmup", "1", "--max_answer_seq_len", "6", "--unfinished", "keep",
                "--reward_fn", f"{world / 'rewards.py'}:one")  # fmt: skip
    out = tmp_path / "out"
    train(PPO, world, out, *rollouts, *flags, ranks=ranks)
    file = "adapter/adapter_model.safetensors" if flags else "model.safetensors"
    assert not (out / "step-1" / "ema").exists()
    expected = {n: t.double() for n, t in load_file(out / "step-2" / file).items()}
    for step in (3, 4):
        now = load_file(out / f"step-{step}" / file)
        expected = {n: DECAY * e + (1 - DECAY) * now[n].double() for n, e in expected.items()}
    for name, tensor in load_file(out / "ema" / file).items():
        torch.testing.assert_close(tensor.double(), expected[name], atol=2e-7, rtol=0)
