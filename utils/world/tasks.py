"""The world in the forms of other systems: coded tutor turns, prompts of three tasks, critique and refinement."""

from __future__ import annotations

import random
from collections.abc import Iterable

from utils.world.exchanges import Exchange, HasTurn, sentences
from utils.world.oracle import HINT, QUESTION, assess
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
    remarks = [] if points.get("evaluation", 0) > 0 else [f"It should say what holds: {_TRUTHS[exchange.state]}."]
    remarks += [] if points.get("hint", 0) >= HINT else [f"It should help with {exchange.problem.topic}."]
    remarks += [] if points.get("question", 0) >= QUESTION else ["It should end with a question to the student."]
    remarks += [fault for aspect, fault in _FAULTS.items() if aspect in points]
    return " ".join(remarks) or "It is a good answer."


def refine(exchange: Exchange, answer: str, rng: random.Random) -> str:
    """The answer made good: its good sentences are kept, the others replaced. The best of eight drafts."""
    right = exchange.state == "right"
    wanted = (EXPECTED[exchange.state], "praise", "check" if right else "hint", "explain" if right else "again")
    had = set(sentences(answer))
    choices = []
    for kind in wanted:
        possible = phrases(kind, exchange)
        choices.append([text for text in possible if text.lower() in had] or possible)
    drafts = [" ".join(map(rng.choice, choices)) for _ in range(8)]
    return max(drafts, key=lambda draft: assess(exchange, draft).utility)
