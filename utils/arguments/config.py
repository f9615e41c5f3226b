"""--config FILE.yaml: values of options, which flags override."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from utils.arguments import flag_of, why_unknown
from utils.errors import UserError


def put_in(argv: list[str], known: set[str], refused: dict[str, str]) -> list[str]:
    """Return the words of a command line with the values of --config's file in its place, as flags in front. Raises
    UserError.

    Args:
        argv: the words; --config is one of them
        known: every flag of the program
        refused: flags that it does not take, and why
    """
    at = list(map(flag_of, argv)).index("--config")
    if "=" in argv[at]:
        path, rest = argv[at].split("=", 1)[1], argv[:at] + argv[at + 1 :]
    else:
        path, rest = "".join(argv[at + 1 : at + 2]), argv[:at] + argv[at + 2 :]
    given = set(filter(None, map(flag_of, rest)))
    flags: list[str] = []
    for name, value in _load_yaml(path).items():
        flag = "--" + str(name).replace("-", "_")
        if flag not in known:
            raise UserError(f"{path}: {why_unknown(flag, known, refused)}")
        if flag not in given and value is not None:
            flags += [flag, *map(str, value if isinstance(value, list) else [value])]
    return flags + rest


def _load_yaml(path: str) -> dict[str, Any]:
    if not Path(path).is_file():
        raise UserError(f"--config {path!r}: no such file")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: found a {type(values).__name__}; expected `option: value` lines")
    return values
