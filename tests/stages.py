"""Running stage programs as people do, on toy models and toy data, for several test files."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from processes import run_program, together
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as token_models
from toys import ROOT, tiny_lm
from transformers import PreTrainedTokenizerFast

from utils.records import Answer, Message, Record, comparison
from utils.records.files import write_jsonl
from utils.reporting import Report

WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<|user|>",
    "<|assistant|>",
    *["please", "say", "yes", "no", "red", "blue", "now", "and", "then", "why"],
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|> ' + m['content'] + ' ' + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}"
)


def toy_model(folder: Path, family: str = "llama", **changes) -> Path:
    """A model folder: a tiny model, a word tokenizer with a chat template."""
    core = Tokenizer(token_models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        additional_special_tokens=["<|user|>", "<|assistant|>"], chat_template=TEMPLATE,
    )  # fmt: skip
    tiny_lm(
        family, **{"vocab_size": 64, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, **changes}
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def toy_data(folder: Path, rows: int = 48, seed: int = 0) -> Path:
    """train.jsonl and test.jsonl of comparisons: the chosen answer says yes."""
    draw = np.random.default_rng(seed)
    words = lambda n: " ".join(draw.choice(WORDS[6:], n))  # noqa: E731

    def one():
        prompt = [Message("user", words(draw.integers(2, 9)))]
        return comparison(prompt, f"yes {words(draw.integers(1, 6))}", f"no {words(draw.integers(1, 6))}")

    for split, count in (("train", rows), ("test", 12)):
        write_jsonl(folder / f"{split}.jsonl", (one() for _ in range(count)))
    return folder


def demonstrations(folder: Path, rows: int = 48) -> Path:
    made = toy_data(folder, rows)
    for split in ("train", "test"):
        records = [json.loads(line) for line in (made / f"{split}.jsonl").read_text().splitlines()]
        write_jsonl(
            folder / f"{split}.jsonl",
            (Record(tuple(Message(**m) for m in r["prompt"]), (Answer(r["answers"][0]["text"]),)) for r in records),
        )
    return folder


def program(stage: str, model: Path, data: Path, out: Path, *flags: str, ranks: int = 1) -> list[str]:
    """main.py of the stage and its words."""
    options = {
        "--model_name_or_path": str(model), "--data_path": str(data), "--output_dir": str(out),
        "--cache_dir": str(out.parent / "cache"), "--per_device_train_batch_size": str(8 // ranks),
        "--learning_rate": "1e-2",
        "--num_train_epochs": "2", "--lr_scheduler_type": "linear", "--logging_steps": "1", "--report_to": "none",
    }  # fmt: skip
    words = [word for pair in options.items() for word in pair]
    return [str(ROOT / "training" / stage / "main.py"), *words, "--", *flags]


def command(*words, ranks: int = 1) -> list[str]:
    """The same as a person types it."""
    starter = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    return [sys.executable, *starter, *program(*words, ranks=ranks)]


def run_stage(stage: str, model: Path, data: Path, out: Path, *flags: str, ranks: int = 1, code: int = 0) -> str:
    """Run it from inside its folder; returns what it printed. Several ranks are started as torchrun starts them."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        found = together(run_program, log, program(stage, model, data, out, *flags, ranks=ranks), ranks=ranks)
        said = log.read_text(encoding="utf-8", errors="replace")
    assert found == code, f"exit {found}\n{said[-6000:]}"
    return said


WALL_CLOCK = set(Report.WALL_CLOCK)


def metrics(out: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the fields that a clock decides."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in rows]


def weights(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(out / "model.safetensors")
