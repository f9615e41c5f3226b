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
from collections.abc import Sequence
from dataclasses import fields
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
    argv = words_of(argv)
    if HELP & set(argv):
        show_help(entries(groups), argv, "[options]", description, epilog)
    parser, refused = _parser(groups), _refused(groups)
    one_name = {
        flag_of(flag): flag_of(action.option_strings[0]) for action in parser._actions for flag in action.option_strings
    }
    known = set(filter(None, one_name)) - refused.keys()
    argv = _override(argv, one_name)
    for word in argv:
        if flag_of(word) and flag_of(word) not in known:
            raise UserError(why_unknown(word, known, refused))
    if any(flag_of(word) == "--config" for word in argv):
        argv = looked_up("config").put_in(argv, known, refused)
    namespace, rest = parser.parse_known_args(argv)
    if rest:
        raise UserError(why_unknown(rest[0], known, refused))
    values = vars(namespace)
    return [group(**{f.name: values[f.name] for f in fields(group) if f.name in values}) for group in groups]


def words_of(argv: list[str] | None) -> list[str]:
    """Return a copy of the words, of the command line's if there are none."""
    return list(sys.argv[1:] if argv is None else argv)


def _parser(groups: list[type]) -> _Parser:
    parser = _Parser(groups, allow_abbrev=False, add_help=False)
    config = Help.placed("values for any of these options; flags override them", title=GENERAL)
    parser.add_argument("--config", metavar="FILE.yaml", help=config)
    rank = Help.placed("number of the process on its machine; set by launchers", title=GENERAL)
    parser.add_argument("--local_rank", "--local-rank", type=int, default=-1, help=rank)
    return parser


def looked_up(option: str) -> Any:
    """Import the module here that has an option's name, for a program that is given the option."""
    return importlib.import_module(f"{__name__}.{option}")


def entries(groups: list[type]) -> list[Any]:
    """Return the options of the groups as --help lists them."""
    return looked_up("help").entries(_parser(groups), groups, set(_refused(groups)))


def show_help(shown: Sequence[Any], argv: list[str], usage: str, description: str, epilog: str = "") -> None:
    """Print the page of --help, or of --help all, and end the program.

    Args:
        shown: the options, as `entries` lists them
        argv: the words of the command line
        usage: what follows the program's name in the first line
        description: the program's docstring, the first lines
        epilog: the last lines
    """
    at = min(argv.index(word) for word in HELP & set(argv))
    sys.stdout.write(looked_up("help").page(shown, usage, description, epilog, every=argv[at + 1 : at + 2] == ["all"]))
    raise SystemExit(0)


def _refused(groups: list[type]) -> dict[str, str]:
    """Return the reason for each flag that the groups do not take."""
    return {f"--{name}": why for group in groups for name, why in getattr(group, "REFUSED", {}).items()}


def flag_of(word: str) -> str | None:
    """Return the flag that a word of the command line names, in its underscore spelling; None for a value."""
    if not word.startswith("--") or len(word) == 2:
        return None
    return "--" + word[2:].split("=")[0].replace("-", "_")


def _refuse_repeats(argv: list[str], one_name: dict[str | None, str | None]) -> None:
    seen = set()
    for flag in filter(None, map(flag_of, argv)):
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
    replaced = {one_name.get(flag, flag) for flag in filter(None, map(flag_of, over))}
    kept, keeping = [], True
    for word in base:
        flag = flag_of(word)
        if flag is not None:
            keeping = one_name.get(flag, flag) not in replaced
        if keeping:
            kept.append(word)
    return kept + over


def why_unknown(word: str, known: set[str], refused: dict[str, str]) -> str:
    """Return why a word is not taken, with the remedy."""
    flag = flag_of(word)
    if flag is None:
        return f"{word!r} belongs to no option; --help all lists every option"
    if flag in refused:
        return f"{flag} {refused[flag]}"
    longer = sorted(name for name in known if name.startswith(flag))
    close = longer or difflib.get_close_matches(flag, known, n=1, cutoff=0.7)
    if close:
        return f"unknown option {flag}; did you mean {close[0]}?"
    return f"unknown option {flag}; --help all lists every option"
