"""A row of each format of other systems that a class finds by its columns: class, row, prompt, answers, pairs."""

from toy_rows import HELLO, user

from utils.records import Message

FRUIT = {"instruction": "Name a fruit."}
ASKED = user("Name a fruit.")

KINDS = [
    ("responses", {**FRUIT, "input": "", "responses": ["Fig.", "No."]}, ASKED, ["Fig.", "No."], []),
    ("responses", {**FRUIT, "input": "red", "responses": []}, user("Name a fruit.\n\n### Input:\nred"), [], []),
    ("generations", {**FRUIT, "dataset": "koala", "generator": "m", "output": "Fig."}, ASKED, ["Fig."], []),
    ("generations-n", {**FRUIT, "dataset": "koala", "generator": "m", "outputs": ["Fig."]}, ASKED, ["Fig."], []),
    ("annotations", {**FRUIT, "output_1": "No.", "output_2": "Fig.", "preference": 2.0}, ASKED, ["No.", "Fig."],
     [(1, 0)]),
    ("chatbot", {"prompt": HELLO, "greedy": "Fig.", "greedy_finished": True, "task": "qa"},
     (*user("Hello"), Message("assistant", "Hi."), *ASKED), ["Fig."], []),
    ("chatbot", {**FRUIT, "input": "", "sample": ["Fig.", "No."], "sample_finished": [True, False]}, ASKED,
     ["Fig.", "No."], []),
    ("outputs", {"prompt": "Human: Name a fruit.\n\nAssistant:", "output": {"m": "Fig.", "n": "No."}, "task": "qa"},
     ASKED, ["Fig.", "No."], []),
    ("feedback-lines", {"prompt": "Human: Name a fruit.\n\nAssistant:", "outputs": {"m": "Fig.", "n": "No."},
     "feedback_type": "prefer", "feedback": "(A)"}, ASKED, ["Fig.", "No."], [(0, 1)]),
    ("improved", {"prompt": "p", "origin_prompt": "Name a fruit.", "reject": "No.", "greedy": "Fig.", "critique": "c"},
     ASKED, ["No."], []),
]  # fmt: skip
