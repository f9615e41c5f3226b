"""DPO samples held-out prompts before training and after each epoch, and a reward model scores them."""

import json

import pytest
import torch
from stages import metrics, run_stage, toy_data, toy_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

SAMPLES = ("--sample_during_eval", "5", "--sample_max_new_tokens", "8")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampling")
    model, data = toy_model(folder / "model"), toy_data(folder / "data")
    run_stage("step2_reward", model, data, folder / "reward", "--max_steps", "4")
    return folder, model, data


@pytest.mark.parametrize("ranks", [1, 2])
def test_samples_before_and_after_each_epoch_with_their_scores(folders, tmp_path, ranks):
    folder, model, data = folders
    flags = (*SAMPLES, "--reward_model_name_or_path", str(folder / "reward"))
    run_stage("step3_dpo", model, data, tmp_path / "dpo", *flags, ranks=ranks)
    names = ["before_dpo.json", "after_dpo_epoch_1_6.json", "after_dpo_epoch_2_12.json"]
    rewards = [row["eval/reward"] for row in metrics(tmp_path / "dpo") if "eval/reward" in row]
    scorer = AutoModelForSequenceClassification.from_pretrained(folder / "reward")
    tokenizer = AutoTokenizer.from_pretrained(folder / "reward")
    for name, reward in zip(names, rewards, strict=True):
        rows = json.loads((tmp_path / "dpo" / name).read_text())
        assert len(rows) == 5 and all(set(row) == {"prompt", "response", "score"} for row in rows)
        assert reward == pytest.approx(sum(row["score"] for row in rows) / 5, abs=1e-6)
    samples = [json.loads(line) for line in (tmp_path / "dpo" / "samples-step-0.jsonl").read_text().splitlines()]
    checked = 0
    for row in samples:
        if row["finished"]:
            text = f"{row['prompt']} {row['response']} {tokenizer.eos_token}"
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.no_grad():
                assert row["score"] == pytest.approx(scorer(input_ids=ids).logits.item(), abs=1e-4)
            checked += 1
    assert checked or not any(row["finished"] for row in samples)


def test_samples_are_the_same_for_any_number_of_ranks_and_do_not_move_training(folders, tmp_path):
    folder, model, data = folders
    run_stage("step1_sft", model, data, tmp_path / "one", *SAMPLES, "--max_steps", "3", "--dropout", "0.1")
    run_stage("step1_sft", model, data, tmp_path / "none", "--max_steps", "3", "--dropout", "0.1")
    assert metrics(tmp_path / "one") == metrics(tmp_path / "none")
    run_stage("step1_sft", model, data, tmp_path / "two", *SAMPLES, "--max_steps", "3", "--dropout", "0.1", ranks=2)
    first = [(tmp_path / run / "samples-step-0.jsonl").read_text() for run in ("one", "two")]
    assert first[0] == first[1]
