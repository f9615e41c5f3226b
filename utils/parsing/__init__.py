"""Parsers of judges' replies: the strict form first, lenient forms second, never a guess.

    value = PARSERS["rating"].parse("Rating: 6/7", low=1, high=7)     # 6, or raises Unparsed("two ratings")

A value is a JSON value. A parser whose results change gets a higher version, and the ledger parses its stored replies
again for nothing. Another parser is a function `name(text, **arguments)` under @parser.
"""

from utils.parsing import letters, numbers, orders, texts  # noqa: F401 (they register)
from utils.parsing.base import PARSERS, Parser, Unparsed, parser

__all__ = ["PARSERS", "Parser", "Unparsed", "parser"]
