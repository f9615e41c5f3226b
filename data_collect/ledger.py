"""Show the contents of a ledger of feedback (counts, tokens and money; rows), or parse its answers again.

    python data_collect/ledger.py report --ledger feedback.ledger --json report.json
    python data_collect/ledger.py list --ledger feedback.ledger --state unparsed
    python data_collect/ledger.py reparse --ledger feedback.ledger

report    counts of requests asked, answered, refused, failed, possibly billed; tokens and money; by model and parser
list      the questions in one state, a line each; with --json whole, as JSON Lines
reparse   parse every stored answer with the present parsers, at no cost
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments.modes import parse_mode
from utils.arguments.options import option, overwriting, required
from utils.errors import UserError
from utils.llm.asking import dollars
from utils.llm.ledger import ROW_STATES, Ledger
from utils.outputs import claim
from utils.parsing import PARSERS
from utils.records.files import write_jsonl
from utils.reporting import run_program, say, write_json

WIDTH = 60  # characters of an answer in a list
COUNTS = (
    "requests", "asked", "answered", "refused", "failed", "planned", "sent", "unparsed", "retries", "possibly_billed",
)  # fmt: skip


@dataclass
class LedgerReportArguments:
    ledger: str = required("file of the ledger")
    json: str | None = option(help="JSON file for the same")
    overwrite: bool = overwriting()


@dataclass
class ListArguments:
    ledger: str = required("file of the ledger")
    state: str = option("unparsed", help=f"state of the rows to list; one of {', '.join(ROW_STATES)}")
    json: str | None = option(help="JSON Lines file for the whole rows")
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        if self.state not in ROW_STATES:
            raise UserError(f"--state is {self.state!r}; expected one of {', '.join(ROW_STATES)}")


@dataclass
class ReparseArguments:
    ledger: str = required("file of the ledger")


def main(argv: list[str] | None = None) -> None:
    """Run one of MODES."""
    mode, args = parse_mode({name: group for name, (group, _) in MODES.items()}, argv, __doc__)
    group, run = MODES[mode]
    if group is not ReparseArguments:
        claim("ledger.py", {"--json": args.json}, reads=[args.ledger], overwrite=args.overwrite)
    # A mistyped path must not become a new, empty ledger.
    with Ledger(args.ledger, create=False) as ledger:
        run(ledger, args)


def report(ledger: Ledger, args: LedgerReportArguments) -> None:
    """Print counts, tokens and money."""
    found = ledger.report()
    say(f"{ledger.path}: {_line(found)}")
    for model, numbers in found["models"].items():
        say(f"  {model}: {_line(numbers)}")
    for parser, numbers in found["parsers"].items():
        versions = ", ".join(map(str, numbers["versions"])) or "none"
        line = f"  parser {parser} (version {versions}): {_named(numbers, ['parsed', 'unparsed', 'unread'])}"
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in numbers["reasons"].items())
        if reasons:
            line += f" ({reasons})"
        say(line)
    for trouble, number in found["troubles"].items():
        say(f"  {number:,} attempts: {trouble}")
    if args.json:
        write_json(Path(args.json), found)


def _line(numbers: dict[str, Any]) -> str:
    """Return counts, tokens and money as one line."""
    # asked = answered + refused + failed + planned or sent again; attempts = asked + retries.
    money = dollars(numbers["usd"])
    if numbers["possibly_billed"]:
        money += f" (and at most {dollars(numbers['possibly_billed_usd'])} for what was possibly billed)"
    counts = _named(numbers, COUNTS)
    return f"{counts}; {numbers['input_tokens']:,} tokens in, {numbers['output_tokens']:,} out, {money}"


def _named(numbers: dict[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{numbers[name]:,} {name.replace('_', ' ')}" for name in names)


def list_rows(ledger: Ledger, args: ListArguments) -> None:
    """Print or write the questions in one state."""
    if args.json:
        say(f"{args.json}: {write_jsonl(Path(args.json), ledger.rows(args.state))} rows")
        return
    for row in ledger.rows(args.state):
        text = " ".join((row["text"] or "").split())
        if len(text) > WIDTH:
            text = f"{text[:WIDTH]}…"
        say(f"{row['key'][:12]}  {row['model']}  {row['parser']}  {row['reason'] or ''}  {text}")


def reparse(ledger: Ledger, args: ReparseArguments) -> None:
    """Parse every stored answer again."""
    counts = ledger.reparse(PARSERS)
    unknown = ""
    if counts["parser unknown"]:
        unknown = f"; {counts['parser unknown']:,} have an unknown parser"
    say(f"{ledger.path}: {counts['read']:,} answers read again: {counts['parsed']:,} parsed, {counts['unparsed']:,} "
        f"unparsed, {counts['changed']:,} changed{unknown}")  # fmt: skip


MODES = {
    "report": (LedgerReportArguments, report),
    "list": (ListArguments, list_rows),
    "reparse": (ReparseArguments, reparse),
}

if __name__ == "__main__":
    run_program(main)
