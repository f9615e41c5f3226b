"""The table of checks: what each looks for, why that ruins a run, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from utils.doctor import data_checks, model_checks, token_checks
from utils.doctor.subject import Subject, Symptom


@dataclass(frozen=True)
class Check:
    """A check: `find` yields what it found; `why` that ruins a run; the `remedy`."""

    find: Callable[[Subject], Iterator[Symptom]]
    why: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """What a check found, with its remedy. `severe`: it would ruin the run."""

    check: str
    where: str
    what: str
    remedy: str
    severe: bool

    def __str__(self) -> str:
        return f"{self.check}: {self.where}: {self.what}; {self.remedy}"


CHECKS: dict[str, Check] = {
    "empty_answers": Check(
        data_checks.empty_answers,
        "rows without an answer are left out, and the set shrinks unseen",
        "fix the export, or name the right column with --columns",
    ),
    "same_answers": Check(
        data_checks.same_answers,
        "the model learns one text and not the task",
        "look at the column that is read; --columns names another",
    ),
    "equal_pairs": Check(
        data_checks.equal_pairs,
        "pairs without a difference teach nothing",
        "look at how pairs are made, or raise --max_answer_seq_len",
    ),
    "duplicates": Check(
        data_checks.duplicates,
        "copies count several times, and weights of the data are not those of --data_path",
        "remove the copies, or weight the data set as PATH=2",
    ),
    "eval_rows_in_train": Check(
        data_checks.eval_rows_in_train,
        "the held-out loss measures memory",
        "remove these rows from the training data, or give another --eval_data_path",
    ),
    "eval_prompts_in_train": Check(
        data_checks.eval_prompts_in_train,
        "the held-out numbers are better than those of new prompts",
        "divide the data by prompt, as --eval_holdout does",
    ),
    "conflicting_labels": Check(
        data_checks.conflicting_labels,
        "a pair that is decided both ways cancels itself",
        "decide by majority, or leave such pairs out",
    ),
    "reversed_labels": Check(
        data_checks.reversed_labels,
        "the loss pulls towards the worse answers",
        "look which column is chosen and which rejected",
    ),
    "one_kind_of_label": Check(
        data_checks.one_kind_of_label,
        "without a contrast there is nothing to learn",
        "look how the labels were exported",
    ),
    "length_bias": Check(
        data_checks.length_bias,
        "length alone tells chosen from rejected, and that is what is learned",
        "balance the pairs by length, or use a length-normalised loss",
    ),
    "repeated_prompts": Check(
        data_checks.repeated_prompts, "the model learns to repeat the question", "cut the question from the answers"
    ),
    "role_markers": Check(
        token_checks.role_markers,
        "the model learns to write the user's turns too",
        "give the data set's own class, as hh_rlhf:PATH (docs/data.md), or split the turns into messages",
    ),
    "special_tokens": Check(
        token_checks.special_tokens,
        "ends and begins inside a text break it into pieces",
        "remove them: the template writes its own",
    ),
    "dropped_messages": Check(
        token_checks.dropped_messages,
        "the model never sees these instructions",
        "give a --template that writes every role",
    ),
    "other_template": Check(
        token_checks.other_template, "the model has learned to answer behind other words", "leave out --template"
    ),
    "double_bos": Check(
        token_checks.double_bos,
        "the model has never seen two begin tokens",
        "remove the begin token from the texts or from the template",
    ),
    "missing_bos": Check(
        token_checks.missing_bos,
        "most models answer worse without the begin token that they were trained with",
        "add {{ bos_token }} to the chat template",
    ),
    "untrained_stop": Check(
        token_checks.untrained_stop,
        "the model never learns to end an answer",
        "mask padding by length and not by id, or give the tokenizer a pad token of its own",
    ),
    "unfinished_answers": Check(
        token_checks.unfinished_answers,
        "answers without a stop token teach never to end",
        "sample longer answers, or leave unfinished ones out",
    ),
    "cut_answers": Check(
        token_checks.cut_answers, "cut answers have no end to learn", "raise --max_answer_seq_len or --model_max_length"
    ),
    "cut_prompts": Check(
        token_checks.cut_prompts, "questions lose their words", "raise --max_prompt_seq_len or --model_max_length"
    ),
    "few_trained_tokens": Check(
        token_checks.few_trained_tokens,
        "nearly all computation reads and nothing is learned",
        "look at the answers, and at --train_on",
    ),
    "unknown_tokens": Check(
        token_checks.unknown_tokens,
        "texts become unknown tokens, and answers with them",
        "use the tokenizer of the model, or one that knows these characters",
    ),
    "tokens_out_of_range": Check(
        model_checks.tokens_out_of_range,
        "embeddings that start at random spoil every text with them",
        "use the tokenizer of the model",
    ),
    "too_few_positions": Check(
        model_checks.too_few_positions,
        "the model has never seen such positions, or has none",
        "lower --max_prompt_seq_len, --max_answer_seq_len or --model_max_length",
    ),
    "other_tokenizer": Check(
        model_checks.other_tokenizer,
        "one model's tokens, or its turns, are read as something else by the other",
        "start all models of a run from one, with its tokenizer and template",
    ),
    "pad_ends_answers": Check(
        model_checks.pad_ends_answers,
        "plain transformers scores an answer in front of its end",
        "give the tokenizer a pad token of its own",
    ),
    "broken_weights": Check(
        model_checks.broken_weights,
        "the first loss is NaN, or a layer passes nothing on",
        "copy the model again, or go back to an earlier checkpoint",
    ),
    "long_warmup": Check(
        model_checks.long_warmup,
        "the learning rate never reaches its value",
        "give --warmup_ratio, or fewer --warmup_steps",
    ),
    "random_start": Check(
        model_checks.random_start,
        "the policy is held to a reference that writes noise",
        "run step 1 first, and leave out --from_scratch",
    ),
    "too_little_memory": Check(
        model_checks.too_little_memory,
        "the run ends when memory does",
        "raise --zero_stage, lower --per_device_train_batch_size, or give --gradient_checkpointing",
    ),
}


def examine(subject: Subject) -> list[Finding]:
    """Return what all checks found, what would ruin the run first."""
    findings = []
    for name, check in CHECKS.items():
        for found in check.find(subject):
            findings.append(Finding(name, found.where, found.what, check.remedy, found.severe))
    return sorted(findings, key=lambda finding: not finding.severe)
