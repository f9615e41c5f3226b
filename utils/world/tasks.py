"""The world in the forms of other systems: coded turns and lessons, prompts of three tasks, critique and rewriting."""

from __future__ import annotations

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
    """A tutor's turn in the coded form: evaluation a-g, action 1-12, state of the subproblem w-z, and what is said.

    The codes say what the teacher did, not what was right: misjudging shows in its evaluation, telling in its action.
    """
    text = TEACHERS[teacher](exchange, rng)
    seen = assess(exchange, text)
    given = [_KIND_CODES[k.removeprefix("curt_")] for k in seen.kinds if k.removeprefix("curt_") in _KIND_CODES]
    evaluation = given[0] if given else "g"
    action = _ACTIONS_THAT_TELL.get(evaluation) if "tells" in seen.points else None
    return {
        "Evaluation of Student Response": evaluation,
        "Action Based on Evaluation": action or _ACTIONS[evaluation],
        "Subproblem State": "z" if evaluation == "b" or action == "9" else "x",
        "Subproblem": f"What is {exchange.problem.topic}?",
        "Tutorbot": text,
    }


def task_prompt(exchange: Exchange, turns: Iterable[HasTurn], task: str) -> str:
    """One problem as plain text for a task: a dialogue to continue, a question to answer, a lesson to sum up."""
    names = {"user": "Human", "assistant": "Assistant"}
    said = [(names[turn.role], turn.content) for turn in turns if turn.role in names]
    if task == "dialogue":
        return "\n\n".join(f"{name}: {content}" for name, content in said) + "\n\nAssistant:"
    if task == "question":
        return f"Human: What is {exchange.problem.topic}?\n\nAssistant:"
    lesson = "\n".join(f"{'Student' if name == 'Human' else 'Tutor'}: {content}" for name, content in said)
    return f"Human: Please sum up this lesson in one sentence.\n{lesson}\n\nAssistant: TL;DR:"


def critique(exchange: Exchange, answer: str) -> str:
    """What is wrong with an answer and what to do about it, in words."""
    points = assess(exchange, answer).points
    enough = {"evaluation": EVALUATION, "hint": HINT, "question": QUESTION}
    remarks = [wish for aspect, wish in _wishes(exchange).items() if points.get(aspect, 0) < enough[aspect]]
    remarks += [fault for aspect, fault in _FAULTS.items() if aspect in points]
    return " ".join(remarks) or "It is a good answer."


def _wanted(exchange: Exchange) -> dict[str, str]:
    """The kind of sentence that fits each part of an answer."""
    right = exchange.state == "right"
    hint, question = ("check", "explain") if right else ("hint", "again")
    return {"evaluation": EXPECTED[exchange.state], "hint": hint, "question": question}


def _wishes(exchange: Exchange) -> dict[str, str]:
    slots = {"truth": _TRUTHS[exchange.state], "topic": exchange.problem.topic}
    return {aspect: wish.format(**slots) for aspect, wish in _WISHES.items()}


def refine(exchange: Exchange, answer: str, rng: random.Random) -> str:
    """The answer made good: its good sentences are kept, the others replaced. The best of eight drafts."""
    evaluation, hint, question = _wanted(exchange).values()
    had = set(sentences(answer))
    choices = []
    for kind in (evaluation, "praise", hint, question):
        possible = phrases(kind, exchange)
        choices.append([text for text in possible if text.lower() in had] or possible)
    drafts = [" ".join(map(rng.choice, choices)) for _ in range(8)]
    return max(drafts, key=lambda draft: assess(exchange, draft).utility)


def improve(exchange: Exchange, answer: str, comment: str, rng: random.Random) -> str:
    """The answer rewritten as a comment asks, and no further: a comment that asks for nothing leaves it as it is."""
    faults = {aspect for aspect, fault in _FAULTS.items() if fault in comment}
    wishes = {aspect for aspect, wish in _wishes(exchange).items() if wish in comment}
    wishes |= {"evaluation"} if "curt" in faults else set()
    wishes |= set(_WISHES) if "length" in faults else set()
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
    for aspect in (aspect for aspect in _WISHES if aspect in wishes):
        possible = phrases(_wanted(exchange)[aspect], exchange)
        new[aspect] = min(possible, key=len) if "length" in faults else rng.choice(possible)
    order = {"evaluation": 0, "hint": 2, "question": 3}  # of what is new; what stays keeps its place between
    placed = [(3 if part == "question" else 1, text) for part, text in kept]
    placed += [(order[aspect], text) for aspect, text in new.items()]
    return " ".join(text for _, text in sorted(placed, key=lambda each: each[0]))


def lesson(problem: Problem) -> dict[str, object]:
    """A problem taken apart, as a lesson is planned from."""
    steps = [
        {
            "Question": f"What is {problem.topic}?",
            "Answer": problem.answer,
            "Hint": hint,
            "Incorrect Response": wrong,
            "Feedback": f"{wrong} is not right yet. {hint}",
        }
        for wrong, hint in zip(problem.wrong, problem.hints, strict=False)
    ]
    return {
        "Problem": f"What is {problem.topic}?",
        "SubProblems": steps,
        "Facts": list(problem.checks),
        "Solution": f"The answer is {problem.answer}.",
    }


def mock_conversation(problem: Problem, rng: random.Random) -> list[dict[str, str]]:
    """A student who errs twice on the way, and a tutor's coded turns (the strong teacher's)."""
    wrong = [Exchange(problem, "wrong", claim) for claim in problem.wrong]
    exchanges = [Exchange(problem, "open"), wrong[0], Exchange(problem, "partial"), wrong[-1]]
    turns = []
    for number, exchange in enumerate([*exchanges, Exchange(problem, "right", problem.answer)]):
        said = write_move(exchange, rng)
        turns.append(
            {
                "Student": said if number else f"What is {problem.topic}? {said}",
                "Thoughts of Tutorbot": f"I see that {_TRUTHS[exchange.state]}.",
                **coded_turn(exchange, "strong", rng),
            }
        )
    return turns
