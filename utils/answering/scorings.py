"""Ways to score answers besides a reward model: implicit reward, perplexity, a judge's ratings."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.answering.inference_model import InferenceModel, signature
from utils.answering.jobs import Scoring, model_facts
from utils.errors import UserError
from utils.feedback import Asker, Case, PromptTemplates, follow, questions_of
from utils.feedback.cases import SETTLED
from utils.feedback.forms import MATERIAL, scale_of
from utils.feedback.requests import RequestSettings
from utils.llm.asking import Outcome, Question, RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import is_served_by_its_maker, open_provider, with_own
from utils.records import Answer, Record
from utils.reporting import warn


def implicit_scoring(args: Any) -> Scoring:
    """Return the implicit reward of a policy π trained from a reference ρ, β (log π(y|x) − log ρ(y|x)), up to a term
    of the prompt (Rafailov et al. 2023, arXiv:2305.18290, equation 5). A collective.

    args: as of score_rows(), with `reference_model_name_or_path` and `beta`.
    """
    reference = copy.copy(args)
    reference.model_name_or_path = args.reference_model_name_or_path
    facts = {"max_seq_len": args.max_seq_len, "beta": args.beta, **model_facts(args)}

    def load():
        policy, base = InferenceModel(args), InferenceModel(reference)

        def scores(records: Sequence[Record]) -> list[list[float]]:
            ours = policy.logprobs(records, args.max_seq_len, args.tokens_per_batch)
            theirs = base.logprobs(records, args.max_seq_len, args.tokens_per_batch)
            found = []
            for pi, rho in zip(ours, theirs, strict=True):
                found.append([args.beta * (p - r) for p, r in zip(pi, rho, strict=True)])
            return found

        return scores

    name = f"implicit reward of {signature(args.model_name_or_path)}"
    return Scoring(name, {**facts, "reference": model_facts(reference)}, load)


def perplexity_scoring(args: Any) -> Scoring:
    """Return the mean log-prob of a token in nats: the lower the perplexity, the higher. A collective; `args` as of
    score_rows()."""

    def load():
        model = InferenceModel(args)

        def scores(records: Sequence[Record]) -> list[list[float]]:
            found = []
            for nlls in model.scores(records, args.max_seq_len, budget=args.tokens_per_batch):
                found.append([-nll for nll in nlls])
            return found

        return scores

    return Scoring(
        "logprob_per_token", {"max_seq_len": args.max_seq_len, "by": "perplexity", **model_facts(args)}, load
    )


def rated(records: Sequence[Record], args: Any, limits: RateLimits, ledger: Path) -> list[Record] | None:
    """Ask a language model to rate every answer from 1 to 7, each by itself, through a ledger.

    Args:
        records: prompts with answers.
        args: the options of the judge: `judge`, `provider`, `base_url`.
        limits: of asking.
        ledger: where replies are kept; what it holds is not asked again.

    Returns:
        The records with the ratings as scores under --judge. Records in which the judge refused an answer, or
        gave no number, are left out and counted. None after --dry_run.

    Raises:
        UserError: some answers have no reply yet.
    """
    prices = with_own(None)
    model = prices.name_of(args.judge)
    provider_name = args.provider or ("anthropic" if model.startswith("claude") else "openai")
    settings = RequestSettings(
        bounded=limits.max_usd is not None,
        own=is_served_by_its_maker(model, provider_name, args.base_url, prices),
        facts=prices.model(model),
    )
    asker = Asker(provider_name, model, PromptTemplates((), MATERIAL), scale=scale_of("1,7"), settings=settings)
    cases = []
    for record in records:
        # Ratings that the data came with are another judge's.
        answers = tuple(dataclasses.replace(answer, rating=None) for answer in record.answers)
        unrated_yet = dataclasses.replace(record, answers=answers)
        cases.append(Case(unrated_yet, "rating", "dialogue", tuple(range(len(answers)))))
    provider = open_provider(provider_name, args.base_url, asks=not limits.dry_run)
    with Ledger(ledger) as kept:

        def outcome_of(question: Question) -> Outcome:
            return kept.outcome(question.request.key, question.parser, question.parser_args)

        ask(questions_of(iter(cases), asker, outcome_of), kept, provider, limits)
        if limits.dry_run:
            return None
        results = [follow(case, asker, outcome_of) for case in cases]
    missing, found, unrated = 0, [], []
    for record, result in zip(records, results, strict=True):
        missing += sum(outcome.state not in SETTLED for outcome in result.outcomes)
        answers: list[Answer] = []
        for answer, judged in zip(record.answers, result.record.answers, strict=True):
            if judged.rating is not None:
                scores = {**answer.scores, args.judge: judged.rating}
                answers.append(dataclasses.replace(answer, scores=scores))
        if len(answers) < len(record.answers):
            unrated.append(record.where)
        else:
            found.append(dataclasses.replace(record, answers=tuple(answers)))
    if missing:
        raise UserError(f"{missing:,} answers have no rating by {model} yet; run the same command again to continue")
    if unrated:
        warn(f"left out: {len(unrated):,} of {len(records):,} prompts with an answer that {model} refused to rate, or "
             f"rated without a number (first: {unrated[0]})")  # fmt: skip
    if not found:
        raise UserError(f"{model} rated all answers of no prompt: nothing to choose from")
    return found
