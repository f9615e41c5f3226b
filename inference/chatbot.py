"""Generate answers, measure perplexity, score by a reward model, chat, or compare.

    python inference/chatbot.py --mode generate --model_name_or_path output/tutor/sft --data_path prompts.jsonl
    python inference/chatbot.py --mode ppl      --model_name_or_path output/tutor/sft --data_path prompts.jsonl
    python inference/chatbot.py --mode rm
    python inference/chatbot.py --mode chat     --model_name_or_path output/tutor/sft
    python inference/chatbot.py --mode arena    --answers sft=sft.jsonl dpo=dpo.jsonl --output_path compared.jsonl

One or several processes (torchrun, python -m torch.distributed.launch, deepspeed) write one file, in the order of the
input; the same command continues a run that was stopped. `--mode NAME --help` lists the options of a mode.
"""

from __future__ import annotations

import math
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.answering.arena import Arena, matched, summary
from utils.answering.chat.conversation import Conversation
from utils.answering.chat.lines import open_lines
from utils.answering.files import named_files, open_files
from utils.answering.inference_model import InferenceModel, signature
from utils.answering.jobs import RowJob, generation_job, model_facts, run_job, sampling_of, score_rows
from utils.answering.newest import newest_answers, newest_reward_model
from utils.answering.output import Shards, join_ranks
from utils.answering.plain import SAMPLED, numbers_in
from utils.answering.rows import AnswerRow, answer_row
from utils.arguments.inference import (
    MODES,
    ArenaArguments,
    ChatArguments,
    GenerateArguments,
    PplArguments,
    ReaderArguments,
    RmArguments,
)  # fmt: skip
from utils.arguments.modes import parse_mode
from utils.engine import ranks
from utils.errors import UserError
from utils.generation.sampling import Sampling
from utils.model.loading import load_tokenizer
from utils.outputs import claim
from utils.records import Answer
from utils.records.files import read_records, record_from_json
from utils.reporting import run_program, say, warn
from utils.statistics import cluster_bootstrap, mean_interval
from utils.training.run import ROOT

PROGRAM = "chatbot.py"


def main(argv: list[str] | None = None) -> None:
    _, args = parse_mode(MODES, argv, __doc__, flag="--mode")
    join_ranks()
    {"generate": generate, "ppl": ppl, "rm": rm, "chat": chat, "arena": arena}[args.mode](args)


def generate(args: GenerateArguments) -> None:
    """Add answers to every row: one greedy, or num_samples at each temperature."""
    if args.num_samples:
        samplings = [sampling_of(args, temperature, args.num_samples, draw=args) for temperature in args.temperature]
    else:
        samplings = [sampling_of(args, temperature=0.0)]
    rows, output = open_files(args, args.mode, PROGRAM)

    def finish(row: AnswerRow, answers: list[Answer]) -> dict[str, Any]:
        return row.with_answers(answers, greedy=not args.num_samples)

    def load() -> RowJob:
        model, longest = InferenceModel(args), args.max_prompt_seq_len
        return generation_job(model, rows, samplings, max_prompt_seq_len=longest, finish=finish)

    facts = {"what": "generating", **settings(samplings, args.max_prompt_seq_len), **model_facts(args)}
    if args.generator:
        facts["generator"] = args.generator
    run_job(rows, args, output, facts=facts, load=load)


def ppl(args: PplArguments) -> None:
    """Measure the perplexity of every row's answers; a row without any is answered greedily first."""
    samplings = [sampling_of(args, temperature=0.0)]
    rows, output = open_files(args, args.mode, PROGRAM)
    unanswered = [number for number, row in enumerate(rows) if not row.record.answers]

    def finish(row: AnswerRow, answers: list[Answer]) -> AnswerRow:
        # Read back as from a file, so that a new answer is measured exactly as one of the input.
        return answer_row(row.with_answers(answers, greedy=True), row.record.where)

    def load() -> RowJob:
        model = InferenceModel(args)
        longest = args.max_prompt_seq_len
        generation = generation_job(model, rows, samplings, max_prompt_seq_len=longest, finish=finish, only=unanswered)

        def work(batch: Sequence[int]) -> list[dict[str, Any]]:
            full, new = {}, []
            for number in batch:
                full[number] = rows[number]
                if generation.sizes[number]:
                    new.append(number)
            if new:
                full.update(zip(new, generation.work(new), strict=True))
            records = [row.record for row in full.values()]
            nlls = model.scores(records, args.max_seq_len, longest, budget=args.tokens_per_batch)
            return [row.with_likelihood(nll) for row, nll in zip(full.values(), nlls, strict=True)]

        return RowJob(work, generation.sizes)

    settings_of = settings(samplings, args.max_prompt_seq_len)
    facts = {"what": "measuring", "max_seq_len": args.max_seq_len, **settings_of, **model_facts(args)}
    shards = run_job(rows, args, output, facts=facts, load=load)
    mean = summarise(shards, "nll_per_token", scorer="nll_per_token", title="negative log-likelihood of a token")
    say(f"perplexity, the exponential of this mean: {math.exp(mean):.4g}")


def rm(args: RmArguments) -> None:
    """Score every answer by a reward model."""
    if not args.model_name_or_path:
        args.model_name_or_path = str(ranks.from_rank_0(lambda: newest_reward_model(ROOT / "output")))
    if not args.data_path:
        args.data_path = [str(ranks.from_rank_0(lambda: newest_answers(ROOT / "output")))]
        # The folder of a pipeline holds both: output/tutor/reward, output/tutor/answers/sft.jsonl.
        if Path(args.model_name_or_path).resolve().parent not in Path(args.data_path[0]).resolve().parents:
            warn(f"{args.data_path[0]} is not beside {args.model_name_or_path}: is this what it should score?")
    rows, output = open_files(args, args.mode, PROGRAM)
    shards = score_rows(rows, args, output)
    scorer = signature(args.model_name_or_path)
    summarise(shards, "score", scorer=scorer, title="score")
    right = []
    for row in shards.read():
        if row.get("verdicts"):
            record = record_from_json(row, "")
            scores = [answer.scores[scorer] for answer in record.answers]
            # A tie counts as half.
            right.append([(scores[a] > scores[b]) + 0.5 * (scores[a] == scores[b]) for a, b in record.pairs()])
    if any(right):
        # The pairs of one prompt share answers, so the interval is over prompts.
        found, pairs = cluster_bootstrap(right), sum(map(len, right))
        say(f"accuracy on comparisons: {found} over {found.n:,} prompts ({pairs:,} pairs)", style="bold")


def chat(args: ChatArguments) -> None:
    """Hold a conversation in the terminal."""
    if ranks.world_size() > 1:
        raise UserError(f"--mode chat talks to one process; {ranks.world_size()} were started")
    sampling = sampling_of(args, args.temperature, draw=args)
    model, reward = InferenceModel(args), None
    name = args.reward_model_name_or_path
    if name:
        # A reward model is given the template that it was trained with; --template is only for one without its own.
        template = args.template
        if load_tokenizer(name).chat_template:
            template = None
        reward = InferenceModel(ReaderArguments(name, template=template, bf16=args.bf16), reward=True)
    limit = args.max_prompt_seq_len
    Conversation(model, sampling, max_prompt_seq_len=limit, system=args.system, reward=reward).run()


def arena(args: ArenaArguments) -> None:
    """Let a person compare two models' answers without their names."""
    if ranks.world_size() > 1:
        raise UserError(f"--mode arena talks to one process; {ranks.world_size()} were started")
    files, path = named_files(args.answers), Path(args.output_path)
    first, second = files
    claim(PROGRAM, {"--output_path": path}, reads=files.values(), overwrite=args.overwrite)
    records = matched(files)[: args.num_prompts or None]
    known = []
    if path.exists() and not args.overwrite:
        known = list(read_records(path))
    judged = Arena(records, known, args, lines=open_lines()).run()
    say(summary(judged))
    if judged:
        say(f"win rate: python inference/win_rate.py judged --input {path} --model {second} --reference {first}")


def settings(samplings: list[Sampling], max_prompt_seq_len: int) -> dict[str, Any]:
    """Return what decides the answers, for the output's args.json."""
    # The settings differ in their temperature alone.
    together = {**asdict(samplings[0]), "temperature": [sampling.temperature for sampling in samplings]}
    return {**together, "max_prompt_seq_len": max_prompt_seq_len}


def summarise(shards: Shards, column: str, scorer: str, title: str) -> float:
    """Print the mean over prompts of the mean over a prompt's answers, and its 95 % interval. Where some answers were
    sampled, the others are references and do not count.

    Args:
        shards: the output.
        column: where plain rows hold the numbers.
        scorer: the name of the numbers among the scores of a record's answers.
        title: of the numbers.

    Returns:
        The mean.
    """
    means, answers = [], 0
    for row in shards.read():
        if column in row:
            numbers = list(numbers_in(_of_candidates(row[column])))
        else:
            sampled = [answer for answer in row["answers"] if "sampling" in answer]
            numbers = [answer["scores"][scorer] for answer in sampled or row["answers"]]
        # By prompt first, so that a prompt with many answers does not count more.
        means.append(sum(numbers) / len(numbers))
        answers += len(numbers)
    found = mean_interval(means)
    say(f"{title}: mean {found.value:.4f}, 95 % interval [{found.low:.4f}, {found.high:.4f}] over {found.n:,} prompts "
        f"({answers:,} answers)", style="bold")  # fmt: skip
    return found.value


def _of_candidates(numbers: Any) -> Any:
    """Return the numbers of the columns with sampled answers, where a plain row has numbers for several columns."""
    if isinstance(numbers, dict):
        return {name: numbers[name] for name in SAMPLED if name in numbers} or numbers
    return numbers


if __name__ == "__main__":
    run_program(main)
