"""Options: dataclass groups in, checked objects out, through transformers.HfArgumentParser.

    model_args, data_args = parse([ModelArguments, DataArguments], argv, description=__doc__)

A flag is declared once, as a field (utils/arguments/declarations.py). Unknown, abbreviated and repeated flags are
errors; `--config FILE.yaml` gives values that flags override, and flags after a lone `--` override those before it (a
run_*.sh's by its command line's). A group's class variable `REFUSED` maps names of options to the reason why the
program does not take them: options that were removed, and options of a shared group that have no effect in it.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from utils.arguments.declarations import GENERAL, Help
from utils.errors import UserError

HELP = {"--help", "-h"}


class _Parser(HfArgumentParser):
    """argparse with its errors as UserErrors, one line each."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}; --help all lists every option")


def parse(groups: list[type], argv: list[str] | None = None, description: str = "", epilog: str = "") -> list[Any]:
    """Return one object for each group, from the words of a command line.

    Args:
        groups: dataclasses of options
        argv: words; None: those of the command line
        description: the program's docstring, the first lines of --help
        epilog: the last lines of --help
    Returns:
        an object of each group, in their order
    Raises:
        UserError: a word cannot be read or a value is refused
        SystemExit: --help was given, and its page is printed
    """
    argv = _words(argv)
    if HELP & set(argv):
        _show(_entries(groups), argv, "[options]", description, epilog)
    parser, refused = _parser(groups), _refused(groups)
    one_name = {
        _flag(flag): _flag(action.option_strings[0]) for action in parser._actions for flag in action.option_strings
    }
    known = set(filter(None, one_name)) - refused.keys()
    argv = _override(argv, one_name)
    for word in argv:
        if _flag(word) and _flag(word) not in known:
            raise UserError(_unknown(word, known, refused))
    config, argv = _read_config(argv, known, refused)
    namespace, rest = parser.parse_known_args(config + argv)
    if rest:
        raise UserError(_unknown(rest[0], known, refused))
    values = vars(namespace)
    return [group(**{f.name: values[f.name] for f in fields(group) if f.name in values}) for group in groups]


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
    argv = _words(argv)
    mode = _mode(argv, flag)
    chosen = {name: group for name, group in modes.items() if name == mode}
    if HELP & set(argv):
        # with a mode its options alone, else those of all modes
        pages = {name: _entries([group]) for name, group in (chosen or modes).items()}
        named = "".join(chosen) or "MODE"
        _show(_layout().of_modes(pages, flag), argv, " ".join(filter(None, (flag, named, "[options]"))), description)
    if not mode:
        raise UserError(f"{flag or 'the mode'} is missing; expected one of {', '.join(modes)}")
    if not chosen:
        raise UserError(f"{flag or 'mode'} {mode}: no such mode; expected one of {', '.join(modes)}")
    mine, before = _flags(modes[mode]), f"{flag or ''} ".lstrip()
    for word in filter(None, map(_flag, argv)):
        others = [other for other, group in modes.items() if word in _flags(group)]
        if word not in mine and others:
            raise UserError(f"{word} is used by {before}{' and '.join(others)}, not by {before}{mode}; leave it out")
    if flag is None:
        del argv[0]
    (args,) = parse([modes[mode]], argv, description)
    return mode, args


def _words(argv: list[str] | None) -> list[str]:
    """Return a copy of the words, of the command line's if there are none."""
    return list(sys.argv[1:] if argv is None else argv)


def _mode(argv: list[str], flag: str | None) -> str:
    """Return the word that names the mode, after `flag` or the first one; empty: no word does."""
    if flag is None:
        named = [word for word in argv[:1] if not word.startswith("-")]
    else:
        words = [part for word in argv for part in word.split("=", 1)]
        named = words[words.index(flag) + 1 :] if flag in words else []
    return "".join(named[:1])


def _parser(groups: list[type]) -> _Parser:
    parser = _Parser(groups, allow_abbrev=False, add_help=False)
    config = Help.placed("values for any of these options; flags override them", title=GENERAL)
    parser.add_argument("--config", metavar="FILE.yaml", help=config)
    rank = Help.placed("number of the process on its machine; set by launchers", title=GENERAL)
    parser.add_argument("--local_rank", "--local-rank", type=int, default=-1, help=rank)
    return parser


def _layout() -> Any:
    """Import the layout of --help's pages, which only a program that is asked for them needs."""
    return importlib.import_module("utils.arguments.help")


def _entries(groups: list[type]) -> list[Any]:
    return _layout().entries(_parser(groups), groups, set(_refused(groups)))


def _show(shown: Sequence[Any], argv: list[str], usage: str, description: str, epilog: str = "") -> None:
    """Print the page of --help, or of --help all, and end the program."""
    at = min(argv.index(word) for word in HELP & set(argv))
    sys.stdout.write(_layout().page(shown, usage, description, epilog, every=argv[at + 1 : at + 2] == ["all"]))
    raise SystemExit(0)


def _refused(groups: list[type]) -> dict[str, str]:
    """Return the reason for each flag that the groups do not take."""
    return {f"--{name}": why for group in groups for name, why in getattr(group, "REFUSED", {}).items()}


def _flags(group: type) -> set[str]:
    return {flag for f in fields(group) for flag in (f"--{f.name}", *f.metadata.get("aliases", []))}


def _flag(word: str) -> str | None:
    """Return the flag that a word of the command line names, in its underscore spelling; None for a value."""
    if not word.startswith("--") or len(word) == 2:
        return None
    return "--" + word[2:].split("=")[0].replace("-", "_")


def _refuse_repeats(argv: list[str], one_name: dict[str | None, str | None]) -> None:
    seen = set()
    for flag in filter(None, map(_flag, argv)):
        name = one_name.get(flag, flag)  # two names of one option are one option
        if name in seen:
            raise UserError(f"{flag} is given twice; give it once (a list takes its values after one flag)")
        seen.add(name)


def _override(argv: list[str], one_name: dict[str | None, str | None]) -> list[str]:
    """Return `A -- B` with the flags of B in place of A's. A flag given twice within A or B is an error."""
    at = [*argv, "--"].index("--")
    base, over = argv[:at], argv[at + 1 :]
    _refuse_repeats(base, one_name)
    _refuse_repeats(over, one_name)
    replaced = {one_name.get(flag, flag) for flag in filter(None, map(_flag, over))}
    kept, keeping = [], True
    for word in base:
        flag = _flag(word)
        if flag is not None:
            keeping = one_name.get(flag, flag) not in replaced
        if keeping:
            kept.append(word)
    return kept + over


def _unknown(word: str, known: set[str], refused: dict[str, str]) -> str:
    """Return why a word is not taken, with the remedy."""
    flag = _flag(word)
    if flag is None:
        return f"{word!r} belongs to no option; --help all lists every option"
    if flag in refused:
        return f"{flag} {refused[flag]}"
    longer = sorted(name for name in known if name.startswith(flag))
    close = longer or difflib.get_close_matches(flag, known, n=1, cutoff=0.7)
    if close:
        return f"unknown option {flag}; did you mean {close[0]}?"
    return f"unknown option {flag}; --help all lists every option"


def _read_config(argv: list[str], known: set[str], refused: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return the values of --config's file as flags, and the words without --config."""
    words = [i for i, word in enumerate(argv) if _flag(word) == "--config"]
    if not words:
        return [], argv
    at = words[0]
    if "=" in argv[at]:
        path, rest = argv[at].split("=", 1)[1], argv[:at] + argv[at + 1 :]
    else:
        path, rest = "".join(argv[at + 1 : at + 2]), argv[:at] + argv[at + 2 :]
    given = set(filter(None, map(_flag, rest)))
    flags: list[str] = []
    for name, value in _load_yaml(path).items():
        flag = "--" + str(name).replace("-", "_")
        if flag not in known:
            raise UserError(f"{path}: {_unknown(flag, known, refused)}")
        if flag not in given and value is not None:
            flags += [flag, *map(str, value if isinstance(value, list) else [value])]
    return flags, rest


def _load_yaml(path: str) -> dict[str, Any]:
    import yaml

    if not Path(path).is_file():
        raise UserError(f"--config {path!r}: no such file")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: found a {type(values).__name__}; expected `option: value` lines")
    return values
