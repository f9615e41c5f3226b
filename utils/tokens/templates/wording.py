"""Prompt templates: the words around a conversation as Jinja, the language of a tokenizer's own template.

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
    """A chat template. `jinja` reads messages, add_generation_prompt, bos_token and eos_token. `stop_strings` begin the
    next turn: a model that was never taught the end token goes on with one of them."""

    jinja: str
    stop_strings: tuple[str, ...] = ()

    def text(self, begins: bool) -> str:
        """Return the Jinja for a tokenizer that begins every text with its begin token, or for one that does not."""
        if begins:
            return self.jinja
        return self.jinja.replace(BOS, "")


def _expressions(form: str, content: str) -> list[str]:
    """Return the Jinja expressions that write a form, one after the other."""
    marks = {"{}": content, "<eos>": "eos_token", "<bos>": "bos_token", "<held>": "held.system"}
    pieces = re.split(r"(\{\}|<eos>|<bos>|<held>)", form)
    return [marks.get(piece) or json.dumps(piece) for piece in pieces if piece]


def _turns(system: str, user: str, opening: str, answer: str, start: str = BOS, strip: bool = True) -> str:
    """Return the Jinja of a template.

    Args:
        system: the form of a system message.
        user: the form of a user's message. With <held> in it, a system message waits and is written there.
        opening: what the model reads before it answers.
        answer: what the model writes.
        start: Jinja before the first message.
        strip: contents lose the white space at their ends.
    """
    content = "(message.content | trim)" if strip else "message.content"
    write = {}
    for name, form in (("system", system), ("user", user), ("opening", opening), ("answer", answer)):
        write[name] = "".join(f"{{{{ {expression} }}}}" for expression in _expressions(form, content))
    if "<held>" in user:
        # A Jinja namespace outlives the loop's turns; a plain variable that is set inside a loop does not.
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
    """Return the start of a template that opens with words of its own when the conversation has no system message."""
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
        _turns(system="\n\nSystem: {}", user="\n\nHuman: {}", opening="\n\nAssistant:", answer=" {}<eos>"),
        stop_strings=("\n\nHuman:",),
    ),
    # An input is part of the user's message, under a line "### Input:"; the first sentence then mentions it.
    "alpaca": Template(
        _turns(
            system="{}\n\n",
            user="### Instruction:\n{}\n\n",
            opening="### Response:",
            answer=" {}<eos>\n\n",
            start=_ALPACA_START,
        ),
        stop_strings=("\n\n### Instruction:",),
    ),
    "vicuna": Template(
        _turns(system="{} ", user="USER: {}", opening=" ASSISTANT:", answer=" {}<eos>", start=_VICUNA_START),
        stop_strings=("USER:",),
    ),
    # Llama 2 opens every exchange with a begin token and not the conversation alone: <bos> stands in the turn.
    "llama2": Template(
        _turns(
            system="<<SYS>>\n{}\n<</SYS>>\n\n",
            user="<bos>[INST] <held>{} [/INST]",
            opening="",
            answer=" {} <eos>",
            start="",
        )
    ),
    "mistral": Template(_turns(system="{}\n\n", user="[INST] <held>{} [/INST]", opening="", answer=" {}<eos>")),
    "zephyr": Template(
        _turns(
            system="<|system|>\n{}<eos>\n", user="<|user|>\n{}<eos>\n", opening="<|assistant|>\n", answer="{}<eos>\n"
        ),
        stop_strings=("<|user|>",),
    ),
    "openassistant": Template(
        _turns(system="<|system|>{}<eos>", user="<|prompter|>{}<eos>", opening="<|assistant|>", answer="{}<eos>"),
        stop_strings=("<|prompter|>",),
    ),
    "tutor": Template(
        _turns(system="\n\nSystem: {}", user="\n\nStudent: {}", opening="\n\nTutorbot:", answer=" {}<eos>"),
        stop_strings=("\n\nStudent:",),
    ),
    "plain": Template(_turns(system="{}", user="{}", opening="", answer="{}<eos>", strip=False)),
}
