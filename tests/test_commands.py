"""Every command of every document but the README (tests/test_readme.py), run as it is typed: each bash block in a copy
of the checkout, with the files that it names made before. A script for GPUs runs up to the line that starts ranks."""

import csv
import functools
import gzip
import json
import os
import random
import re
import shutil
import socket
import sys
from pathlib import Path

import pytest
from checkout import WAIT, fences, language_model, reward_weights, type_in
from test_tutor_data import data_sets
from toy_folders import write_rows
from toys import ROOT

from utils.records import Answer, Message, Record, Verdict
from utils.records.files import read_records, write_jsonl
from utils.world.exchanges import PROBLEMS, read_prompt
from utils.world.teachers import strong, weak

SKIPPED = {".git", ".venv", "output", "node_modules"}
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not SKIPPED & set(path.relative_to(ROOT).parts))
NOT_RUN = {  # the start of a command -> why no test of documents types it
    "bash run.sh": "the whole pipeline, fifteen minutes: .ci/run runs it",
    "bash test.sh": "these tests",
    "source training/environment.sh": "installs from the network: tests/test_environment.py",
}
QUICK = ("convert.py", "consistency.py", "oracle_server.py", "tutor.py", "ledger.py")  # in every run of the tests
THE_OTHER = "--output_path data/initial_answers/13b.jsonl"  # "then --mode generate with the other model"
QUESTIONS = tuple(f"What is {problem.topic}?" for problem in PROBLEMS.values() if problem.kind == "sum")
NAMES = ("vicuna-7b", "vicuna-13b")


def commands(block: str) -> list[str]:
    """The lines of a block as bash reads them, without comments."""
    lines = re.sub(r"\\\n\s*", "", block).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def not_run(command: str) -> str | None:
    return next((start for start in NOT_RUN if command.startswith(start)), None)


def blocks():
    for document in DOCUMENTS:
        if document == ROOT / "README.md":
            continue
        for number, block in enumerate(fences(document.read_text(encoding="utf-8"), "bash"), start=1):
            programs = re.findall(r"\w+\.(?:py|sh)\b", "\n".join(c for c in commands(block) if not not_run(c)))
            marks = [pytest.mark.slow] if set(programs) <= set(QUICK) else [pytest.mark.full]
            yield pytest.param(block, document, id=f"{document.relative_to(ROOT)}-{number}", marks=marks)


# ---- files that documents name: where, from the copy's root -> what makes it


def copied(source: str):
    def make(path: Path, home: Path) -> None:
        found = home / "output/tutor/world" / source
        (shutil.copytree if found.is_dir() else shutil.copy)(found, path)

    return make


def model(path: Path, home: Path) -> None:
    language_model(path)


def reward_model(path: Path, home: Path) -> None:
    language_model(path)
    reward_weights(path)


def answers(count: int):
    """Test prompts of the world, `count` answers of its teachers to each."""

    def make(path: Path, home: Path) -> None:
        draw, answered = random.Random(0), []
        for record in read_records(home / "output/tutor/world/prompts/test.jsonl"):
            exchange = read_prompt(record.prompt)
            texts = [(strong, weak)[n % 2](exchange, draw) for n in range(count)]
            answered.append(Record(record.prompt, tuple(Answer(text, "sft") for text in texts)))
        write_jsonl(path, answered)

    return make


def rows(shape):
    """JSON Lines, gzipped where the name ends in .gz: `shape` of each question."""

    def make(path: Path, home: Path) -> None:
        lines = "".join(json.dumps(shape(question)) + "\n" for question in QUESTIONS[:12])
        with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as out:
            out.write(lines)

    return make


def judged(path: Path, home: Path) -> None:
    """Lines of two models' answers, a third for each kind of feedback."""
    kinds = ("critic", "refine", "prefer")
    write_rows(path, [
        {"prompt": f"Human: {question}\n\nAssistant: ", "task": "dialog", "feedback_type": kinds[n % 3],
         "output": dict(zip(NAMES, ("It is 4.", "How would you start?"), strict=True))}
        for n, question in enumerate(QUESTIONS[:6])
    ])  # fmt: skip


def ledger(path: Path, home: Path, judge: str) -> None:
    """What `request.py` of docs/feedback.md leaves."""
    judged(home / "group.txt", home)
    words = f"--input_files group.txt --output_file {path.stem} --base_models {','.join(NAMES)} --api_type gpt4"
    type_in(home, f"python data_collect/request.py {words}", OPENAI_API_KEY="any", OPENAI_BASE_URL=judge)


def generators(path: Path, home: Path) -> None:
    """The answers of two generators, each in a file that is found by its name."""
    (path / "samples_temp1.0").mkdir(parents=True)
    for name, said in (("chatgpt.json", "How would you start?"), ("samples_temp1.0/1.json", "It is 4.")):
        (path / name).write_text(json.dumps({question: [said] for question in QUESTIONS[:10]}))


def generations(name: str):
    def make(path: Path, home: Path) -> None:
        each = [{"dataset": "world", "generator": name, "instruction": q, "output": f"{name}: 4."} for q in QUESTIONS]
        path.write_text(json.dumps(each))

    return make


def first_of_split(path: Path, home: Path) -> None:
    """Three prompts of `tutor.py split` with the teacher's turns."""
    data_sets(home, 1)
    said = json.loads((home / "bio-dataset-1.json").read_text())[0]["conversations"][1]["value"]
    prompts = [f"System: Guide the student. Student: {question}\n\nTutorbot:" for question in QUESTIONS[:3]]
    path.write_text(json.dumps({"prompt": prompts, "chosen": [said] * 3}))


def sampled(path: Path, home: Path) -> None:
    two = (Answer("It is 4."), Answer("Count on."))
    write_jsonl(path, [Record((Message("user", question),), two) for question in QUESTIONS])


def table(*columns, header: tuple[str, ...] = ()):
    def make(path: Path, home: Path) -> None:
        with path.open("w", newline="") as out:
            csv.writer(out).writerows([*([header] if header else []), *([q, *columns] for q in QUESTIONS)])

    return make


def verdicts(preferred: str):
    """Verdicts on three models' answers, each against sft's."""

    def make(path: Path, home: Path) -> None:
        said = tuple(Answer(f"{name}: {name * 3}.", name) for name in ("sft", "dpo", "ppo"))
        found = tuple(Verdict(0, number, preferred, "people", "ab") for number in (1, 2))
        write_jsonl(path, [Record((Message("user", question),), said, found) for question in QUESTIONS])

    return make


def annotated(path: Path, home: Path) -> None:
    one = {"output_1": "It is 4.", "output_2": "Count on.", "preference": 2}
    path.write_text(json.dumps([{"instruction": question, **one} for question in QUESTIONS]))


def alternatives(path: Path, home: Path) -> None:
    data_sets(home, 2)
    found = json.loads((home / "bio-dataset-1.json").read_text())
    for row in found:
        hint = row["conversations"][1]
        row["conversations"][2:] = [{**hint, "value": hint["value"].replace("'1'", "'2'")}]
    path.write_text(json.dumps(found))


def both_ratings(path: Path, home: Path) -> None:
    with path.open("w", newline="") as out:
        for question in QUESTIONS:
            csv.writer(out).writerows([[question, "", "Count on.", 6], [question, "", "It is 4.", 2]])


def conversations(path: Path, home: Path) -> None:
    path.mkdir()
    data_sets(path, 600)


def own_turns(path: Path, home: Path) -> None:
    data_sets(home, 1)
    said = json.loads((home / "bio-dataset-1.json").read_text())[0]["conversations"][1]["value"]
    table("no turn", said, header=("prompt", "response", "gpt"))(path, home)


def begun(path: Path, home: Path) -> None:
    write_rows(path / "sft/metrics.jsonl", [{"step": 1, "loss": 1.0}])


def dialogue(question: str) -> dict:
    return {"prompt": f"\n\nHuman: {question}\n\nAssistant:"}


def post(question: str) -> dict:
    return {"prompt": f"SUBREDDIT: r/homework\n\nTITLE: Help\n\nPOST: {question}\n\nTL;DR:"}


SCRIPTS = {"output/sft_llama": model, "output/sft_llama_lora": model,
           "output/reward_llama": reward_model, "output/reward_llama_lora": reward_model}  # fmt: skip
INPUTS = {
    **SCRIPTS,
    "output/tutor": begun,
    "output/tutor/feedback": copied("pairs"),
    "output/tutor/feedback/test.jsonl": copied("pairs/test.jsonl"),
    "output/tutor/answers/dpo.jsonl": answers(1),
    "output/tutor/answers/sft_16.jsonl": answers(16),
    "typed/models/llama": model, "typed/models/sft": model, "typed/models/reward": reward_model,
    "typed/data/pairs.jsonl": copied("pairs/train.jsonl"), "typed/data/prompts.jsonl": copied("prompts/train.jsonl"),
    "training/step1_sft/a.jsonl": copied("sft/train.jsonl"), "training/step1_sft/b.jsonl": copied("sft/test.jsonl"),
    "data_collect/vicuna-7b": model, "data_collect/vicuna-13b": model,
    "data_collect/hh.jsonl.gz": rows(dialogue), "data_collect/tldr.jsonl": rows(post),
    "data_collect/webgpt.jsonl": rows(lambda question: {"question": question}),
    "davinci003.json": generations("davinci003"), "datasets/bio-dpo_formatted.json": first_of_split,
    "datasets": conversations, "responses.csv": own_turns,
    "group.txt": judged, "runs/mistral7b/epoch-9": generators,
    "sft_answers.jsonl": answers(1), "dpo_answers.jsonl": answers(1),
    "sampled.jsonl": sampled, "feedback.csv": table("", "Count on.", "It is 4.", "(a)"),
    "judged.jsonl": verdicts("b"), "people.jsonl": verdicts("a"), "annotations.json": annotated,
    "ppl.json": alternatives,
    "reference.json": generations("reference"), "model.json": generations("model"),
    "reference.csv": table("", "It is 4.", 2), "model.csv": table("", "Count on.", 6),
    "ratings.csv": both_ratings, "rankings.csv": table("", "Count on.", "It is 4.", "(a)"),
}  # fmt: skip


def prepare(block: str, home: Path, judge: str) -> None:
    """Make what the block names and does not make itself, what `bash run.sh` would have left, and the models that the
    scripts for GPUs start from."""
    made = set(re.findall(r"--(?:output\w*|json) (\S+)", block))
    wanted, folder = dict.fromkeys([*(SCRIPTS if "bash run_" in block else ()), "output/tutor/feedback"]), home
    for command in commands(block):
        if command.startswith("cd "):
            folder = home / command.split()[1]
        for path in set(re.findall(r"[\w./-]+", command)) - made:
            wanted[os.path.relpath(folder / path, home)] = None
    for path in wanted:
        make = functools.partial(ledger, judge=judge) if path == "feedbacks.txt.ledger" else INPUTS.get(path)
        if make and (path == "output/tutor" or not (home / path).exists()):
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            make(home / path, home)
    if "newest answers under output" in block:
        words = "--model_name_or_path output/tutor/sft --data_path prompts.jsonl"
        type_in(
            home, f"python inference/chatbot.py --mode generate {words} --output_path output/tutor/answers/sft.jsonl"
        )


# ---- typing


def gpus(home: Path) -> str:
    """A bash function: a script for Llama finds eight GPUs, and its ranks are named instead of started."""
    tools = home / "gpus"
    tools.mkdir()
    listed = "".join(f"GPU {n}: H100 (UUID: GPU-{n})\\n" for n in range(8))
    for name, text in {
        "nvidia-smi": f"printf '{listed}'",
        "deepspeed": 'echo "started: $*"',
        "python": f'[[ "$1" != -u ]] || {{ echo "started: $*"; exit; }}\nexec {sys.executable} "$@"',
    }.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tools / name).chmod(0o755)
    return (
        'bash() { case "$1" in run_*llama*) PATH="' + str(tools) + ':$PATH" command bash "$@" ;; '
        '*) command bash "$@" ;; esac; }\n'
    )


def typed(block: str) -> str:
    """The block as bash gets it: a server runs beside what follows, and what a comment asks for is done."""
    script = []
    for command in commands(block):
        if not_run(command):
            continue
        if "group.py" in command and THE_OTHER.split()[1] in command and THE_OTHER not in block:
            words = "--mode generate --model_name_or_path vicuna-13b --data_path data/origin/problems.txt"
            script.append(f"python ../inference/chatbot.py {words} {THE_OTHER}")
        if "oracle_server.py" in command:
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = str(s.getsockname()[1])
            command = f"{command.replace('8008', port)} &\n{WAIT.format(f'http://127.0.0.1:{port}/v1')}"
        script.append(command)
    return "\n".join(script)


@pytest.mark.parametrize("block, document", blocks())
def test_a_block_runs_as_it_is_typed(block, document, checkout, judge, tmp_path):
    home = tmp_path / "checkout"
    shutil.copytree(checkout, home)
    block = re.sub(r"(?<![\w.~/-])/(models|data|out)/", rf"{home}/typed/\1/", block)  # paths of other machines
    prepare(block, home, judge)
    own = {"step1_sft": "sft", "step2_reward": "reward", "step3_dpo": "dpo", "step3_ppo": "ppo"}.get(
        document.parent.name
    )
    if own and "bash run_" in block:
        for folder in (home / "output/tutor" / own, *home.glob(f"output/{own}_*")):  # which the block makes
            shutil.rmtree(folder, ignore_errors=True)
    script = typed(block)
    said = type_in(home, gpus(home) + script, OPENAI_API_KEY="any", OPENAI_BASE_URL=judge)
    assert len(re.findall(r"^started: .*main\.py", said, re.MULTILINE)) == len(re.findall(r"bash run_\w*llama", script))


def test_what_is_not_run_is_listed_with_its_reason():
    """Commands of all documents, the README's too; a reason that no command needs any more is removed."""
    found = {}
    for document in DOCUMENTS:
        for block in fences(document.read_text(encoding="utf-8"), "bash"):
            found |= {command: not_run(command) for command in commands(block) if not_run(command)}
    for command, start in found.items():
        print(f"not run: {command}: {NOT_RUN[start]}")
    assert set(found.values()) == set(NOT_RUN)
