"""Feedback from a language model on prompts and answers, asked once and kept in a ledger.

    python data_collect/request.py --input_files group.txt --output_file feedbacks.txt \\
        --base_models vicuna-7b,vicuna-13b --api_type gpt4

Reads records, lines of prompt and outputs, or CSV files of instructions; asks for one --kind of feedback, or for that
of each row's feedback_type; and writes what it learned in the natural form (docs/feedback.md). The same command goes on
where it was stopped, and asks nothing twice.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments import parse
from utils.errors import UserError
from utils.evaluation.alpaca import write_leaderboard
from utils.feedback import KINDS, Asker, Case, PromptTemplates, follow, questions_of
from utils.feedback.answers import whole
from utils.feedback.asked_model import AskedModel, prices_file
from utils.feedback.cases import expect_questions
from utils.feedback.chosen import Cases, completions_wanted
from utils.feedback.forms import MATERIAL, scale_of
from utils.feedback.generators import generators_of, matched
from utils.feedback.options import LabelArguments, RequestArguments, RequestLimits
from utils.feedback.requests import SettledQuestions
from utils.feedback.results import check_output, write_results
from utils.feedback.rows import Choice, read_objectives, slice_of
from utils.feedback.summary import ResultsSummary
from utils.llm.asking import Outcome, Question, ask
from utils.llm.ledger import IN_MEMORY, Ledger
from utils.llm.providers import open_provider, with_own
from utils.outputs import claim
from utils.raw_datasets.spec import Spec, renaming
from utils.reporting import progress, run_program, say, warn

SOME_FAILED, LIMIT_REACHED = 3, 4
EXIT_CODES = """\
exit codes: 0 all is asked; 2 an error in what was given; 3 some requests failed, run the same command again;
4 --max_usd or --max_requests was reached before all was asked; 130 interrupted, 143 terminated (SIGTERM)"""


def main(argv: list[str] | None = None) -> int:
    """Ask for feedback, and return the exit code."""
    args, label, limits = parse([RequestArguments, LabelArguments, RequestLimits], argv, __doc__, epilog=EXIT_CODES)
    cases, output = cases_of(args, label), output_of(args, label)
    kept_in = args.ledger or f"{output}.ledger"
    own_prices = prices_file(args, kept_in)
    judge = AskedModel.of(args, with_own(own_prices))
    reads = [
        *(Spec.of(path).path for path in args.input_files),
        *args.prompt_file,
        args.objectives or "",
        args.base_url or "",
        own_prices or "",
        kept_in,
    ]
    if args.kind == "label":
        for generator in generators_of(label.names, args.input_files, label.base_dir):
            reads += generator.files
    leaderboard = leaderboard_beside(output, args)
    claim("request.py", {"--output_file": [output, *leaderboard]}, reads=reads, overwrite=args.overwrite)
    prompts, scale = PromptTemplates(map(Path, args.prompt_file), MATERIAL), scale_of(args.scale or "1,7")
    choices = {name: getattr(args, name) for name in ("orders", "listwise", "structured")}
    # A reply without a limit may cost anything.
    settings = judge.settings(args, bounded=limits.max_usd is not None)
    asker = Asker(judge.provider, judge.name, prompts, scale=scale, settings=settings, **choices)
    kinds = expect_questions(check_output(output, shown("rows", cases)), asker)
    provider = open_provider(
        judge.provider, args.base_url, asks=not limits.dry_run, key_env=args.api_key_env, prices=judge.prices
    )
    judge.announce(provider, limits)
    with open_ledger(kept_in, limits) as ledger:

        def outcome_of(question: Question) -> Outcome:
            return whole(question, ledger.outcome(question.request.key, question.parser, question.parser_args))

        held = SettledQuestions(ledger, outcome_of)
        if held.any:
            asker = replace(asker, settings=replace(settings, is_settled=held.has))
            judge.refuse_former_answers(cases, asker, held)
        # Questions that build on answers are asked in a further round.
        steps, stopped = max(KINDS[kind].steps for kind in kinds), None
        for _ in range(steps):
            asked = ask(questions_of(shown("questions", cases), asker, outcome_of), ledger, provider, limits)
            if limits.dry_run:
                if steps > 1:
                    say("not counted: the questions that build on these answers")
                return 0
            stopped = stopped or asked.stopped
        results = (follow(case, asker, outcome_of) for case in shown("results", cases))
        summary = ResultsSummary()
        try:
            tally = write_results(output, kinds[0], summary.watch(results))
        except UserError as error:
            if summary.states["parsed"] or not exit_code(stopped, summary):
                raise
            # A limit or failures left nothing to write, which is no error in the command.
            warn(str(error))
            return ended(stopped, summary)
        finally:
            for line in summary.lines():
                say(line)
    others = "".join(f"; {count} {what}" for what, count in tally.items() if what != "rows" and count)
    say(f"{output}: {tally['rows']} rows{others}")
    for path in leaderboard:
        say(write_leaderboard(path, label.names[0], output))
    return ended(stopped, summary)


def leaderboard_beside(output: Path, args: RequestArguments) -> list[Path]:
    """Return the leaderboard that --kind label writes beside annotations.json, as AlpacaEval does; [] otherwise."""
    if args.kind != "label" or output.suffix != ".json":
        return []
    return [output.with_name("leaderboard.csv")]


def exit_code(stopped: str | None, summary: ResultsSummary) -> int:
    """Return the exit code of a run; `stopped` is the limit that it reached, or None."""
    if stopped:
        return LIMIT_REACHED
    if summary.states["failed"]:
        return SOME_FAILED
    return 0


def open_ledger(path: str, limits: RequestLimits) -> Ledger:
    """Return the ledger, or for a dry run without one an empty one that leaves no file."""
    if limits.dry_run and not Path(path).exists():
        return Ledger(IN_MEMORY)
    return Ledger(path)


def ended(stopped: str | None, summary: ResultsSummary) -> int:
    """Print the last line of a run that has not asked everything: what is missing, and what to do. Returns the exit
    code."""
    code, failed = exit_code(stopped, summary), summary.states["failed"]
    left = summary.states["planned"] + summary.states["sent"]
    if code == LIMIT_REACHED:
        others = f" and {failed:,} failed" if failed else ""
        say(f"exit code {code}: {stopped} left {left:,} questions without an answer{others}; raise it and run the same "
            "command again")  # fmt: skip
    elif code == SOME_FAILED:
        say(f"exit code {code}: {failed:,} of {summary.states.total():,} questions failed; run the same command again "
            "to ask them")  # fmt: skip
    return code


def shown(title: str, cases: list[Case] | Cases) -> Iterator[Case]:
    total = cases.total if isinstance(cases, Cases) else len(cases)
    with progress(title, total) as advance:
        for case in cases:
            yield case
            advance()


def cases_of(args: RequestArguments, label: LabelArguments) -> list[Case] | Cases:
    """Read the rows to be asked about, and print a line on those left out."""
    if args.kind == "label":
        return label_cases(args, label)
    for name, value in vars(label).items():
        if value is not None:
            raise UserError(f"--{name} is for --kind label; leave it out")
    if args.samples > 1 and args.temperature == 0:
        warn("--samples at temperature 0: a model may give the same answer every time")
    if args.objectives:
        return read_objectives(Path(args.objectives))
    models = tuple(name.strip() for name in (args.base_models or "").split(",") if name.strip())
    first, last = slice_of(args.nums, args.start_index)
    choice = Choice(args.kind, base_models=models, first=first, last=last, renamed=renaming(args.columns))
    cases = Cases(args.input_files, replace(choice, draw=args.draw, seed=args.seed, samples=args.samples))
    if args.kind != "completion":
        return cases
    wanted, long = completions_wanted(cases, args.data_fraction or 1.0, args.ff or 0)
    say(f"{cases.total} rows, {len(wanted)} prompts to answer; {long} are too long")
    if not wanted:
        raise UserError(f"{', '.join(args.input_files)}: no prompts left to answer")
    return wanted


def label_cases(args: RequestArguments, label: LabelArguments) -> list[Case]:
    """Read the comparisons of two generators."""
    if label.base_dir is None and args.output_file is None:
        raise UserError("--base_dir is missing; name the folder of both generators' answers")
    if args.input_files and len(args.input_files) != 2:
        raise UserError("--input_files: expected the files of --model1_name and --model2_name, two")
    ours, reference = generators_of(label.names, args.input_files, label.base_dir)
    left_out, most = label.filter_out_fraction or 0.0, label.max_num_comparisons or 200
    cases, tally = matched(ours, reference, left_out=left_out, most=most)
    say(f"{len(cases)} comparisons" + "".join(f"; {count} {what}" for what, count in tally.items() if count))
    return cases


def output_of(args: RequestArguments, label: LabelArguments) -> Path:
    """Return the file to write."""
    if args.output_file is not None:
        return Path(args.output_file)
    judge = args.api_type.replace("/", "_")
    return Path(label.base_dir, f"comparisons_{judge}", "_vs_".join(label.names), "annotations.json")


if __name__ == "__main__":
    run_program(main)
