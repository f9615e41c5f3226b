"""The page of --help: options under titles; the short page shows those that are changed most, --help all every one."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.arguments.declarations import Help

MANY = 30  # options of a program whose short page shows some of them only: a page is to fit 60 lines
WIDEST = 120  # columns; longer lines are hard to read
LEFT = 34  # columns of flags before their texts: the longest flag of training fits
LONGEST_CHOICES = 24  # characters of choices that are shown beside the flag
TYPES = {int: "N", float: "X"}
GENERAL = "General"


@dataclass
class Entry:
    """One option as the page shows it."""

    title: str
    flags: list[str]
    value: str  # what follows the flag: N, X, TEXT, a|b
    text: str
    default: str
    first: bool  # shown by the short page
    required: bool
    own: bool  # of the program itself, not of a group that programs share
    modes: list[str] = field(default_factory=list)  # of those that have the option; none: the program has no modes

    def line(self, every: bool, width: int) -> list[str]:
        """Return the lines of the option, in short or with `every` flag and part of its text."""
        flags = self.flags if every else self.flags[:1]
        left = "  " + " ".join(filter(None, (", ".join(flags), self.value)))
        text = f"{self.text} (default: {self.default})" if every else f"{self.text.split('; ')[0]} ({self.default})"
        text = text.replace("(default: required)", "(required)")
        texts = textwrap.wrap(text, width - LEFT, break_long_words=False, break_on_hyphens=False)
        if len(left) >= LEFT:
            texts.insert(0, left)
        else:
            texts[0] = left.ljust(LEFT) + texts[0]
        return [texts[0], *(" " * LEFT + text for text in texts[1:])]


def entries(parser: argparse.ArgumentParser, groups: Sequence[type], hidden: set[str]) -> list[Entry]:
    """Return the options of a parser in their order.

    Args:
        parser: made of `groups`
        groups: dataclasses of options. The class variable `AT_THE_TOP` says that the titles of one come before those of
            groups without it
        hidden: flags that the program refuses
    """
    own = {f.name for group in groups if getattr(group, "AT_THE_TOP", False) for f in dataclasses.fields(group)}
    found: dict[str, Entry] = {}
    title = ""
    for action in parser._actions:
        flags = [flag for flag in action.option_strings if "-" not in flag[2:]]
        if flags[0] in hidden:
            continue
        if action.dest in found:  # --no_NAME of an option that is on by default
            found[action.dest].flags += flags
            continue
        text = action.help if isinstance(action.help, Help) else Help(action.help, GENERAL, False, None)
        title = text.title or title
        for name, choices in text.only.items() if not text.title else ():
            here = f"Only with --{name} {' or '.join(filter(None, choices))}"
            break
        else:
            here = title
        words, _, meaning = text.partition("; None: ")
        found[action.dest] = Entry(
            here, flags, _value(action), words, _default(action, meaning), text.first, action.required,
            own=action.dest in own,
        )  # fmt: skip
    return list(found.values())


def _value(action: argparse.Action) -> str:
    if action.const is True:
        return ""
    choices = "|".join(map(str, action.choices or ()))
    value = action.metavar or TYPES.get(action.type, "TEXT")
    if action.choices and len(choices) <= LONGEST_CHOICES:
        value = choices
    return f"{value} ..." if action.nargs == "+" else value


def _default(action: argparse.Action, meaning: str) -> str:
    """Return what holds where an option is not given, `meaning` if its default is empty."""
    value: Any = action.default
    if action.required:
        return "required"
    if value in (None, "", []):
        return meaning or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def of_modes(pages: dict[str, list[Entry]], flag: str | None) -> list[Entry]:
    """Return the options of all modes of a program, one that several modes have once, with the modes that have it.

    Args:
        pages: options of each mode
        flag: the option that names the mode; None: a word without a flag names it
    """
    merged: list[Entry] = []
    for mode, page in pages.items():
        for entry in page:
            if entry.flags[0] == flag:
                entry.default, entry.required = "required", True
            same = [known for known in merged if dataclasses.replace(known, modes=[]) == entry]
            if not same:
                merged.append(dataclasses.replace(entry, modes=[]))
            (same or merged)[-1].modes.append(mode)
    for entry in merged:
        if len(entry.modes) < len(pages):
            entry.title += f" ({', '.join(entry.modes)})"
    return sorted(merged, key=lambda entry: -len(entry.modes))


def page(shown: Sequence[Entry], usage: str, description: str, epilog: str, every: bool) -> str:
    """Return the text of --help.

    Args:
        shown: the program's options
        usage: what follows the program's name
        description: the program's docstring; the first lines of the page
        epilog: the last lines of the page
        every: whether all options are shown, with all their flags and the whole of their texts
    """
    width = min(WIDEST, shutil.get_terminal_size().columns)
    some = [entry for entry in shown if every or len(shown) <= MANY or entry.first]
    name = Path(sys.argv[0]).name
    lines = [f"usage: python {name} {usage}", "", *_description(description, width)]
    for title, of_title in _titled(shown):
        options = [line for entry in of_title if entry in some for line in entry.line(every, width)]
        if options:
            lines += ["", title, *options] if every and lines[-1] else [title, *options]
    hint = f"In parentheses: the default. {len(shown)} options, every one in full: --help all"
    return "\n".join([*lines, "", *([epilog] if epilog else []), *([] if every else [hint])]).rstrip() + "\n"


def _titled(shown: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Yield titles with their options, what people change most first: titles with a required option, then the program's
    own, at the end the general one."""
    titles: dict[str, list[Entry]] = {}
    for entry in shown:
        titles.setdefault(entry.title, []).append(entry)

    def place(title: str) -> int:
        if title == GENERAL:
            return 3
        if any(entry.required for entry in titles[title]):
            return 0
        return 1 if titles[title][0].own else 2

    for title in sorted(titles, key=place):
        some = len(shown) > MANY  # else the short page has them all, in the order of their declaration
        yield title, sorted(titles[title], key=lambda entry: (not entry.required, some and not entry.first))


def _description(text: str, width: int) -> Iterator[str]:
    """Yield the paragraphs of a docstring, filled to `width`, but for commands and tables, which stay as they are."""
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        as_it_is = any(line.startswith(" ") or "  " in line for line in lines)
        yield from lines if as_it_is else textwrap.wrap(" ".join(lines), width)
        yield ""
