"""Answer prompts, measure answers, or talk.

    python inference/chatbot.py --mode generate --model_name_or_path output/tutor/sft --data_path prompts.jsonl
    python inference/chatbot.py --mode ppl      --model_name_or_path output/tutor/sft --data_path prompts.jsonl
    python inference/chatbot.py --mode rm
    python inference/chatbot.py --mode chat     --model_name_or_path output/tutor/sft

One or several processes (torchrun, python -m torch.distributed.launch, deepspeed) write one file, in the order of the
input; the same command continues a run that was stopped. `--mode NAME --help` lists the options of a mode.
"""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.answering.chat import Talk
from utils.answering.output import MADE_BY, Shards, join_ranks
from utils.answering.reader import Reader, answering, model_facts, open_files, samplings, score_rows, signature, work_on
from utils.answering.rows import answer_row, numbers_in
from utils.arguments import parse_mode
from utils.arguments.inference import (
    MODES,
    ChatArguments,
    GenerateArguments,
    PplArguments,
    ReaderArguments,
    RmArguments,
)  # fmt: skip
from utils.engine import ranks
from utils.errors import UserError
from utils.model.loading import load_tokenizer
from utils.reporting import run_program, say
from utils.statistics import mean_interval
from utils.training.run import ROOT

PROGRAM = "chatbot.py"


def main(argv: list[str] | None = None) -> None:
    _, args = parse_mode(MODES, argv, __doc__, flag="--mode")
    join_ranks()
    {"generate": generate, "ppl": ppl, "rm": rm, "chat": chat}[args.mode](args)


def generate(args: GenerateArguments) -> None:
    """Adds answers to every row: one greedy, or num_samples at each temperature."""
    drawn = {"top_p": args.top_p, "top_k": args.top_k, "seed": args.seed}
    how = samplings(args, args.temperature, args.num_samples, **drawn) if args.num_samples else samplings(args, [0.0])
    rows, output = open_files(args, args.mode, PROGRAM)

    def make():
        finish = lambda row, answers: row.with_answers(answers, greedy=not args.num_samples)  # noqa: E731
        return answering(Reader(args), rows, how, args.max_prompt_seq_len, finish)

    work_on(rows, args, output, {"what": "generating", **settings(how, args), **model_facts(args)}, make)


def ppl(args: PplArguments) -> None:
    """Measures the answers of every row; a row without any is answered greedily first."""
    how = samplings(args, [0.0])
    rows, output = open_files(args, args.mode, PROGRAM)
    unanswered = [n for n, row in enumerate(rows) if not row.record.answers]

    def make():
        reader = Reader(args)
        finish = lambda row, answers: answer_row(row.with_answers(answers, greedy=True), row.record.where)  # noqa: E731
        answer, sizes = answering(reader, rows, how, args.max_prompt_seq_len, finish, unanswered)

        def work(batch):
            new = [n for n in batch if sizes[n]]
            answered = dict(zip(new, answer(new), strict=True)) if new else {}
            full = [answered.get(n, rows[n]) for n in batch]
            limits = (args.max_seq_len, args.max_prompt_seq_len)
            nlls = reader.scores([row.record for row in full], *limits, budget=args.tokens_per_batch)
            return [row.with_likelihood(nll) for row, nll in zip(full, nlls, strict=True)]

        return work, sizes

    facts = {"what": "measuring", "max_seq_len": args.max_seq_len, **settings(how, args), **model_facts(args)}
    shards = work_on(rows, args, output, facts, make)
    mean = summarise(shards, "nll_per_token", "nll_per_token", "negative log-likelihood of a token")
    say(f"perplexity, the exponential of this mean: {math.exp(mean):.4g}")


def rm(args: RmArguments) -> None:
    """Scores every answer by a reward model."""
    if not args.model_name_or_path:
        args.model_name_or_path = str(ranks.from_rank_0(newest_reward_model))
    if not args.data_path:
        args.data_path = [str(ranks.from_rank_0(newest_answers))]
    rows, output = open_files(args, args.mode, PROGRAM)
    summarise(score_rows(rows, args, output), "score", signature(args.model_name_or_path), "score")


def chat(args: ChatArguments) -> None:
    """A conversation in the terminal."""
    if ranks.world_size() > 1:
        raise UserError(f"--mode chat talks to one process; {ranks.world_size()} were started")
    (how,) = samplings(args, [args.temperature], top_p=args.top_p, top_k=args.top_k, seed=args.seed)
    reader, judge = Reader(args), None
    if args.reward_model_name_or_path:
        name = args.reward_model_name_or_path
        own = load_tokenizer(name).chat_template  # what it was trained with, before what the language model needs
        judge = Reader(ReaderArguments(name, template=None if own else args.template, bf16=args.bf16), reward=True)
    Talk(reader, how, max_prompt_seq_len=args.max_prompt_seq_len, system=args.system, judge=judge).run()


def settings(how, args) -> dict[str, Any]:
    """What decides the answers, for the output's args.json."""
    together = {**asdict(how[0]), "temperature": [sampling.temperature for sampling in how]}
    return {**together, "max_prompt_seq_len": args.max_prompt_seq_len}


def summarise(shards: Shards, column: str, scorer: str, title: str) -> float:
    """Say the mean over prompts of the mean over a prompt's answers, and its 95 % interval. Plain rows hold the numbers
    in `column`, records in the scores of their answers, as `scorer`."""
    means, answers = [], 0
    for row in shards.read():
        numbers = list(numbers_in(row[column])) if column in row else [a["scores"][scorer] for a in row["answers"]]
        means.append(sum(numbers) / len(numbers))
        answers += len(numbers)
    found = mean_interval(means)
    say(f"{title}: mean {found.value:.4f}, 95 % interval [{found.low:.4f}, {found.high:.4f}] over {found.n:,} prompts "
        f"({answers:,} answers)", style="bold")  # fmt: skip
    return found.value


def newest_reward_model() -> Path:
    """The newest folder of a reward model; PPO's critic, which lies in critic/ of its run, is none."""
    configs = [
        file
        for file in _under_output("config.json")
        if "SequenceClassification" in str(_json(file).get("architectures"))
        and not (_json(file).get("is_critic") or file.parent.name == "critic")
    ]
    return _newest(configs, "reward model", "--model_name_or_path", "output/tutor/reward").parent


def newest_answers() -> Path:
    """The newest file that --mode generate finished."""
    made = [f for f in _under_output(f"*{MADE_BY}") if _json(f).get("what") == "generating"]
    files = [f.with_name(f.name.removesuffix(MADE_BY)) for f in made]
    return _newest([f for f in files if f.is_file()], "generated answers", "--data_path", "output/tutor/answers.jsonl")


def _under_output(pattern: str) -> list[Path]:
    return [f for f in (ROOT / "output").rglob(pattern) if not {"cache", "checkpoints"} & set(f.parts)]


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def _newest(found: list[Path], what: str, flag: str, example: str) -> Path:
    if not found:
        raise UserError(f"no {what} under {ROOT / 'output'}; name one with {flag}, as in "
                        f"python inference/chatbot.py --mode rm {flag} {example}")  # fmt: skip
    newest = max(found, key=lambda path: path.stat().st_mtime)
    say(f"newest {what}: {newest.parent if newest.name == 'config.json' else newest}")
    return newest


if __name__ == "__main__":
    run_program(main)
