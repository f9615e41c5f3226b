"""Checks of the text and the tokens that the template and the limits make of the rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

from utils.doctor.subject import Item, Subject, Symptom, by_share, place

TRIED = 256  # groups that are laid out as batches
# What opens a turn in today's templates, at the begin of a line or as a token of its own.
MARKERS = re.compile(
    r"(?:^|\n)[ \t]*(?:Human|Assistant|USER|ASSISTANT):|^### (?:Instruction|Response):"
    r"|<\|(?:im_start|im_end|user|assistant|system|start_header_id|eot_id|prompter|endoftext)\|>"
    r"|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>",
    re.MULTILINE,
)


def role_markers(subject: Subject) -> Iterator[Symptom]:
    """Turns of a conversation written out inside one text: the data follows another template than the run."""

    def markers(item: Item) -> set[str]:
        texts = [answer.text for answer in item.answers]
        if subject.model_args.template != "plain":  # which leaves the words around a question to the data
            texts += [message.content for message in item.record.prompt]
        return {hit.strip() for text in texts for hit in MARKERS.findall(text)}

    what = f"rows have turns written out in their texts ({{}}), which {subject.renderer.name} does not read as turns"
    yield from _rows_with(subject, markers, what)


def special_tokens(subject: Subject) -> Iterator[Symptom]:
    """Special tokens of the tokenizer inside texts: the model reads them as ends and begins."""
    added = subject.tokenizer.added_tokens_decoder.values()
    special = sorted(str(token) for token in added if token.special and len(str(token)) > 2)
    if not special:
        return
    pattern = re.compile("|".join(map(re.escape, special)))

    def tokens(item: Item) -> set[str]:
        texts = [message.content for message in item.record.prompt] + [answer.text for answer in item.answers]
        # Some data sets write the end token behind an answer; the renderer takes it for its own.
        return {hit for text in texts for hit in pattern.findall(text.removesuffix(subject.tokenizer.eos_token))}

    yield from _rows_with(subject, tokens, "rows have special tokens in their texts ({})")


def _rows_with(subject: Subject, hits_in: Callable[[Item], set[str]], what: str) -> Iterator[Symptom]:
    """Yield one finding of the rows whose texts hold what they should not; `what` names the three most frequent hits at
    its braces."""
    found: Counter[str] = Counter()
    marked = []
    for item in subject.train.items:
        hits = hits_in(item)
        if hits:
            marked.append(item.record)
            found.update(hits)
    named = what.format(", ".join(hit for hit, _ in found.most_common(3)))
    yield from by_share(marked, len(subject.train.items), named, severe=0.02, warned=0.01)


def dropped_messages(subject: Subject) -> Iterator[Symptom]:
    """System and user messages that the template leaves out."""
    lost, roles = [], set()
    for item in subject.train.items:
        for message in item.record.prompt:
            if message.role != "assistant" and message.content.strip() not in item.rendered.prompt:
                lost.append(item.record)
                roles.add(message.role)
    total = sum(len(item.record.prompt) for item in subject.train.items)
    what = f"messages ({', '.join(sorted(roles))}) are not in the text that {subject.renderer.name} writes"
    yield from by_share(lost, total, what, severe=0.01)


def other_template(subject: Subject) -> Iterator[Symptom]:
    """A --template other than the one that the model was trained with."""
    own = getattr(subject.tokenizer, "chat_template", None)
    if own and own != subject.renderer.chat_template and not subject.model_args.from_scratch:
        what = f"--template {subject.model_args.template} is not the template in the model's tokenizer"
        yield Symptom(subject.renderer.encoder.name, what, severe=subject.stage.number > 1)


def begin_tokens(prompt: list[int], bos: int) -> int:
    """Return how many begin tokens a prompt opens with."""
    count = 0
    while count < len(prompt) and prompt[count] == bos:
        count += 1
    return count


def double_bos(subject: Subject) -> Iterator[Symptom]:
    """Two begin tokens in a row, of the template and of the text or the tokenizer."""
    bos = subject.tokenizer.bos_token_id
    if bos is None or bos == subject.tokenizer.eos_token_id:
        return
    doubled = []
    for item in subject.train.items:
        prompt = item.whole.prompt.tolist()
        if [bos, bos] in ([a, b] for a, b in zip(prompt, prompt[1:], strict=False)):
            doubled.append(item.record)
    yield from by_share(doubled, len(subject.train.items), "prompts have two begin tokens in a row", severe=0.001)


def missing_bos(subject: Subject) -> Iterator[Symptom]:
    """Prompts without the begin token that the tokenizer puts before every text."""
    tokenizer, bos = subject.tokenizer, subject.tokenizer.bos_token_id
    if bos is None or tokenizer("a")["input_ids"][:1] != [bos]:
        return
    without = [item.record for item in subject.train.items if not begin_tokens(item.whole.prompt.tolist(), bos)]
    what = "prompts do not open with the begin token, which the tokenizer writes before every text"
    yield from by_share(without, len(subject.train.items), what, severe=0.5)


def _ended(item: Item) -> list[int]:
    """Return the answers that should end with a trained stop token: those that are finished and whole."""
    places = []
    for number, answer in enumerate(item.answers):
        if answer.finished and len(item.group.answers[number]) == len(item.whole.answers[number]):
            places.append(number)
    return places


def untrained_stop(subject: Subject) -> Iterator[Symptom]:
    """Whole answers whose stop token is outside the mask: the model would never learn to end."""
    stops, total, untrained = set(subject.renderer.stop_token_ids), 0, []
    for item in [item for item in subject.train.items if item.group is not None][:TRIED]:
        trained = subject.trained(item.group)
        for number in _ended(item):
            total += 1
            if not len(trained[number]) or int(trained[number][-1]) not in stops:
                untrained.append(item.record)
    pad = subject.tokenizer.pad_token_id
    why = " (the pad token is a stop token)" if pad in stops else ""
    yield from by_share(untrained, total, f"answers do not train their stop token{why}", severe=0.001)


def unfinished_answers(subject: Subject) -> Iterator[Symptom]:
    """Answers that were cut before they came here, and so have no stop token."""
    answers = [(item.record, answer) for item in subject.train.items for answer in item.answers]
    unfinished = [record for record, answer in answers if not answer.finished]
    what = "answers are marked as unfinished and teach no stop token"
    yield from by_share(unfinished, len(answers), what, severe=0.5, warned=0.2)


def cut_answers(subject: Subject) -> Iterator[Symptom]:
    """Answers that lose their end, and their stop token, to a limit."""
    cut, total = [], 0
    for item in [item for item in subject.train.items if item.group is not None]:
        total += len(item.whole.answers)
        for before, after in zip(item.whole.answers, item.group.answers, strict=True):
            if len(after) < len(before):
                cut.append(item.record)
    yield from by_share(cut, total, f"answers are cut ({subject.limits})", severe=0.05, warned=0.01)


def cut_prompts(subject: Subject) -> Iterator[Symptom]:
    """Prompts that are cut or dropped."""
    cut = []
    for item in subject.train.items:
        if item.group is None:
            room = subject.limits.prompt
        else:
            room = len(item.group.prompt)
        if len(item.whole.prompt) > room:
            cut.append(item.record)
    what = f"prompts are cut or dropped ({subject.limits})"
    yield from by_share(cut, len(subject.train.items), what, severe=0.2, warned=0.05)


def few_trained_tokens(subject: Subject) -> Iterator[Symptom]:
    """Hardly any token that is trained."""
    if subject.stage.kind == "prompts":
        return
    total = sum(group.tokens for group in subject.train.groups)
    trained = sum(group.trained_tokens for group in subject.train.groups)
    share = trained / max(1, total)
    if share < 0.02:
        yield Symptom("train", f"{trained:,} of {total:,} tokens are trained ({share:.2%})", severe=share < 0.005)


def unknown_tokens(subject: Subject) -> Iterator[Symptom]:
    """Text that the tokenizer cannot spell."""
    unknown, ids = subject.tokenizer.unk_token_id, Counter()
    if unknown is None or unknown == subject.tokenizer.eos_token_id:
        return
    first = None
    for item in subject.train.items:
        for part in (item.whole.prompt, *item.whole.answers):
            found = int((part == unknown).sum())
            ids.update({"unknown": found, "all": len(part)})
            if found and first is None:
                first = place(item.record)
    share = ids["unknown"] / max(1, ids["all"])
    if share >= 0.001:
        what = f"{ids['unknown']:,} of {ids['all']:,} tokens are unknown to the tokenizer ({share:.1%})"
        yield Symptom(first, what, severe=share >= 0.01)
