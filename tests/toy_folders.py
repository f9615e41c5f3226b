"""Model folders as the stages write them, made in a moment: a byte-level tokenizer and a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from toys import ROOT, tiny_lm, tiny_rm
from transformers import PreTrainedTokenizerFast

from utils.engine.ranks import free_port

WORDS = ["\n\nHuman: what is two plus three?\n\nAssistant: it is five, is it not?", "hello there, be kind"] * 5


def toy_tokenizer(pad: str = "<pad>"):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    backend.train_from_iterator(
        WORDS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token=pad)


def peaked(model, by: float = 8.0):
    """An untrained model finds all tokens about equally likely; this one has opinions."""
    model.get_output_embeddings().weight.data *= by
    return model


def lm_folder(folder: Path, seed: int = 0, pad: str = "<pad>", **changes) -> str:
    tokenizer = toy_tokenizer(pad)
    model = peaked(tiny_lm(seed=seed, vocab_size=len(tokenizer), **changes))
    return _save(model, tokenizer, folder)


def rm_folder(folder: Path, seed: int = 1) -> str:
    tokenizer = toy_tokenizer()
    model = tiny_rm(seed=seed, vocab_size=len(tokenizer))
    model.score.weight.data *= 20
    return _save(model, tokenizer, folder)


def _save(model, tokenizer, folder: Path) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_rows(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def command(program: str, *arguments: str, ranks: int = 1, module: str = "torch.distributed.run") -> list[str]:
    launcher = ["-m", module, f"--nproc_per_node={ranks}", f"--master_port={free_port()}"] if ranks > 1 else []
    return [sys.executable, *launcher, str(ROOT / program), *map(str, arguments)]


def quiet_environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def run(program: str, *arguments: str, cwd: Path | None = None, **options) -> subprocess.CompletedProcess:
    """The program in a process of its own, from another folder than the repository's."""
    words = command(program, *arguments, **options)
    process = subprocess.Popen(
        words, env=quiet_environment(), cwd=cwd or "/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # a launcher's children too
        raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)
