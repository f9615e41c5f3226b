"""A model for inference with its tokenizer and prompt template: it answers prompts and scores answers."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from utils.arguments.inference import ReaderArguments
from utils.arguments.options import ModelArguments
from utils.engine import ranks
from utils.errors import UserError
from utils.generation.generate import complete, generating
from utils.generation.request import GenerationRequest
from utils.generation.sampling import Sampling
from utils.model import loading
from utils.model.batch import Batch
from utils.model.passes import Passes
from utils.model.reward_model import RewardModel, load_reward_model, require_reward_model
from utils.model.scoring import Policy
from utils.records import Answer, Record
from utils.tokens.group import Group, group
from utils.tokens.templates import LengthLimits, Renderer, Row, Tally, fit

NO_LIMIT = 1 << 30


def signature(name: str) -> str:
    """Return how a model signs its answers and scores: the last two parts of its folder's path, or its hub name."""
    return "/".join(Path(name).resolve().parts[-2:]) if Path(name).is_dir() else name


def require_model_name(args: ReaderArguments) -> str:
    """Return --model_name_or_path. Raises UserError when it is missing."""
    if not args.model_name_or_path:
        raise UserError("--model_name_or_path is missing; expected a Hugging Face name or a local folder")
    return args.model_name_or_path


@contextlib.contextmanager
def _with_config(model: str, config: str | None) -> Iterator[str]:
    """Return the model's folder, or a temporary one of links to its files with the config.json of another."""
    if config is None:
        yield model
        return
    for folder in (model, config):
        if not (Path(folder) / "config.json").is_file():
            raise UserError(f"--config_name_or_path: {folder} is no folder with a config.json; expected local folders")
    with tempfile.TemporaryDirectory() as links:
        for file in (*Path(model).glob("[!.]*"), Path(config) / "config.json"):
            if file.name != "config.json" or file.parent == Path(config):
                (Path(links) / file.name).symlink_to(file.resolve())
        yield links


class InferenceModel:
    """A model that is not trained, with its tokenizer and prompt template. `tally` counts what was cut to length.

    Args:
        args: names the model, its tokenizer and template, perhaps the `generator` that it signs as.
        reward: whether it is a reward model; else it is a causal language model.
    """

    def __init__(self, args: ReaderArguments, reward: bool = False) -> None:
        name = require_model_name(args)
        load, scorer = loading.load_causal_lm, Policy
        if reward:
            require_reward_model(name)
            load, scorer = load_reward_model, RewardModel
        tokenizer = loading.load_tokenizer(args.tokenizer_name_or_path or name)
        self.renderer = Renderer(tokenizer, args.template)
        options = ModelArguments(name, tokenizer_name_or_path=args.tokenizer_name_or_path, template=args.template)
        with _with_config(name, args.config_name_or_path) as options.model_name_or_path:
            model = load(options, tokenizer, args.bf16)
        self.model = model.eval().requires_grad_(False).to(ranks.device())
        self.scorer = scorer(self.model)
        self.name, self.tally = getattr(args, "generator", None) or signature(name), Tally()
        # Programs that only score have no --generation_backend.
        self.backend = getattr(args, "generation_backend", "shared")

    def prompt(self, record: Record, longest: int, truncation: str = "keep_end") -> list[int]:
        """Return the ids of a record's prompt, cut to `longest` tokens."""
        # A prompt is cut on its own: whatever answers the record has, they do not count.
        row, limits = Row(record), LengthLimits(longest, NO_LIMIT, 2 * NO_LIMIT, truncation)
        return fit(self.renderer, row, self.renderer.group(*row), limits, self.tally).prompt.tolist()

    def group(self, record: Record, max_seq_len: int, max_prompt_seq_len: int = NO_LIMIT) -> Group:
        """Return a record as tokens, with all its answers.

        Args:
            record: a prompt with answers.
            max_seq_len: longest prompt with one answer in tokens; 0: the model's limit.
            max_prompt_seq_len: longest prompt in tokens.

        Raises:
            UserError: max_seq_len exceeds the model's positions.
        """
        positions = loading.positions_of(self.model) or NO_LIMIT
        total = max_seq_len or positions
        if total > positions:
            raise UserError(f"--max_seq_len {total} exceeds the model's {positions} positions; lower it")
        row = Row(record, tuple(range(len(record.answers))))
        # An answer without a token has no place to be scored at: it is scored at an end token.
        whole, end = self.renderer.group(*row), self.renderer.stop_token_ids[:1]
        whole = group(whole.prompt, [answer if len(answer) else end for answer in whole.answers])
        limits = LengthLimits(min(total, max_prompt_seq_len), total, total, "keep_end")
        return fit(self.renderer, row, whole, limits, self.tally)

    def scores(
        self, records: Sequence[Record], max_seq_len: int, max_prompt_seq_len: int = NO_LIMIT, *, budget: int = 0
    ) -> list[list[float]]:
        """Score every answer of records.

        A reward model gives its score; a language model the mean negative log-likelihood of a token in nats, where the
        end token counts if the answer ended.

        Args:
            records: prompts with answers.
            max_seq_len: as of group().
            max_prompt_seq_len: as of group().
            budget: most tokens of a forward pass; a record that exceeds it is split. 0: no limit.

        Returns:
            For each record a number for each answer.
        """
        groups = [self.group(record, max_seq_len, max_prompt_seq_len) for record in records]
        return self._of_groups(groups, budget, self._scores_of)

    def logprobs(self, records: Sequence[Record], max_seq_len: int, budget: int = 0) -> list[list[float]]:
        """Return for each record the log-prob in nats of every answer by this language model, summed over its tokens;
        the parameters are those of scores()."""
        groups = [self.group(record, max_seq_len) for record in records]
        return self._of_groups(groups, budget, lambda batch: batch.sum_per_answer(self.scorer(batch)))

    def _of_groups(
        self, groups: Sequence[Group], budget: int, of_batch: Callable[[Batch], Tensor]
    ) -> list[list[float]]:
        """Return for each group the numbers that `of_batch` gives for its answers."""
        values: list[float] = []
        with torch.no_grad():
            for batch in Passes(groups, len(groups), budget, packed=self.scorer.packed):
                values += of_batch(batch).tolist()
        found, start = [], 0
        for whole in groups:
            found.append(values[start : start + len(whole.answers)])
            start += len(whole.answers)
        return found

    def _scores_of(self, batch: Batch) -> Tensor:
        if isinstance(self.scorer, Policy):
            return batch.sum_per_answer(-self.scorer(batch)) / batch.answer_tokens
        return self.scorer(batch)

    def answers(
        self, prompts: Sequence[Sequence[int]], numbers: Sequence[int], samplings: Sequence[Sampling]
    ) -> list[list[Answer]]:
        """Answer prompts.

        Args:
            prompts: token ids of each.
            numbers: of the prompts' rows; what is drawn depends on them.
            samplings: the settings, one or several.

        Returns:
            For each prompt its answers, those of samplings[0] first.
        """
        found: list[list[Answer]] = [[] for _ in prompts]
        with generating(self.model):
            for sampling in samplings:
                request = GenerationRequest(self.renderer, prompts, sampling, numbers)
                completions = complete(self.model, request, self.backend)
                for answers, new in zip(found, completions, strict=True):
                    for completion in new:
                        answers.append(
                            Answer(completion.text, self.name, sampling.to_json(), finished=completion.finished)
                        )
        return found
