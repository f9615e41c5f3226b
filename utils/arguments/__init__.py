"""Options: dataclass groups in, checked objects out, through transformers.HfArgumentParser.

    model_args, data_args = parse([ModelArguments, DataArguments], argv, description=__doc__)

A flag is declared once, as a field. Unknown, abbreviated and repeated flags are errors; `--config FILE.yaml` gives
values that flags override, and flags after a lone `--` override those before it (a run_*.sh's by its command line's).
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from utils.errors import UserError


class _Parser(HfArgumentParser):
    """argparse with its errors as UserErrors, one line each."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}; --help lists every option")


def parse(groups: list[type], argv: list[str] | None = None, description: str = "", epilog: str = "") -> list[Any]:
    """One object per group, from flags (default: the command line's); --help ends with `epilog`. Raises UserError."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(groups, description=description, epilog=epilog, allow_abbrev=False, formatter_class=_Help)
    parser.add_argument("--config", metavar="FILE.yaml", help="values for any of these options; flags override them")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=-1, help="set by launchers")
    known = {_flag(flag) for action in parser._actions for flag in action.option_strings if _flag(flag)}
    one_name = {
        _flag(flag): _flag(action.option_strings[0]) for action in parser._actions for flag in action.option_strings
    }
    argv = _override(argv, one_name)
    for word in argv:
        if _flag(word) and _flag(word) not in known:
            raise UserError(_unknown(word, known))
    config, argv = _read_config(argv, known)
    namespace, rest = parser.parse_known_args(config + argv)
    if rest:
        raise UserError(_unknown(rest[0], known))
    del namespace.config, namespace.local_rank
    return list(_fill(groups, vars(namespace)))


def _fill(groups: list[type], values: dict[str, Any]):
    for group in groups:
        yield group(**{name: values[name] for name in group.__dataclass_fields__ if name in values})


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


def _flag(word: str) -> str | None:
    """The flag that a word of the command line names, in its underscore spelling; None for a value."""
    return "--" + word[2:].split("=")[0].replace("-", "_") if word.startswith("--") and len(word) > 2 else None


def _refuse_repeats(argv: list[str], one_name: dict) -> None:
    seen = set()
    for flag in filter(None, map(_flag, argv)):
        name = one_name.get(flag, flag)  # two names of one option are one option
        if name in seen:
            raise UserError(f"{flag} is given twice; give it once (a list takes its values after one flag)")
        seen.add(name)


def _override(argv: list[str], one_name: dict) -> list[str]:
    """`A -- B`: the flags of B in place of A's. A flag given twice within A or B is an error."""
    at = argv.index("--") if "--" in argv else len(argv)
    base, over = argv[:at], argv[at + 1 :]
    _refuse_repeats(base, one_name)
    _refuse_repeats(over, one_name)
    replaced = {one_name.get(flag, flag) for flag in filter(None, map(_flag, over))}
    kept, keeping = [], True
    for word in base:
        keeping = one_name.get(_flag(word), _flag(word)) not in replaced if _flag(word) else keeping
        if keeping:
            kept.append(word)
    return kept + over


def _unknown(word: str, known: set[str]) -> str:
    flag = _flag(word)
    if flag is None:
        return f"{word!r} belongs to no option; --help lists every option"
    close = difflib.get_close_matches(flag, known, n=1, cutoff=0.5)
    longer = sorted(name for name in known if name.startswith(flag))
    suggestion = longer[0] if longer else close[0] if close else None
    return f"unknown option {flag}" + (f"; did you mean {suggestion}?" if suggestion else "; --help lists every option")


def _read_config(argv: list[str], known: set[str]) -> tuple[list[str], list[str]]:
    """(the file's values as flags, argv without --config)."""
    words = [i for i, word in enumerate(argv) if _flag(word) == "--config"]
    if not words:
        return [], argv
    at = words[0]
    inline = "=" in argv[at]
    path = argv[at].split("=", 1)[1] if inline else (argv[at + 1] if at + 1 < len(argv) else "")
    rest = argv[:at] + argv[at + (1 if inline else 2) :]
    given = set(filter(None, map(_flag, rest)))
    flags: list[str] = []
    for name, value in _load_yaml(path).items():
        flag = "--" + str(name).replace("-", "_")
        if flag not in known:
            raise UserError(f"{path}: {_unknown(flag, known)}")
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
