"""The words around a conversation, one Jinja chat template a name: the same language as a tokenizer's own template.

A template is written down as the form of each role's turn: {} is the content, <eos> the tokenizer's end token, which
closes every answer, and <bos> its begin token, left out for tokenizers that begin no text with one. Contents lose the
white space at their ends, except in `plain`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

BOS = "{{ bos_token }}"


@dataclass(frozen=True)
class Template:
    """`jinja` sees messages, add_generation_prompt, bos_token and eos_token. `stop_strings` begin the next turn: a
    model that was never taught the end token goes on with one of them."""

    jinja: str
    stop_strings: tuple[str, ...] = ()


def _expressions(form: str, content: str) -> list[str]:
    """`form` as the Jinja expressions that write it, one after the other."""
    marks = {"{}": content, "<eos>": "eos_token", "<bos>": "bos_token", "<held>": "held.system"}
    return [marks.get(piece) or json.dumps(piece) for piece in re.split(r"(\{\}|<eos>|<bos>|<held>)", form) if piece]


def _turns(system: str, user: str, opening: str, answer: str, start: str = BOS, strip: bool = True) -> str:
    """`opening` is what the model reads before it answers, `answer` what it writes; `start` is Jinja. When `user` says
    <held>, a system message waits and is written there."""
    content = "(message.content | trim)" if strip else "message.content"
    write = {
        name: "".join(f"{{{{ {e} }}}}" for e in _expressions(form, content))
        for name, form in {"system": system, "user": user, "opening": opening, "answer": answer}.items()
    }
    if "<held>" in user:
        start += "{% set held = namespace(system='') %}"
        write["system"] = "{% set held.system = " + " ~ ".join(_expressions(system, content)) + " %}"
        write["user"] += "{% set held.system = '' %}"
    return (
        f"{start}{{% for message in messages %}}"
        f"{{% if message.role == 'system' %}}{write['system']}"
        f"{{% elif message.role == 'user' %}}{write['user']}"
        f"{{% else %}}{write['opening']}{write['answer']}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{write['opening']}{{% endif %}}"
    )


def _unless_system(jinja: str) -> str:
    """The start of a template that opens with words of its own when the conversation has no system message."""
    return BOS + "{% if messages and messages[0].role != 'system' %}" + jinja + "{% endif %}"


_ALPACA_START = _unless_system(
    '{{ "Below is an instruction that describes a task" }}'
    '{% if "\\n\\n### Input:\\n" in messages[0].content %}'
    '{{ ", paired with an input that provides further context" }}{% endif %}'
    '{{ ". Write a response that appropriately completes the request.\\n\\n" }}'
)
_VICUNA_START = _unless_system(
    '{{ "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, '
    "detailed, and polite answers to the user's questions. \" }}"
)

TEMPLATES: dict[str, Template] = {
    "human_assistant": Template(
        _turns("\n\nSystem: {}", "\n\nHuman: {}", "\n\nAssistant:", " {}<eos>"), stop_strings=("\n\nHuman:",)
    ),
    # An input is part of the user's message, under a line "### Input:"; the first sentence then mentions it.
    "alpaca": Template(
        _turns("{}\n\n", "### Instruction:\n{}\n\n", "### Response:", " {}<eos>\n\n", _ALPACA_START),
        stop_strings=("\n\n### Instruction:",),
    ),
    "vicuna": Template(_turns("{} ", "USER: {}", " ASSISTANT:", " {}<eos>", _VICUNA_START), stop_strings=("USER:",)),
    "llama2": Template(
        _turns("<<SYS>>\n{}\n<</SYS>>\n\n", "<bos>[INST] <held>{} [/INST]", "", " {} <eos>", start="")
    ),
    "mistral": Template(_turns("{}\n\n", "[INST] <held>{} [/INST]", "", " {}<eos>")),
    "zephyr": Template(
        _turns("<|system|>\n{}<eos>\n", "<|user|>\n{}<eos>\n", "<|assistant|>\n", "{}<eos>\n"),
        stop_strings=("<|user|>",),
    ),
    "openassistant": Template(
        _turns("<|system|>{}<eos>", "<|prompter|>{}<eos>", "<|assistant|>", "{}<eos>"), stop_strings=("<|prompter|>",)
    ),
    "tutor": Template(
        _turns("\n\nSystem: {}", "\n\nStudent: {}", "\n\nTutorbot:", " {}<eos>"), stop_strings=("\n\nStudent:",)
    ),
    "plain": Template(_turns("{}", "{}", "", "{}<eos>", strip=False)),
}  # fmt: skip
