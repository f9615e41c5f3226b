"""What the tests of chatbot.py share: two toy models, two files of prompts, and its command line.

A test file imports the fixtures by the names of their functions and asks for `folder` and `here`.
"""

from __future__ import annotations

import pytest
import torch
from toy_folders import lm_folder, rm_folder, write_rows

from inference import chatbot

TEXTS = ["hello", "what is two plus three?", "be kind, be kind", "five", "is it not?", "three"]
PLAIN = [{"prompt": f"Human: {text}\n\nAssistant:", "task": "qa", "n": n} for n, text in enumerate(TEXTS)]
RECORDS = [
    {"id": f"r{n}", "prompt": [{"role": "user", "content": text}], "answers": []} for n, text in enumerate(TEXTS)
]
HUMAN = ["--template", "human_assistant"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", name="folder")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    lm_folder(folder / "lm")
    rm_folder(folder / "rm")
    return folder


@pytest.fixture(name="here")
def inputs(tmp_path):
    write_rows(tmp_path / "plain.txt", PLAIN)
    write_rows(tmp_path / "records.jsonl", RECORDS)
    return tmp_path


def chat(*words):
    chatbot.main([str(word) for word in words])


def lm(folder, mode, *words):
    chat("--mode", mode, "--model_name_or_path", folder / "lm", *HUMAN, *words)


def rm(folder, *words):
    chat("--mode", "rm", "--model_name_or_path", folder / "rm", *HUMAN, *words)
