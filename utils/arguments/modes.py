"""Programs with modes: the word after the program, or an option, says which; each mode has options of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from utils.arguments import HELP, entries, flag_of, looked_up, parse, show_help, words_of
from utils.errors import UserError


def parse_mode(
    modes: Mapping[str, type], argv: list[str] | None, description: str, *, flag: str | None = None
) -> tuple[str, Any]:
    """Return the mode of a program and its options.

    Args:
        modes: dataclass of the options of each mode
        argv: words; None: those of the command line
        description: the program's docstring, the first lines of --help
        flag: the option that names the mode, a field of every mode; None: the first word names it
    Returns:
        the mode and the object of its options
    Raises:
        UserError: there is no such mode, or an option of other modes only
        SystemExit: --help was given, and its page is printed
    """
    argv = words_of(argv)
    mode = _mode(argv, flag)
    chosen = {name: group for name, group in modes.items() if name == mode}
    if HELP & set(argv):
        # with a mode its options alone, else those of all modes
        pages = {name: entries([group]) for name, group in (chosen or modes).items()}
        named = "".join(chosen) or "MODE"
        usage = " ".join(filter(None, (flag, named, "[options]")))
        show_help(looked_up("help").of_modes(pages, flag), argv, usage, description)
    if not mode:
        raise UserError(f"{flag or 'the mode'} is missing; expected one of {', '.join(modes)}")
    if not chosen:
        raise UserError(f"{flag or 'mode'} {mode}: no such mode; expected one of {', '.join(modes)}")
    mine, before = _flags(modes[mode]), f"{flag or ''} ".lstrip()
    for word in filter(None, map(flag_of, argv)):
        others = [other for other, group in modes.items() if word in _flags(group)]
        if word not in mine and others:
            raise UserError(f"{word} is used by {before}{' and '.join(others)}, not by {before}{mode}; leave it out")
    if flag is None:
        del argv[0]
    (args,) = parse([modes[mode]], argv, description)
    return mode, args


def _mode(argv: list[str], flag: str | None) -> str:
    """Return the word that names the mode, after `flag` or the first one; empty: no word does."""
    if flag is None:
        named = [word for word in argv[:1] if not word.startswith("-")]
    else:
        words = [part for word in argv for part in word.split("=", 1)]
        named = words[words.index(flag) + 1 :] if flag in words else []
    return "".join(named[:1])


def _flags(group: type) -> set[str]:
    return {flag for f in fields(group) for flag in (f"--{f.name}", *f.metadata.get("aliases", []))}
