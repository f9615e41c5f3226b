"""A copy of this checkout in which the commands of documents are typed: a world in small, answers and models."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

from processes import environment
from stages import toy_model
from toys import ROOT, tiny_rm

from utils.records import Answer, Record
from utils.records.files import read_records, write_jsonl
from utils.world.exchanges import read_prompt
from utils.world.teachers import strong, weak

WAIT = "until curl -s -o /dev/null {}/models; do sleep 0.2; done"  # a person types no faster than a server starts


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def make_checkout(home: Path) -> Path:
    """A copy of this checkout with what `bash run.sh` leaves, in small: a world, answers, models."""
    shutil.copytree(ROOT, home, ignore=shutil.ignore_patterns(".*", "output", "__pycache__", "*.egg-info", "tests"))
    tutor, draw = home / "output/tutor", random.Random(0)
    sizes = "--num_demonstrations 200 --num_prompts 12 --num_pairs 20 --num_test 5 --vocab_size 400"
    type_in(home, f"python data_collect/make_world.py --output_dir output/tutor/world {sizes}")
    answered = []
    for record in read_records(tutor / "world/prompts/train.jsonl"):
        exchange = read_prompt(record.prompt)
        answers = tuple(Answer(teacher(exchange, draw), teacher.__name__) for teacher in (strong, weak, weak))
        answered.append(Record(record.prompt, answers))
    write_jsonl(tutor / "answers/for_feedback_train.jsonl", answered)
    for name in ("sft", "dpo", "reward"):
        language_model(tutor / name)
    reward_weights(tutor / "reward")
    write_jsonl(home / "prompts.jsonl", [Record(r.prompt) for r in answered[:3]])
    return home


def language_model(folder: Path) -> None:
    toy_model(folder, max_position_embeddings=1024)


def reward_weights(folder: Path) -> None:
    """Make a reward model of a language model's folder."""
    tiny_rm(vocab_size=64, max_position_embeddings=1024).save_pretrained(folder)


def type_in(home: Path, script: str, code: int = 0, **settings: str) -> str:
    """What bash says when this is typed in the copy's root; background jobs end with it."""
    kept = {k: v for k, v in environment().items() if not k.startswith(("OPENAI", "ANTHROPIC", "DS_ACCELERATOR"))}
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"], cwd=home,
        env={**kept, "PYTHONPATH": str(home), "PATH": path, **settings}, input="hello\nquit\n", capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == code, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr
