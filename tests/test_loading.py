"""Where weights go when a model is loaded. Only a GPU shows the memory; what is asked of transformers shows here."""

import contextlib
import json
import logging
from pathlib import Path

import pytest
import torch
from toy_folders import lm_folder, rm_folder
from transformers import AutoModelForSequenceClassification

from utils.arguments.options import ModelArguments
from utils.engine import internals
from utils.errors import UserError
from utils.model import loading
from utils.model.reward_model import load_reward_model


@pytest.fixture
def second_gpu(monkeypatch):
    monkeypatch.setattr(loading.ranks, "device", lambda: torch.device("cuda", 1))


def test_weights_go_straight_to_the_ranks_gpu(second_gpu):
    assert loading._placement(offload=False) == {"device_map": {"": torch.device("cuda", 1)}}
    assert loading._placement(offload=True) == {}


def test_at_zero_3_they_are_sharded_as_they_load(second_gpu):
    internals.shard_while_loading({"zero_optimization": {"stage": 3}})
    try:
        assert loading._placement(offload=False) == {}
    finally:
        internals.shard_while_loading(None)
    assert loading._placement(offload=False) != {}


def test_without_a_gpu_nothing_is_asked_for():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert loading._placement(offload=False) == {}


def test_the_place_is_asked_for_and_the_model_is_the_same(tmp_path, monkeypatch):
    path = rm_folder(tmp_path / "model")
    tokenizer, kind = loading.load_tokenizer(path), AutoModelForSequenceClassification
    asked, real = [], kind.from_pretrained

    def watched(name, **options):
        asked.append(options.get("device_map"))
        return real(name, **options)

    monkeypatch.setattr(kind, "from_pretrained", watched)
    plain = load_reward_model(ModelArguments(path), tokenizer).state_dict()
    place = {"": torch.device("cpu")}
    monkeypatch.setattr(loading, "_placement", lambda offload: {} if offload else {"device_map": place})
    placed = load_reward_model(ModelArguments(path), tokenizer).state_dict()
    load_reward_model(ModelArguments(path), tokenizer, offload=True)
    assert asked == [None, place, None]
    assert plain.keys() == placed.keys() and all(torch.equal(plain[name], placed[name]) for name in plain)


def test_a_new_head_has_the_numbers_of_the_cpu(tmp_path):
    """Those that loading on the CPU gives it, and the generator goes on from the same state."""
    path = lm_folder(tmp_path / "model")
    torch.manual_seed(7)
    model = load_reward_model(ModelArguments(path), loading.load_tokenizer(path))
    drawn, following = model.score.weight.detach().clone(), torch.rand(3)
    model.score.weight.data.zero_()  # as if a GPU had drawn it
    torch.manual_seed(7)
    loading._draw_on_cpu(model, ["score.weight"])
    assert torch.equal(model.score.weight, drawn) and drawn.std() > 0
    assert torch.equal(torch.rand(3), following)


def test_a_model_of_the_hub_is_known_by_its_commit(tmp_path):
    """In a cache as the hub's client keeps it: another commit is another model."""
    config = Path(lm_folder(tmp_path / "model")) / "config.json"
    repository, found = tmp_path / "cache/models--a--b", set()
    for commit in ("0" * 40, "1" * 40):
        for file, text in (("refs/main", commit), (f"snapshots/{commit}/config.json", config.read_text())):
            (repository / file).parent.mkdir(parents=True, exist_ok=True)
            (repository / file).write_text(text)
        found |= {loading.fingerprint("a/b", str(tmp_path / "cache")) for _ in range(2)}
    assert len(found) == 2


def test_a_critic_is_no_start_of_a_reward_model(tmp_path):
    """Its folder looks like a reward model's, but its config has `is_critic`; PPO may start a critic from it again."""
    path = rm_folder(tmp_path / "critic")
    config, tokenizer = Path(path) / "config.json", loading.load_tokenizer(path)
    load_reward_model(ModelArguments(path), tokenizer)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"is_critic": True}))
    with pytest.raises(UserError, match="critic is the critic of a PPO run: .*start from a language model"):
        load_reward_model(ModelArguments(path), tokenizer)
    assert load_reward_model(ModelArguments(path), tokenizer, critic=True).config.is_critic


def test_no_report_of_a_head_that_is_always_new(tmp_path):
    """transformers' table of missing and unexpected weights is for those who did not expect them."""
    path, seen = lm_folder(tmp_path / "model"), []
    logger, handler = logging.getLogger("transformers.modeling_utils"), logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger.addHandler(handler)
    try:
        load_reward_model(ModelArguments(path), loading.load_tokenizer(path))
        assert not [line for line in seen if "LOAD REPORT" in line]
        AutoModelForSequenceClassification.from_pretrained(path)  # as transformers does without us
        assert [line for line in seen if "LOAD REPORT" in line]
    finally:
        logger.removeHandler(handler)


def test_weights_that_are_not_of_the_config(tmp_path, capsys):
    """Another shape is refused by name, a weight too many is one line."""
    path = Path(lm_folder(tmp_path / "model"))
    tokenizer, config = loading.load_tokenizer(str(path)), json.loads((path / "config.json").read_text())
    for changes, words in (({"intermediate_size": 80}, "has the shape .*96.*; config.json says .*80"), ({}, None)):
        (path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2} | changes))
        with pytest.raises(UserError, match=words) if words else contextlib.nullcontext():
            loading.load_causal_lm(ModelArguments(str(path)), tokenizer)
    assert "its files hold 9 weights that the model does not use, the first model.layers.2." in capsys.readouterr().out
