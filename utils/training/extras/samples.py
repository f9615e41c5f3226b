"""Answers to held-out prompts while a model trains: shown, written, scored by a reward model if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from utils.arguments.options import ModelArguments, SamplingArguments
from utils.engine import ranks
from utils.engine.flipping import flipped
from utils.generation.generate import generate
from utils.generation.request import Completion, GenerationRequest
from utils.generation.sampling import Sampling
from utils.model.batch import collate
from utils.model.reward_model import reward_model
from utils.records.files import write_jsonl
from utils.reporting import say, write_json
from utils.tokens.group import group
from utils.training.extras import Hooks
from utils.training.stage import Stage


def begin(stage: Stage) -> Hooks:
    """Sample `--sample_during_eval` answers from the model in training at every evaluation.

    Writes samples-step-N.jsonl. With a reward model step 3 also gets before_dpo.json and after_dpo_epoch_E_STEP.json
    (lists of {prompt, response, score}: gouqi666/DPO-deepspeed's format), and the mean score as `reward`.
    """
    options, run, renderer = stage.options(SamplingArguments), stage.run, stage.renderer
    count = min(options.sample_during_eval, len(stage.held_out))
    prompts = [stage.held_out[row].prompt.tolist() for row in range(count)]
    sampling = Sampling(
        max_new_tokens=options.sample_max_new_tokens, temperature=options.sample_temperature,
        top_p=options.sample_top_p, seed=run.args.seed,
        stop_token_ids=tuple(renderer.stop_token_ids), stop_strings=tuple(renderer.stop_strings),
    )  # fmt: skip
    score = _scorer(stage, prompts)

    def sample(step: int, epoch: int | None) -> dict[str, float]:
        if not prompts:
            return {}
        with flipped(stage.engine):
            request = GenerationRequest(renderer=renderer, prompts=prompts, sampling=sampling)
            size = run.args.per_device_eval_batch_size
            found = generate(stage.engine.module.model, request, batch_size=size, spread=True)
        answers = [samples[0] for samples in found]
        rows: list[dict[str, Any]] = []
        for prompt, answer in zip(prompts, answers, strict=True):
            text = renderer.tokenizer.decode(prompt)
            rows.append({"prompt": text, "response": answer.text, "finished": answer.finished})
        if score:
            for row, value in zip(rows, score(answers), strict=True):
                row["score"] = value
        _show(rows)
        if ranks.rank() == 0 and not run.args.debug:
            write_jsonl(run.folder / f"samples-step-{step}.jsonl", rows)
        return compare(rows, step, epoch) if score else {}

    def compare(rows: list[dict[str, Any]], step: int, epoch: int | None) -> dict[str, float]:
        """Write the scored answers before training and after an epoch, and return their mean score."""
        in_step_3 = run.program.startswith("step3")
        if ranks.rank() == 0 and not run.args.debug and (step == 0 or (epoch and in_step_3)):
            name = f"after_dpo_epoch_{epoch}_{step}.json" if step else "before_dpo.json"
            kept = [{name: row[name] for name in ("prompt", "response", "score")} for row in rows]
            write_json(run.folder / name, kept)
        return {"reward": sum(row["score"] for row in rows) / len(rows)} if in_step_3 else {}

    return Hooks(at_evaluation=sample)


def _scorer(stage: Stage, prompts: Sequence[list[int]]):
    """Return answers -> scores by the run's reward model; None without one."""
    path = stage.options(SamplingArguments).reward_model_name_or_path
    if not path:
        return None
    model, packed = reward_model(path, stage.renderer, stage.options(ModelArguments), stage.run.args)

    def score(answers: Sequence[Completion]) -> list[float]:
        scores = []
        with torch.no_grad():
            for prompt, answer in zip(prompts, answers, strict=True):
                tokens = answer.tokens or [stage.renderer.stop_token_ids[0]]
                scores += model(collate([group(prompt, [tokens])], packed=packed).to(ranks.device())).tolist()
        return scores

    return score


def _show(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows[:2]:
        told = row["response"]
        if "score" in row:
            told += f"  (score {row['score']:.3f})"
        say(row["prompt"][-300:], style="dim")
        say(told, style="green")
