"""Answers to held-out prompts while a model trains: shown, written, scored by a reward model if there is one."""

from __future__ import annotations

from pathlib import Path

import torch

from utils.arguments.options import ModelArguments, SamplingArguments, TrainingArguments
from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.generation.generate import generate
from utils.generation.request import GenerationRequest
from utils.generation.sampling import Sampling
from utils.model.batch import collate
from utils.model.reward_model import reward_model
from utils.records import write_jsonl
from utils.reporting import say, write_json
from utils.tokens.group import group
from utils.tokens.templates import Renderer


class Sampler:
    """Call it at an evaluation: samples `--sample_during_eval` answers from the policy in training.

    Writes samples-step-N.jsonl; with a reward model also before_dpo.json and after_dpo_epoch_E_STEP.json (lists of
    {prompt, response, score}: gouqi666/DPO-deepspeed's format) and returns {"reward": mean score}.
    """

    def __init__(self, options: SamplingArguments, model_args: ModelArguments, args: TrainingArguments, held_out,
                 renderer: Renderer, folder: Path) -> None:  # fmt: skip
        self.options, self.renderer, self.folder, self.args = options, renderer, folder, args
        self.prompts = [held_out[i].prompt.tolist() for i in range(min(options.sample_during_eval, len(held_out)))]
        self.reward = None
        if options.reward_model_name_or_path:
            self.reward = reward_model(options.reward_model_name_or_path, renderer, model_args, args)

    def __call__(self, engine: Engine, step: int, epoch: int | None = None) -> dict[str, float]:
        if not self.prompts:
            return {}
        sampling = Sampling(
            max_new_tokens=self.options.sample_max_new_tokens, temperature=self.options.sample_temperature,
            top_p=self.options.sample_top_p, seed=self.args.seed,
            stop_token_ids=tuple(self.renderer.stop_token_ids), stop_strings=tuple(self.renderer.stop_strings),
        )  # fmt: skip
        with engine.flipped():
            size = self.args.per_device_eval_batch_size
            request = GenerationRequest(self.renderer, self.prompts, sampling)
            found = generate(engine.module.model, request, size, spread=True)
        completions = [samples[0] for samples in found]
        rows = [
            {"prompt": self.renderer.tokenizer.decode(p), "response": c.text, "finished": c.finished}
            for p, c in zip(self.prompts, completions, strict=True)
        ]
        if self.reward:
            for row, score in zip(rows, self._scores([c.tokens for c in completions]), strict=True):
                row["score"] = score
        self._tell(rows, step, epoch)
        return {"reward": sum(r["score"] for r in rows) / len(rows)} if self.reward else {}

    def _scores(self, answers: list[list[int]]) -> list[float]:
        model, packed = self.reward
        scores = []
        with torch.no_grad():
            for prompt, answer in zip(self.prompts, answers, strict=True):
                answer = answer or [self.renderer.stop_token_ids[0]]
                scores += model(collate([group(prompt, [answer])], packed=packed).to(ranks.device())).tolist()
        return scores

    def _tell(self, rows: list[dict], step: int, epoch: int | None) -> None:
        for row in rows[:2]:
            score = f"  (score {row['score']:.3f})" if "score" in row else ""
            say(f"{row['prompt'][-300:]}", style="dim")
            say(f"{row['response']}{score}", style="green")
        if ranks.rank() or self.args.debug:
            return
        write_jsonl(self.folder / f"samples-step-{step}.jsonl", rows)
        if self.reward and (step == 0 or epoch):
            name = f"after_dpo_epoch_{epoch}_{step}.json" if step else "before_dpo.json"
            write_json(self.folder / name, [{k: r[k] for k in ("prompt", "response", "score")} for r in rows])
