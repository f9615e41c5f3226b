"""Several answers to a prompt with a reward each: what list-wise losses learn from (DAIF, training/main.py)."""

import math

from utils.raw_datasets.base import RawDataset, raw_dataset, rest
from utils.raw_datasets.dialogue import prompt_of
from utils.raw_datasets.instructions import optional, texts
from utils.records import Answer, Message, Record, RecordError


@raw_dataset("rewarded")
class Rewarded(RawDataset):
    needs = "prompt (or user_prompt, perhaps system_prompt), text: a list of answers, rewards: their rewards"
    columns = ("prompt", "user_prompt", "system_prompt", "text", "rewards")
    instead_of = ("prompt_answer",)

    @staticmethod
    def fits(row):
        return isinstance(row.get("text"), list) and isinstance(row.get("rewards"), list)

    @staticmethod
    def record(row, where):
        if "prompt" in row:
            prompt, _ = prompt_of(row["prompt"], where)
        else:
            prompt, _ = prompt_of(row.get("user_prompt"), where)
        system = optional(row, "system_prompt", where)
        if system:
            prompt = (Message("system", system), *prompt)
        answers, rewards = texts(row, "text", where), row.get("rewards")
        if not isinstance(rewards, list) or not all(map(_is_reward, rewards)):
            raise RecordError(f"{where}: column 'rewards' is {str(rewards)[:60]!r}; expected a list of numbers")
        if len(answers) != len(rewards):
            raise RecordError(f"{where}: {len(answers)} answers in text and {len(rewards)} rewards; expected as many")
        scored = [Answer(text, scores={"reward": float(reward)}) for text, reward in zip(answers, rewards, strict=True)]
        return Record(prompt, tuple(scored), where=where, meta=rest(row, Rewarded.columns))


def _is_reward(value: object) -> bool:
    # In Python a bool is a number, and NaN is one that no loss can use.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
