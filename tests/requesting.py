"""Running data_collect/request.py on the oracle's server, and rows of its world in every shape."""

from __future__ import annotations

import json
import random

import in_process
from oracle import control
from toys import ROOT

from utils.records import Answer, Message, Record
from utils.world.exchanges import draw_exchange, write_prompt
from utils.world.teachers import strong, weak

PROGRAM = ROOT / "data_collect/request.py"


def request(url, *words):
    """Its exit code, asking the server at `url` as often as it takes, at temperature 0 unless the words say another."""
    cold = () if "--temperature" in words else ("--temperature", "0")
    return in_process.run(PROGRAM, *words, *cold, "--base_url", url, "--api_type", "oracle", "--backoff", "0.01")


def sent(url):
    """Requests that the server has seen so far."""
    return control(url, "counts")["requests"]


def exchanges(number, seed=0, turns=None):
    """(exchange, its turns, the strong teacher's answer, the weak one's)."""
    made, rng = [], random.Random(seed)
    while len(made) < number:
        exchange = draw_exchange(rng)
        said = write_prompt(exchange, rng)
        if turns is None or len(said) == turns:
            made.append((exchange, said, strong(exchange, rng), weak(exchange, rng)))
    return made


def record(item, number):
    _, turns, good, poor = item
    prompt = tuple(Message(turn.role, turn.content) for turn in turns)
    return Record(prompt, (Answer(good, "good"), Answer(poor, "poor"), Answer("Hm.", "third")), id=f"r{number}")


def formatted(turns):
    names = {"system": "System", "user": "Human", "assistant": "Assistant"}
    return "\n\n".join(f"{names[turn.role]}: {turn.content}" for turn in turns) + "\n\nAssistant:"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
