"""Checks of the rows: answers, pairs and labels, and what the training data shares with the evaluation data."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from utils.doctor.subject import Split, Subject, Symptom, by_share, draw_key, place
from utils.records import LIKELIHOODS, Answer, Record, prompt_hash
from utils.statistics import wilson_interval

ENOUGH = 20  # judged pairs or answers from which a share is a finding
COPIED = 20  # characters of a question from which its repetition is no coincidence


def empty_answers(subject: Subject) -> Iterator[Symptom]:
    """Answers without text."""
    if subject.stage.kind == "prompts":
        return
    empty, total = [], 0
    for record in subject.train.records:
        total += len(record.answers)
        empty += [record for answer in record.answers if not answer.text.strip()]
    yield from by_share(empty, total, "answers are empty and left out", severe=0.05, warned=0.001)


def same_answers(subject: Subject) -> Iterator[Symptom]:
    """One text as the answer to most prompts: all demonstrations, all chosen or all rejected answers."""
    sides: dict[str, list[Answer]] = defaultdict(list)
    for item in subject.train.items:
        for chosen, rejected in item.pairs():
            sides["chosen answers"].append(chosen)
            sides["rejected answers"].append(rejected)
        if item.answers and not item.whole.pairs:
            sides["answers"] += item.answers
    for side, answers in sides.items():
        ((text, count),) = Counter(answer.text.strip() for answer in answers).most_common(1)
        if len(answers) >= ENOUGH and count >= len(answers) / 2:
            what = f"{count:,} of {len(answers):,} {side} are the text {text[:40]!r}"
            yield Symptom(side, what, severe=count >= 0.9 * len(answers))


def equal_pairs(subject: Subject) -> Iterator[Symptom]:
    """Pairs whose chosen and rejected answer are the same: as text, or once cut."""
    equal, total, limit = [], subject.train.ties, subject.limits.answer
    for item in subject.train.items:
        total += len(item.whole.pairs)
        for winner, loser in item.whole.pairs:
            ends = item.whole.answers[winner][:limit], item.whole.answers[loser][:limit]
            if np.array_equal(*ends):
                equal.append(item.record)
    count = len(equal) + subject.train.ties
    if count:
        where = place(equal[0]) if equal else "rows left out as ties"
        what = f"chosen equals rejected in {count:,} of {total:,} pairs ({count / total:.1%}); they are left out"
        yield Symptom(where, what, severe=count >= 0.05 * total)


def duplicates(subject: Subject) -> Iterator[Symptom]:
    """Rows that were there before, prompt and answers alike; copies that --data_path asks for by a weight are none."""
    repeated, seen = [], {}
    for record in subject.train.records:
        first = seen.setdefault(_content(record), place(record))
        if first != place(record):
            repeated.append(record)
    yield from by_share(
        repeated, len(subject.train.records), "rows are exact copies of earlier ones", severe=0.5, warned=0.2
    )


def eval_rows_in_train(subject: Subject) -> Iterator[Symptom]:
    """Evaluation rows whose prompt and answers are training rows as well; of rollouts, whose prompt is."""
    if subject.held_out is None:
        return
    rollouts = subject.stage.kind == "prompts"
    known = {key for item in subject.train.items for key in _row_keys(item.record, item.answers, rollouts)}
    rows = [item for item in subject.held_out.items if _comparable(subject, item.record)]
    leaked = [item.record for item in rows if _row_keys(item.record, item.answers, rollouts) <= known]
    yield from by_share(leaked, len(rows), "evaluation rows are also in the training data", severe=0.02)


def eval_prompts_in_train(subject: Subject) -> Iterator[Symptom]:
    """Evaluation prompts that are training prompts as well, with other answers."""
    if subject.held_out is None or subject.stage.kind == "prompts":
        return
    known = {prompt_hash(record.prompt) for record in subject.train.records}
    rows = [record for record in subject.held_out.records if _comparable(subject, record)]
    leaked = [record for record in rows if prompt_hash(record.prompt) in known]
    yield from by_share(leaked, len(rows), "evaluation rows have a prompt of the training data", severe=0.5, warned=0.1)


def _comparable(subject: Subject, record: Record) -> bool:
    """Return whether the training rows of this prompt were drawn, if there are any."""
    reach = subject.train.reach
    return reach is None or draw_key(record, subject.args.seed) <= reach


def _row_keys(record: Record, answers: list[Answer], rollouts: bool) -> set[tuple[int, str]]:
    prompt = prompt_hash(record.prompt)
    if rollouts:
        return {(prompt, "")}
    return {(prompt, answer.text.strip()) for answer in answers}


def _content(record: Record) -> bytes:
    texts = [str(prompt_hash(record.prompt)), *(answer.text for answer in record.answers)]
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).digest()


def contradictions(split: Split) -> tuple[list[Record], int]:
    """Return the records of pairs that are decided both ways, A over B and B over A, and the number of all pairs."""
    verdicts: dict[tuple[int, frozenset[str]], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for item in split.items:
        for chosen, rejected in item.pairs():
            key = (prompt_hash(item.record.prompt), frozenset((chosen.text, rejected.text)))
            verdicts[key][chosen.text].append(item.record)
    both = [records for winners in verdicts.values() if len(winners) > 1 for records in winners.values()]
    total = sum(len(records) for winners in verdicts.values() for records in winners.values())
    return [record for records in both for record in records], total


def conflicting_labels(subject: Subject) -> Iterator[Symptom]:
    """Pairs of the same two answers to one prompt that are decided both ways."""
    records, total = contradictions(subject.train)
    what = "pairs are decided the other way elsewhere"
    yield from by_share(records, total, what, severe=0.1, warned=0.03)


def reversed_labels(subject: Subject) -> Iterator[Symptom]:
    """Pairs whose rejected answer has the better rating, rank or thumb; scorers that most verdicts contradict."""
    wrong, total = [], 0
    scored: dict[str, list[bool]] = defaultdict(list)
    for item in subject.train.items:
        for chosen, rejected in item.pairs():
            gap = _gap(chosen, rejected)
            total += gap != 0
            if gap < 0:
                wrong.append(item.record)
            for scorer in chosen.scores.keys() & rejected.scores.keys() - set(LIKELIHOODS):
                scored[scorer].append(chosen.scores[scorer] < rejected.scores[scorer])
    if total >= ENOUGH:
        what = "pairs with ratings, ranks or thumbs prefer the answer that is rated worse"
        yield from by_share(wrong, total, what, severe=0.05, warned=0.02)
    for scorer, below in sorted(scored.items()):
        # A scorer errs: single pairs prove nothing, but a verdict is no coin that falls the wrong way up.
        share = wilson_interval(sum(below), len(below))
        if len(below) >= ENOUGH and share.low > 0.5:
            yield Symptom(f"scores.{scorer}", f"the rejected answer scores higher in {share} of {len(below):,} pairs")


def _gap(chosen: Answer, rejected: Answer) -> float:
    """Return how much better the chosen answer is known to be; 0: unknown or equal."""
    if chosen.rating is not None and rejected.rating is not None:
        return chosen.rating - rejected.rating
    if chosen.rank is not None and rejected.rank is not None:
        return rejected.rank - chosen.rank
    if chosen.thumb is not None and rejected.thumb is not None:
        return int(chosen.thumb) - int(rejected.thumb)
    return 0


def one_kind_of_label(subject: Subject) -> Iterator[Symptom]:
    """Ratings or thumbs that are all the same: nothing can be learned from them."""
    values: dict[str, list[float]] = defaultdict(list)
    for record in subject.train.records:
        for answer in record.answers:
            for name in ("rating", "thumb"):
                if getattr(answer, name) is not None:
                    values[name].append(float(getattr(answer, name)))
    for name, found in values.items():
        if subject.stage.kind == "comparisons" and len(found) >= ENOUGH and len(set(found)) == 1:
            yield Symptom(f"answers[].{name}", f"all {len(found):,} values of {name} are {found[0]:g}")


def longer_chosen(split: Split) -> tuple[int, int]:
    """Return in how many pairs the chosen answer is the longer one in tokens, and how many differ in length."""
    longer = differing = 0
    for item in split.items:
        for winner, loser in item.whole.pairs:
            gap = len(item.whole.answers[winner]) - len(item.whole.answers[loser])
            longer += gap > 0
            differing += gap != 0
    return longer, differing


def length_bias(subject: Subject) -> Iterator[Symptom]:
    """The chosen answer almost always the longer one, or the shorter one: length alone would win."""
    longer, differing = longer_chosen(subject.train)
    share = wilson_interval(longer, differing)
    if differing >= ENOUGH and not 0.25 <= share.value <= 0.75:
        what = f"the chosen answer is the longer one in {share} of {differing:,} pairs of different length"
        severe = share.low > 0.9 or share.high < 0.1
        if severe or share.low > 0.75 or share.high < 0.25:
            yield Symptom("pairs", what, severe=severe)


def repeated_prompts(subject: Subject) -> Iterator[Symptom]:
    """Answers that begin with their question."""
    copied, total = [], 0
    for item in subject.train.items:
        question = item.record.prompt[-1].content.strip()
        total += len(item.answers)
        if len(question) >= COPIED:
            copied += [item.record for answer in item.answers if answer.text.strip().startswith(question)]
    yield from by_share(copied, total, "answers repeat their question first", severe=0.05, warned=0.01)
