"""Tables of docs/numbers.md from the results of a GPU, between two markers. Those of a CPU are never written there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gpu.common import SIZES, read

from utils.errors import UserError
from utils.reporting import say

BEGIN, END = "<!-- gpu:begin -->", "<!-- gpu:end -->"
CHECKS = ("parity", "decoding", "stages", "resume")
SPEED = {
    "speed_sft": "SFT", "speed_reward": "reward model", "speed_dpo": "DPO", "speed_ppo": "PPO",
    "speed_generation": "64 answers to a prompt",
}  # fmt: skip
PEERS = {"generate": "`model.generate`", "generate_batch": "`generate_batch`", "vllm": "vLLM"}

Rows = dict[str, dict[str, dict[str, Any]]]  # part -> case -> what it found


def write(results: Path, document: Path) -> None:
    """Replace what is between the markers; without results of a GPU the document stays as it is."""
    found = {name: entry for name, entry in read(results).items() if entry["facts"]["device"] != "cpu"}
    if not found:
        say(f"{results} has no numbers of a GPU: {document} stays as it is")
        return
    text = document.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"{document}: expected one {BEGIN} and one {END}; put them where the tables belong")
    before, rest = text.split(BEGIN)
    partial = document.with_name(f".{document.name}.partial")
    partial.write_text(f"{before}{BEGIN}\n{tables(found)}{END}{rest.split(END)[1]}", encoding="utf-8")
    partial.replace(document)
    say(f"wrote {document}")


def tables(found: dict[str, Any]) -> str:
    rows = by_part(found)
    parts = [_facts(found), _checks(rows, found), _speed(rows), _training(rows), _generation(rows)]
    return "\n".join(part for part in parts if part)


def by_part(found: dict[str, Any]) -> Rows:
    """Cases of each part; where a part was run twice, the later run counts."""
    rows: Rows = {}
    for name, entry in found.items():
        rows.setdefault(name.split()[0], {}).update({row["case"]: row for row in entry["cases"]})
    return rows


def _facts(found: dict[str, Any]) -> str:
    """One line for each device and set of versions."""
    lines = []
    for entry in found.values():
        facts = entry["facts"]
        known = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
        where = f"{facts['device']}, CUDA {facts['cuda']}, driver {facts['driver']}"
        line = f"{where}; {known}; commit {facts['commit']}, {facts['date']}.\n"
        lines += [line] if line not in lines else []
    return "".join(lines)


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines) if len(lines) > 2 else ""


def _checks(rows: Rows, found: dict[str, Any]) -> str:
    body = []
    for part in CHECKS:
        if part in rows:
            cases = rows[part].values()
            failed = [row["case"] for row in cases if not row["ok"]]
            left_out = len(found[part]["left_out"]) if part in found else 0
            body.append((part, f"{len(cases) - len(failed)} of {len(cases)}", str(left_out), "; ".join(failed) or "–"))
    return _markdown(("check", "passed", "left out", "failed"), body)


def _speed(rows: Rows) -> str:
    sizes = [name for name in SIZES if any(name in rows.get(part, {}) for part in SPEED)]
    body = []
    for part, title in SPEED.items():
        cells = [_cell(rows[part].get(size)) for size in sizes] if part in rows else []
        body += [(title, *cells)] if cells else []
    return _markdown(("tokens/s, peak memory", *sizes), body)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    return f"{row['tokens_per_second']:,.0f}, {row['peak_gib']:.1f} GiB" if row["ok"] else "failed"


def _training(rows: Rows) -> str:
    body = []
    for part in ("peers_sft", "peers_reward", "peers_dpo"):
        for row in rows.get(part, {}).values():
            if "ratio" in row:
                memory = f"{row['peak_gib']:.1f} and {row['peak_gib_trl']:.1f} GiB"
                rates = (f"{row['ours']:,.1f} {row['unit']}", f"{row['theirs']:,.1f}")
                body.append((f"{row['case']}, {row['size']}", *rates, _ratio(row, "ratio"), memory))
    return _markdown(("a training step", "ours", "TRL", "ratio (least to most)", "peak memory, ours and TRL"), body)


def _generation(rows: Rows) -> str:
    body = []
    for row in rows.get("peers_generation", {}).values():
        for name, title in PEERS.items():
            if name in row:
                rates = (f"{row['ours']:,.0f}", f"{row[name]:,.0f}")
                body.append((row["case"], title, *rates, _ratio(row, f"{name}_ratio")))
            elif name in row.get("absent", {}):
                body.append((row["case"], title, f"{row['ours']:,.0f}", "–", row["absent"][name]))
    return _markdown(("generation, tokens/s", "peer", "ours", "peer's", "ratio (least to most)"), body)


def _ratio(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.2f} ({row[f'{name}_min']:.2f} to {row[f'{name}_max']:.2f})"
