"""How an option is declared: a field of a dataclass with its default, its help, its place in --help and its range."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from utils.errors import UserError

GENERAL = "General"  # title of the options that every program has


class Help(str):
    """Help text of an option, with its place in --help and the choices that the option is for (see `option`)."""

    title: str | None = None
    first: bool = False
    only: dict[str, tuple] = {}

    @classmethod
    def placed(cls, text: str, *, title: str | None, first: bool = False, only: dict | None = None) -> Help:
        """Return the text with its place.

        Args:
            text: what the option does.
            title, first, only: as `option` takes them.
        """
        self = cls(text)
        self.title, self.first, self.only = title, first, only or {}
        return self


def option(
    default: Any = None,
    *,
    help: str,
    aliases: list[str] | None = None,
    title: str | None = None,
    first: bool = False,
    only: dict[str, tuple] | None = None,
) -> Any:
    """Return the dataclass field of an option.

    Args:
        default: value of an option that is not given; a list is copied for each object
        help: what the option does. The short --help ends it at the first `;`. A last part `; None: WORDS` says in
            words what holds where the option is not given
        aliases: further flags of the option
        title: heading in --help of this option and of those below it in the class
        first: whether the short --help of a program with many options shows it
        only: other options with the choices that this one is for, as {"kind": ("rating",)}. Without a title it is
            shown under a heading of that choice; `refuse_other_choices` (choices.py) refuses it with another one
    Returns:
        the field, for HfArgumentParser
    """
    facts: dict[str, Any] = {"help": Help.placed(help, title=title, first=first, only=only)}
    if aliases:
        facts["aliases"] = aliases
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=facts)
    return dataclasses.field(default=default, metadata=facts)


def required(help: str, *, aliases: list[str] | None = None, title: str | None = None) -> Any:
    """Return the field of an option that must be given; the parameters are those of `option`."""
    return dataclasses.field(metadata=option(help=help, aliases=aliases, title=title, first=True).metadata)


def overwriting(
    help: str = "replace files that it did not write; also files that were changed since",
    *,
    title: str | None = None,
) -> Any:
    """Return the field of the option --overwrite."""
    return option(False, help=help, title=title, first=True)


NOT_NEGATIVE, BELOW_ONE = "0 or more", "0 or more and below 1"
RANGES = {
    NOT_NEGATIVE: lambda x: 0 <= x < math.inf,
    BELOW_ONE: lambda x: 0 <= x < 1,
    "1 or more": lambda x: 1 <= x < math.inf,
    "above 0": lambda x: 0 < x < math.inf,
    "above 0 and at most 1": lambda x: 0 < x <= 1,
    "0 to 1": lambda x: 0 <= x <= 1,
    "1 or more, or -1": lambda x: x >= 1 or x == -1,
}


def expect(group: Any, expected: str, *names: str) -> None:
    """Refuse options out of their range; None is not set, NaN is in no range.

    Args:
        group: object that holds the options
        expected: a name of RANGES
        names: options of the group
    Raises:
        UserError: an option is out of the range
    """
    for name in names:
        value = getattr(group, name)
        if value is not None and not RANGES[expected](value):
            raise UserError(f"--{name} is {value}; expected {expected}")
