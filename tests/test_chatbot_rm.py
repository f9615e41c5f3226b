"""chatbot.py --mode rm: the scores of answers, where they stand, and what it reads when nothing is named."""

import json
import os

import numpy as np
import pytest
import torch
from chats import HUMAN, chat, inputs, lm, models, one_thread, rm  # noqa: F401 (fixtures)
from toy_folders import read_rows, rm_folder, write_rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from inference import chatbot, rerank
from utils.errors import UserError
from utils.records.files import read_records
from utils.tokens.templates import Renderer


def test_rm_scores_what_generate_wrote_as_plain_transformers_does(folder, here, capsys):
    """Records: under the model's name. Plain rows: `score`, in the shape of the answers."""
    for name in ("records.jsonl", "plain.txt"):
        lm(folder, "generate", "--data_path", here / name, "--num_samples", 3, "--max_new_tokens", 5)
    rm(folder, "--data_path", here / "records-generate.jsonl")
    rm(folder, "--data_path", here / "plain-generate.jsonl")
    said = capsys.readouterr().out
    records = list(read_records(here / "records-generate-rm.jsonl"))
    scores = [[a.scores[f"{folder.name}/rm"] for a in r.answers] for r in records]
    assert np.allclose([row["score"] for row in read_rows(here / "plain-generate-rm.jsonl")], scores, atol=1e-5)
    assert (
        f"mean {sum(map(sum, scores)) / 18:.4f}" in said
        and "95 % interval" in said
        and "6 prompts (18 answers)" in said
    )

    tokenizer = AutoTokenizer.from_pretrained(folder / "rm")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "rm").eval()
    renderer = Renderer(tokenizer, "human_assistant")
    for record, row in zip(records, scores, strict=True):
        for k, score in enumerate(row):
            group = renderer.group(record, [k])
            ids = torch.tensor([[*group.prompt.tolist(), *group.answers[0].tolist()]])
            with torch.no_grad():
                assert score == pytest.approx(float(model(ids).logits[0, 0]), abs=1e-4)


def test_a_score_column_follows_the_columns_it_scores(folder, here):
    write_rows(here / "x.jsonl", [{"prompt": "hello", "greedy": "yes", "output": {"a": "no", "b": "five"}}])
    rm(folder, "--data_path", here / "x.jsonl")
    (row,) = read_rows(here / "x-rm.jsonl")
    assert set(row["score"]) == {"greedy", "output"} and set(row["score"]["output"]) == {"a", "b"}
    assert isinstance(row["score"]["greedy"], float)


def test_rm_with_nothing_after_it_takes_the_newest(folder, here, monkeypatch, capsys):
    monkeypatch.setattr(chatbot, "ROOT", here)
    with pytest.raises(
        UserError, match=r"no reward model under .*; name one with --model_name_or_path, as in python inf"
    ):
        chat("--mode", "rm")
    for n, name in enumerate(("old", "new")):
        rm_folder(here / "output" / name, seed=n + 1)
        os.utime(here / "output" / name / "config.json", (1000 + n, 1000 + n))
    for n, critic in enumerate(("ppo/critic", "marked")):  # newer than any reward model; the first is not marked
        rm_folder(here / "output" / critic)
        config = here / "output" / critic / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | ({"is_critic": True} if n else {})))
    with pytest.raises(UserError, match="no generated answers under"):
        chat("--mode", "rm", *HUMAN)
    lm(
        folder,
        "generate",
        "--data_path",
        here / "plain.txt",
        "--output_path",
        here / "output" / "a",
        "--max_new_tokens",
        3,
    )
    capsys.readouterr()
    chat("--mode", "rm", *HUMAN)
    said = capsys.readouterr().out
    assert (
        f"newest reward model: {here / 'output' / 'new'}" in said
        and f"newest generated answers: {here / 'output'}/a.jsonl" in said
    )
    assert len(read_rows(here / "output" / "a-rm.jsonl")) == 6
    chat("--mode", "rm", *HUMAN)
    assert "already finished" in (again := capsys.readouterr().out) and "is not beside" not in again
    rm_folder(here / "output" / "own" / "reward", seed=3)  # of another project, and the newest of all
    chat("--mode", "rm", "--output_path", here / "scored", *HUMAN)
    assert f"is not beside {here / 'output' / 'own' / 'reward'}: is this what it should" in capsys.readouterr().out


def test_a_critic_is_refused_wherever_a_reward_model_is_wanted(folder, here):
    critic = rm_folder(here / "critic")
    config = here / "critic" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"is_critic": True}))
    answered = write_rows(here / "answered.jsonl", [{"prompt": "hello", "greedy": "yes"}])
    refused = pytest.raises(UserError, match="critic is the critic of a PPO run; a reward model is wanted")
    with refused:
        chat("--mode", "rm", "--model_name_or_path", critic, *HUMAN, "--data_path", answered)
    with refused:
        lm(folder, "chat", "--reward_model_name_or_path", critic)
    with refused:
        rerank.main(["--reward_model_name_or_path", critic, *HUMAN, "--data_path", str(answered), "--n", "1"])
    assert not list(here.glob("answered-*"))
