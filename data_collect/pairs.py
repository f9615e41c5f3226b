"""Make sets of pairs to train on from feedback.

    python data_collect/pairs.py --data_path feedback.jsonl --output_dir data_collect/data/feedback/sets --stats
    python data_collect/pairs.py --data_path feedback.jsonl --critique_path critique.jsonl
    python data_collect/pairs.py --data_path feedback.jsonl improved.jsonl --output_dir sets --form lines

Verdicts, ratings, ranks, thumbs, critiques and refinements each imply that one answer is better than another. A
critique does so once its answer has been rewritten: the second command writes the prompts for that,
inference/chatbot.py --mode generate answers it, and the third reads the answers. A prompt goes to train.jsonl or to
valid.jsonl, never to both.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments import parse
from utils.arguments.options import BELOW_ONE, expect, option, overwriting, required
from utils.errors import UserError
from utils.feedback.forms import FORMS, MATERIAL, NOUNS
from utils.feedback.pairs import KINDS, PAIRS, WAITING, Collected, collect, divided, measured, prompt_key, rows
from utils.feedback.pairs.sets import without_duplicates, without_prompts
from utils.feedback.prompts import TASKS, PromptTemplates, conversation_text, material
from utils.outputs import claim, is_own, remove
from utils.raw_datasets.reader import USED, Reader
from utils.raw_datasets.sources import open_source
from utils.raw_datasets.spec import Spec
from utils.records import Answer, Record
from utils.records.files import write_jsonl
from utils.reporting import progress, run_program, say, warn, write_json
from utils.tables import aligned


@dataclass
class PairsArguments:
    data_path: list[str] = required(
        "feedback, each [CLASS:]PATH (docs/data.md); of a folder with a test split the training split is read",
        title="Files",
    )
    output_dir: str | None = option(help="folder for train.jsonl, valid.jsonl and stats.json")
    critique_path: str | None = option(help="file for the requests to rewrite the answers that were criticised")
    form: Literal["pairs", "sets", "lines"] = option(
        "pairs",
        help="form of a row; pairs: a record of two answers; sets: a record a prompt; lines: prompt, chosen, reject",
    )
    kinds: list[str] = option(list(KINDS), help="kinds of feedback to use", title="Pairs")
    min_gap: float = option(1.0, help="smallest gap of two ratings that makes a pair, in units of the rating")
    valid_share: float = option(0.1, help="share of the prompts for valid.jsonl")
    test_path: list[str] = option([], help="test sets; pairs of their prompts are left out")
    on_bad_row: Literal["error", "skip"] = option(
        "error", help="a row that cannot be read stops the program, or is left out"
    )
    stats: bool = option(
        False,
        help="measure lengths, length bias, wins by model, conflicts, cycles; to stats.json as well",
        title="Files",
    )
    overwrite: bool = overwriting()
    seed: int = option(42, help="seed of the division into training and validation", title="Pairs")

    def __post_init__(self) -> None:
        expect(self, "above 0", "min_gap")
        expect(self, BELOW_ONE, "valid_share")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise UserError(f"--kinds {' '.join(unknown)}: expected some of {', '.join(KINDS)}")
        if not (self.output_dir or self.critique_path):
            raise UserError("nothing is written: give --output_dir, --critique_path or both")
        if self.stats and not self.output_dir:
            raise UserError("--stats measures the sets of --output_dir; give one")


def main(argv: list[str] | None = None) -> None:
    """Write sets of pairs, or the prompts that rewrite criticised answers."""
    (args,) = parse([PairsArguments], argv, description=__doc__)
    files = []
    if args.output_dir:
        files.append(Path(args.output_dir, "train.jsonl"))
        if args.valid_share > 0:
            files.append(Path(args.output_dir, "valid.jsonl"))
        if args.stats:
            files.append(Path(args.output_dir, "stats.json"))
    outputs = {"--output_dir": files, "--critique_path": args.critique_path}
    reads = [Spec.of(path).path for path in (*args.data_path, *args.test_path)]
    # Data beside a model would be taken for a part of it.
    if args.output_dir and Path(args.output_dir, "config.json").exists():
        raise UserError(f"--output_dir {args.output_dir} holds a model; give the data a folder of its own")
    claim("pairs.py", outputs, reads=reads, overwrite=args.overwrite)
    with progress("reading feedback", None) as advance:
        found = collect(_records(args.data_path, args.on_bad_row, advance), args.kinds, args.min_gap)
    _say_what_became(found)
    if args.critique_path:
        _write_critiques(found, args)
    if args.output_dir:
        _write_sets(found, args)


def _records(paths: list[str], on_bad_row: str, advance: Any) -> Iterator[Record]:
    for path in paths:
        spec = Spec.of(path)
        source = open_source(spec.path)
        # Of a set with a test split only the training split is read.
        reader = Reader(spec, source, test=not source.has_train, renamed={}, on_bad_row=on_bad_row)
        reader.open()
        for record in reader.records():
            reader.tally[USED] += 1
            advance()
            yield record
        for note in reader.notes():
            say(note)


def _say_what_became(found: Collected) -> None:
    """Print a table of the kinds of feedback by what became of them."""
    whats, present = {PAIRS: None}, set()
    for (kind, what), count in found.tally.items():
        whats[what] = None
        if count:
            present.add(kind)
    kinds = [kind for kind in KINDS if kind in present]
    rows_shown = []
    for what in whats:
        rows_shown.append([what, *(found.tally[kind, what] for kind in kinds)])
    say(aligned(["", *kinds], rows_shown))


def _write_critiques(found: Collected, args: PairsArguments) -> None:
    if not found.waiting:
        raise UserError(f"--critique_path {args.critique_path}: no critique waits for its answer to be rewritten")
    prompts = PromptTemplates([], MATERIAL)
    write_jsonl(Path(args.critique_path), [_request(prompts, record, answer) for record, answer in found.waiting])
    say(f"{args.critique_path}: {len(found.waiting)} answers to rewrite")


def _request(prompts: PromptTemplates, record: Record, answer: Answer) -> dict[str, Any]:
    """Return a row for chatbot.py: the prompt, and the answer that the model's answer will improve."""
    task = TASKS.get(record.meta.get("task"), "dialogue")
    request = prompts.of("improve", task).messages(
        conversation=conversation_text(record.prompt),
        answer=material(answer.text),
        comment=material(answer.critique),
        reply=FORMS["improve"].reply(structured=False, noun=NOUNS[task]),
    )
    # The answer comes back with these columns, from which the pair is made.
    origin = [{"role": message.role, "content": message.content} for message in record.prompt]
    known = {"reject": answer.text, "critique": answer.critique, "model": answer.model}
    return {**record.meta, "prompt": request, "origin_prompt": origin, **known}


def _write_sets(found: Collected, args: PairsArguments) -> None:
    if found.tally["critique", WAITING] and not args.critique_path:
        warn(f"{found.tally['critique', WAITING]} critiques wait for their answers to be rewritten: request.py --kind "
             f"improve asks a model to, --critique_path writes what a model of your own is asked")  # fmt: skip
    # A pair that comes twice would count twice in the loss.
    pairs = without_duplicates(found.pairs)
    tested = {prompt_key(record.prompt) for record in _records(args.test_path, args.on_bad_row, lambda: None)}
    kept = without_prompts(pairs, tested)
    duplicates, of_test_prompts = len(found.pairs) - len(pairs), len(pairs) - len(kept)
    say(f"{len(found.pairs)} pairs; left out: {duplicates} duplicates, {of_test_prompts} of test prompts")
    if not kept:
        raise UserError(
            f"{', '.join(args.data_path)}: no pair is left (above: what became of each kind); a pair "
            "needs two answers and which is better, as the columns prompt, chosen, rejected give them"
        )
    train, valid = divided(kept, args.valid_share, args.seed)
    say(f"{len(train)} pairs to train on, {len(valid)} for validation")
    folder = Path(args.output_dir)
    for file, part in ((folder / "train.jsonl", train), (folder / "valid.jsonl", valid)):
        if part:
            write_jsonl(file, rows(part, args.form))
            continue
        warn(f"{file} would be empty and is not written")
        # An earlier file is of another division: its prompts may be among those of train.jsonl now.
        if is_own("pairs.py", file):
            remove(file)
    if args.stats:
        feedback: dict[str, dict[str, int]] = {kind: {} for kind in args.kinds}
        for (kind, what), count in found.tally.items():
            feedback[kind][what] = count
        stats = {
            "duplicates": duplicates,
            "of_test_prompts": of_test_prompts,
            "train": len(train),
            "valid": len(valid),
            "feedback": feedback,
            **measured(kept, found.pairs),
        }
        write_json(folder / "stats.json", stats)
        _say_stats(stats)
    elif is_own("pairs.py", folder / "stats.json"):
        # It would describe the sets that were replaced.
        remove(folder / "stats.json")


def _say_stats(stats: dict[str, Any]) -> None:
    words = stats["words"]
    header = ["words", *words["prompt"]]
    say(aligned(header, [[name, *spread.values()] for name, spread in words.items()]))
    length, cycles, conflicts = stats["length"], stats["cycles"], stats["conflicts"]
    longer, gap = length["chosen_longer"], length["difference"]
    say(f"chosen is longer: {_interval(longer)} of {longer['n']}, {length['same_length']} pairs of one length; "
        f"chosen minus rejected: {_interval(gap)} words")  # fmt: skip
    if stats["models"]:
        lines = []
        for model, counts in stats["models"].items():
            lines.append([model, counts["won"], counts["lost"], _interval(counts["share"])])
        say(aligned(["model", "won", "lost", "share won"], lines))
    say(f"{conflicts['pairs']} pairs of answers with both preferences, in {conflicts['prompts']} prompts; "
        f"{cycles['prompts']} prompts whose preferences go in a circle")  # fmt: skip


def _interval(estimate: dict[str, float | None]) -> str:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return "-"
    if low is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    run_program(main)
