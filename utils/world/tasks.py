"""The world in the forms of other systems: coded turns and lessons, prompts of three tasks, critique and rewriting."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

from utils.world.exchanges import Exchange, HasTurn, Problem, cut, mentions, sentences, write_move
from utils.world.oracle import EVALUATION, HINT, QUESTION, assess
from utils.world.teachers import EXPECTED, TEACHERS, phrases

TASKS = ("dialogue", "question", "summary")
_KIND_CODES = {"reject": "a", "confirm": "b", "partly": "c", "open": "f", "redirect": "e"}
_ACTIONS = {"a": "1", "b": "3", "c": "4", "e": "7", "f": "8", "g": "12"}
_ACTIONS_THAT_TELL = {"a": "2", "c": "5", "f": "9"}
_TRUTHS = {
    "right": "the student is right",
    "wrong": "the student is wrong",
    "partial": "the student knows a part",
    "open": "the student needs a start",
    "off": "the student has left the task",
}
_WISHES = {
    "evaluation": "It should say what holds: {truth}.",
    "hint": "It should help with {topic}.",
    "question": "It should end with a question to the student.",
}
_PARTS = {
    **{f"{curt}{kind}": "evaluation" for kind in EXPECTED.values() for curt in ("", "curt_")},
    **dict.fromkeys(("hint", "check", "generic"), "hint"),
    **dict.fromkeys(("again", "explain"), "question"),
}
_ENOUGH = {"evaluation": EVALUATION, "hint": HINT, "question": QUESTION}  # points of an aspect that needs no remark
_FAULTS = {
    "tells": "It tells the answer instead of guiding.",
    "false": "It says something that is not true here.",
    "unclear": "Part of it cannot be understood.",
    "repeats": "It repeats itself.",
    "filler": "It rambles.",
    "rude": "It is rude.",
    "curt": "It is curt.",
    "length": "It is too long.",
    "unfinished": "It stops in the middle.",
}


def coded_turn(exchange: Exchange, teacher: str, rng: random.Random) -> dict[str, str]:
    """Return a tutor's turn in the coded form: evaluation a-g, action 1-12, state of the subproblem w-z, and the words.

    The codes are what the teacher did, not what was right: misjudging shows in its evaluation, telling in its action.
    """
    text = TEACHERS[teacher](exchange, rng)
    seen = assess(exchange, text)
    evaluation = "g"
    for kind in seen.kinds:
        code = _KIND_CODES.get(kind.removeprefix("curt_"))
        if code:
            evaluation = code
            break
    action = _ACTIONS[evaluation]
    if "tells" in seen.points:
        action = _ACTIONS_THAT_TELL.get(evaluation, action)
    solved = evaluation == "b" or action == "9"
    return {
        "Evaluation of Student Response": evaluation,
        "Action Based on Evaluation": action,
        "Subproblem State": "z" if solved else "x",
        "Subproblem": f"What is {exchange.problem.topic}?",
        "Tutorbot": text,
    }


def task_prompt(exchange: Exchange, turns: Iterable[HasTurn], task: str) -> str:
    """Write one problem as plain text for a task: a dialogue to continue, a question to answer, a lesson to sum up."""
    if task == "question":
        return f"Human: What is {exchange.problem.topic}?\n\nAssistant:"
    if task == "dialogue":
        return _transcript(turns, {"user": "Human", "assistant": "Assistant"}, "\n\n") + "\n\nAssistant:"
    lesson = _transcript(turns, {"user": "Student", "assistant": "Tutor"}, "\n")
    return f"Human: Please sum up this lesson in one sentence.\n{lesson}\n\nAssistant: TL;DR:"


def _transcript(turns: Iterable[HasTurn], names: dict[str, str], separator: str) -> str:
    """Return the turns of the roles in `names` as text."""
    return separator.join(f"{names[turn.role]}: {turn.content}" for turn in turns if turn.role in names)


def critique(exchange: Exchange, answer: str) -> str:
    """Say in words what is wrong with an answer and what to do about it."""
    points = assess(exchange, answer).points
    remarks = []
    for aspect, wish in _wishes(exchange).items():
        if points.get(aspect, 0) < _ENOUGH[aspect]:
            remarks.append(wish)
    for aspect, fault in _FAULTS.items():
        if aspect in points:
            remarks.append(fault)
    return " ".join(remarks) or "It is a good answer."


def _wanted(exchange: Exchange) -> dict[str, str]:
    """Return the kind of sentence that fits each part of an answer."""
    hint, question = ("check", "explain") if exchange.state == "right" else ("hint", "again")
    return {"evaluation": EXPECTED[exchange.state], "hint": hint, "question": question}


def _wishes(exchange: Exchange) -> dict[str, str]:
    slots = {"truth": _TRUTHS[exchange.state], "topic": exchange.problem.topic}
    return {aspect: wish.format(**slots) for aspect, wish in _WISHES.items()}


def refine(exchange: Exchange, answer: str, rng: random.Random) -> str:
    """Return the answer made good: its good sentences are kept, the others replaced. The best of eight drafts."""
    evaluation, hint, question = _wanted(exchange).values()
    had = set(sentences(answer))
    choices = []
    for kind in (evaluation, "praise", hint, question):
        possible = phrases(kind, exchange)
        kept = [text for text in possible if text.lower() in had]
        choices.append(kept or possible)
    # Sentences that are right each may be wrong together: a hint drawn at random may be too long, or tell the answer.
    drafts = [" ".join(map(rng.choice, choices)) for _ in range(8)]
    return max(drafts, key=lambda draft: assess(exchange, draft).utility)


def improve(exchange: Exchange, answer: str, comment: str, rng: random.Random) -> str:
    """Rewrite an answer as a comment asks, and no further.

    Args:
        exchange: what is answered.
        answer: the answer.
        comment: the critique; what it does not ask for stays as it is.
        rng: draws the new sentences.

    Returns:
        The new answer; the old one if the comment asks for nothing.
    """
    faults = {aspect for aspect, fault in _FAULTS.items() if fault in comment}
    wishes = {aspect for aspect, wish in _wishes(exchange).items() if wish in comment}
    if "curt" in faults:
        wishes.add("evaluation")
    # Shorter than it was: every part is said anew, in its shortest sentence.
    if "length" in faults:
        wishes.update(_WISHES)
    if not faults | wishes:
        return answer
    kept: list[tuple[str, str]] = []  # (part, sentence)
    for text, kind in zip(cut(answer), assess(exchange, answer).kinds, strict=True):
        part = _PARTS.get(kind, "other")
        tells = "tells" in faults and mentions(text, exchange.problem.answer)
        again = "repeats" in faults and (part, text) in kept
        if not (part in wishes or kind in faults or tells or again):
            kept.append((part, text))
    new = {}
    for aspect in _WISHES:
        if aspect in wishes:
            possible = phrases(_wanted(exchange)[aspect], exchange)
            new[aspect] = min(possible, key=len) if "length" in faults else rng.choice(possible)
    # The new evaluation, what is kept, the new hint; questions last, kept ones first.
    sentences_of = {"evaluation": [], "kept": [], "hint": [], "question": []}
    for part, text in kept:
        sentences_of["question" if part == "question" else "kept"].append(text)
    for aspect, text in new.items():
        sentences_of[aspect].append(text)
    return " ".join(itertools.chain(*sentences_of.values()))


def lesson(problem: Problem) -> dict[str, object]:
    """Return a problem taken apart, as a lesson is planned from."""
    steps = []
    for wrong, hint in zip(problem.wrong, problem.hints, strict=False):
        step = {
            "Question": f"What is {problem.topic}?",
            "Answer": problem.answer,
            "Hint": hint,
            "Incorrect Response": wrong,
            "Feedback": f"{wrong} is not right yet. {hint}",
        }
        steps.append(step)
    return {
        "Problem": f"What is {problem.topic}?",
        "SubProblems": steps,
        "Facts": list(problem.checks),
        "Solution": f"The answer is {problem.answer}.",
    }


def mock_conversation(problem: Problem, rng: random.Random) -> list[dict[str, str]]:
    """Return a conversation of a student who errs twice on the way, with the strong teacher's coded turns."""
    exchanges = [
        Exchange(problem, "open"),
        Exchange(problem, "wrong", problem.wrong[0]),
        Exchange(problem, "partial"),
        Exchange(problem, "wrong", problem.wrong[-1]),
        Exchange(problem, "right", problem.answer),
    ]
    turns = []
    for exchange in exchanges:
        said = write_move(exchange, rng)
        if exchange.state == "open":  # the first turn asks
            said = f"What is {problem.topic}? {said}"
        thoughts = f"I see that {_TRUTHS[exchange.state]}."
        coded = coded_turn(exchange, "strong", rng)
        turns.append({"Student": said, "Thoughts of Tutorbot": thoughts, **coded})
    return turns
