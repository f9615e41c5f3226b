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

from transformers.hf_argparser import string_to_bool

from utils.arguments.declarations import GENERAL, Help

# A short page is to fit 60 lines; with up to so many options it has room for all of them.
MANY = 30
WIDEST = 120  # columns; longer lines are hard to read
# Columns of flags before their texts: --per_device_train_batch_size, the longest flag that short pages show, fits.
LEFT = 34
LONGEST_CHOICES = 24  # characters of choices that the short page shows beside the flag
TYPES = {int: "N", float: "X", string_to_bool: "True|False"}


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

    def lines(self, every: bool, width: int) -> list[str]:
        """Return the lines of the option; without `every` in short, its first flag and the first part of its text."""
        flags, value, text, default = self.flags, self.value, self.text, f"default: {self.default}"
        if not every:
            flags, text, default = flags[:1], text.split("; ")[0], self.default
        if not every and len(value) > LONGEST_CHOICES:
            value = "NAME"
        if self.required:
            default = "required"
        left = "  " + " ".join(filter(None, (", ".join(flags), value)))
        right = textwrap.wrap(f"{text} ({default})", width - LEFT, break_long_words=False, break_on_hyphens=False)
        if len(left) >= LEFT:
            right.insert(0, "")
        return [left.ljust(LEFT * bool(right[0])) + right[0], *(" " * LEFT + line for line in right[1:])]


def entries(parser: argparse.ArgumentParser, groups: Sequence[type], hidden: set[str]) -> list[Entry]:
    """Return the options of a parser in their order.

    Args:
        parser: made of `groups`
        groups: dataclasses of options. The class variable `AT_THE_TOP` says that the titles of one come before those of
            groups without it
        hidden: flags that the program refuses
    Returns:
        an entry of each option
    """
    own = {f.name for group in groups if getattr(group, "AT_THE_TOP", False) for f in dataclasses.fields(group)}
    found: dict[str, Entry] = {}
    title = "Options"
    for action in parser._actions:
        # argparse also takes each flag with - for _
        flags = [flag for flag in action.option_strings if "-" not in flag[2:]]
        if action.dest in found:  # --no_NAME of an option that is on by default
            found[action.dest].flags += flags
        elif flags[0] not in hidden:
            title = action.help.title or title
            text, _, meaning = action.help.partition("; None: ")
            found[action.dest] = Entry(
                title=_title(action.help, title),
                flags=flags,
                value=_value(action),
                text=text,
                default=_default(action.default, meaning),
                first=action.help.first,
                required=action.required,
                own=action.dest in own,
            )
    return list(found.values())


def _title(help: Help, title: str) -> str:
    """Return the title of an option below others with a `title`."""
    for name, choices in help.only.items():
        if not help.title:
            return f"Only with --{name} {' or '.join(filter(None, choices))}"
    return title


def _value(action: argparse.Action) -> str:
    if action.const is True:
        return ""
    value = "|".join(map(str, action.choices or ())) or action.metavar or TYPES.get(action.type, "TEXT")
    if action.nargs == "+":
        value += " ..."
    return value


def _default(value: Any, meaning: str) -> str:
    """Return what holds where an option is not given, `meaning` if its default is empty."""
    if isinstance(value, bool):
        return ("off", "on")[value]
    if value in (None, "", []):
        return meaning or "none"
    if isinstance(value, list):
        return " ".join(_default(one, "") for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def of_modes(pages: dict[str, list[Entry]], flag: str | None) -> list[Entry]:
    """Return the options of all modes of a program, one that several modes have once, with the modes that have it.

    Args:
        pages: options of each mode
        flag: the option that names the mode; None: a word without a flag names it
    """
    merged: list[Entry] = []
    for mode, page in pages.items():
        for entry in page:
            if entry.flags[0] == flag:  # its default is the mode itself: one option, that must be given
                entry.default, entry.required = "", True
            same = [known for known in merged if dataclasses.replace(known, modes=[]) == entry]
            if not same:
                same = [dataclasses.replace(entry, modes=[])]
                merged += same
            same[0].modes.append(mode)
    for entry in merged:
        if len(entry.modes) < len(pages):
            entry.title += f" ({', '.join(entry.modes)})"
    # what all modes have comes first; sorted() keeps the order of the rest
    return sorted(merged, key=lambda entry: -len(entry.modes))


def page(shown: Sequence[Entry], usage: str, description: str, epilog: str, every: bool) -> str:
    """Return the text of --help.

    Args:
        shown: the program's options
        usage: what follows the program's name
        description: the program's docstring; the first lines of the page
        epilog: the last lines of the page
        every: whether all options are shown, with all their flags and the whole of their texts
    Returns:
        lines of at most `WIDEST` columns, filled to the width of the terminal
    """
    width = min(WIDEST, shutil.get_terminal_size().columns)
    lines = [f"usage: python {Path(sys.argv[0]).name} {usage}", "", *_description(description, width)]
    for title, options in _titled(shown):
        if not every and len(shown) > MANY:
            options = [entry for entry in options if entry.first]
        if every and lines[-1]:
            lines.append("")
        lines += [title] * bool(options)
        for entry in options:
            lines += entry.lines(every, width)
    lines.append("")
    if epilog:
        lines.append(epilog)
    if not every:
        lines.append(f"In parentheses: the default. {len(shown)} options, every one in full: --help all")
    return "\n".join(lines).rstrip() + "\n"


def _titled(shown: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Yield titles with their options, what people change most first: titles with a required option, then the program's
    own, at the end the general one."""
    titles: dict[str, list[Entry]] = {}
    for entry in shown:
        titles.setdefault(entry.title, []).append(entry)

    def place(title: str) -> tuple[bool, bool, bool]:
        required = any(entry.required for entry in titles[title])
        return title == GENERAL, not required, not titles[title][0].own

    some = len(shown) > MANY  # else the short page has them all, in the order of their declaration
    for title in sorted(titles, key=place):
        yield title, sorted(titles[title], key=lambda entry: (not entry.required, some and not entry.first))


def _description(text: str, width: int) -> Iterator[str]:
    """Yield the paragraphs of a docstring, filled to `width`, but for commands and tables, which stay as they are."""
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        # an indented line is a command; two spaces are the columns of a table
        if not any(line.startswith(" ") or "  " in line for line in lines):
            lines = textwrap.wrap(" ".join(lines), width)
        yield from lines
        yield ""
