"""Checks of the model: its sizes and weights, its tokenizer and those of the models beside it, its schedule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from utils.doctor.estimate import estimate
from utils.doctor.subject import Subject, Symptom
from utils.errors import UserError
from utils.reporting import progress


def tokens_out_of_range(subject: Subject) -> Iterator[Symptom]:
    """Tokens of the data for which the model has no trained embedding."""
    rows = getattr(subject.config.get_text_config(), "vocab_size", None)
    if rows is None or subject.model_args.from_scratch:
        return
    largest, where = -1, ""
    for split in subject.splits:
        for group in split.groups:
            for part in (group.prompt, *group.answers):
                if len(part) and int(part.max()) > largest:
                    largest, where = int(part.max()), split.name
    if largest >= rows:
        text = subject.tokenizer.convert_ids_to_tokens(largest)
        what = (
            f"token {largest} ({text}) is used, and the model has embeddings for {rows:,}: the others start at random"
        )
        yield Symptom(where, what)
    elif len(subject.tokenizer) > rows:
        what = f"the tokenizer has {len(subject.tokenizer):,} tokens and the model embeddings for {rows:,}"
        yield Symptom(subject.model_args.model_name_or_path, what, severe=False)


def too_few_positions(subject: Subject) -> Iterator[Symptom]:
    """Rows longer than the model's positions."""
    limit, name = subject.positions, subject.model_args.model_name_or_path
    if limit is None:
        return
    if subject.longest > limit:
        yield Symptom(
            name, f"the longest prompt with an answer has {subject.longest:,} tokens, the model {limit:,} positions"
        )
    elif subject.limits.total > limit:
        what = f"the limits allow {subject.limits.total:,} tokens, the model has {limit:,} positions"
        yield Symptom(name, what, severe=False)


def other_tokenizer(subject: Subject) -> Iterator[Symptom]:
    """Models of one run whose tokenizers give other ids to a text, or that read another template."""
    mine = subject.tokenizer.get_vocab().items()
    for role, tokenizer in subject.others.items():
        name = getattr(tokenizer, "name_or_path", role)
        theirs = tokenizer.get_vocab().items()
        if not mine <= theirs:
            token, number = min(mine - theirs, key=lambda pair: (pair[1], pair[0]))
            what = f"the tokenizer of the {role} is another one: {token!r} is not its token {number}"
            yield Symptom(name, what)
        template = getattr(tokenizer, "chat_template", None)
        if template and role != "model" and template != subject.renderer.chat_template:
            yield Symptom(name, f"the {role} was trained with another chat template than {subject.renderer.name}")


def pad_ends_answers(subject: Subject) -> Iterator[Symptom]:
    """A reward model whose pad token ends answers: plain transformers looks for padding to find the last token."""
    tokenizer, stop = subject.tokenizer, subject.renderer.stop_token_ids[0]
    pad = tokenizer.pad_token_id
    if subject.stage.number == 2 and pad == stop and pad != tokenizer.eos_token_id:
        what = f"the pad token {tokenizer.pad_token!r} also ends every answer, so a padded batch is scored elsewhere"
        yield Symptom(subject.renderer.encoder.name, what)


def broken_weights(subject: Subject) -> Iterator[Symptom]:
    """ModelSize that are not finite in the dtype of the run, or matrices of zeros."""
    folder = Path(subject.model_args.model_name_or_path).expanduser()
    files = sorted(folder.glob("*.safetensors"))
    if subject.model_args.from_scratch or not files:
        return
    dtype = torch.float32
    if subject.args.bf16:
        dtype = torch.bfloat16
    broken, empty, total = [], [], 0
    with progress("reading weights", None) as advance:
        for file in files:
            try:
                with safe_open(file, framework="pt") as weights:
                    for name in weights.keys():  # noqa: SIM118 (no mapping)
                        tensor = weights.get_tensor(name)
                        total += 1
                        if tensor.is_floating_point() and not tensor.to(dtype).isfinite().all():
                            broken.append(name)
                        elif tensor.dim() > 1 and not tensor.any():
                            empty.append(name)
                        advance(1)
            except SafetensorError as error:
                raise UserError(f"{file}: cannot be loaded: {error}") from error
    if broken:
        named = str(dtype).removeprefix("torch.")
        yield Symptom(broken[0], f"{len(broken)} of {total} weights hold numbers that are not finite in {named}")
    if empty:
        yield Symptom(empty[0], f"{len(empty)} of {total} weights are all zeros")


def long_warmup(subject: Subject) -> Iterator[Symptom]:
    """A warm-up that the run does not outlast: the learning rate never reaches its value."""
    if subject.args.warmup_steps >= subject.steps:
        what = f"--warmup_steps {subject.args.warmup_steps} of about {subject.steps} optimizer steps"
        yield Symptom("--warmup_steps", what)


def random_start(subject: Subject) -> Iterator[Symptom]:
    """Step 3 from random weights: the reference that the policy is held to knows nothing."""
    if subject.stage.number == 3 and subject.model_args.from_scratch:
        yield Symptom("--from_scratch", "the policy, and the reference that it is held to, start from random weights")


def too_little_memory(subject: Subject) -> Iterator[Symptom]:
    """A run that is estimated not to fit its GPUs."""
    there, wanted = subject.gpu_gb, estimate(subject).total / 1e9
    if there is None and torch.cuda.is_available():
        there = torch.cuda.get_device_properties(0).total_memory / 1e9
    if there is not None and wanted > there:
        what = f"about {wanted:.3g} GB are needed on each of {subject.devices} GPUs, which have {there:.3g} GB"
        yield Symptom(f"--zero_stage {subject.args.zero_stage}", what, severe=False)
