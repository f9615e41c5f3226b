"""AlpacaEval: outputs in its format, its package run with any judge, and win rates of its annotations.

    python inference/eval_alpaca.py --annotations annotations.json --json alpaca.json
    python inference/eval_alpaca.py --model_outputs answers.jsonl --generator dpo --output_dir results/dpo
    python inference/eval_alpaca.py --model_outputs answers.jsonl --generator dpo --output_dir results/dpo \\
        --reference_outputs reference.json --judge my-model --base_url http://127.0.0.1:8000/v1

The first line computes win rate and standard error of annotations.json as the package's leaderboard does, without the
package. The second writes results/dpo/model_outputs.json. The third runs the package (pip install -e '.[alpaca_eval]')
and writes its annotations.json and leaderboard.csv there, too; results/dpo/cache.json keeps what was judged, which is
not asked for again. The key is read from OPENAI_API_KEY.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments import parse
from utils.arguments.options import option, overwriting
from utils.errors import UserError
from utils.evaluation.alpaca import check_generator, check_outputs, comparisons_of, leaderboard_row, read_annotations
from utils.evaluation.outputs import model_outputs
from utils.evaluation.summary import lines, numbers
from utils.outputs import claim
from utils.provenance import move
from utils.raw_datasets.spec import Spec
from utils.reporting import run_program, say, write_json

EXTRA = "alpaca_eval is not installed; install it with pip install -e '.[alpaca_eval]', or give --annotations"


@dataclass
class AlpacaArguments:
    annotations: str | None = option(
        help="annotations.json to compute the win rate of; None: those that the package makes", title="Files"
    )
    model_outputs: str | None = option(
        help="the model's answers, one to each instruction; [CLASS:]PATH (docs/data.md)", aliases=["--data_path"]
    )
    reference_outputs: str | None = option(help="the reference's answers; given, the package runs")
    generator: str | None = option(help="name of the model; None: that of the answers or annotations")
    output_dir: str | None = option(help="folder of model_outputs.json, and of what the package writes")
    json: str | None = option(help="JSON file for the numbers")
    overwrite: bool = overwriting()
    judge: str | None = option(help="model of the judge, at any server of OpenAI's API", title="Judge")
    base_url: str | None = option(help="address of the server; None: OpenAI's")
    annotators_config: str = option("alpaca_eval_gpt4", help="judge of the package whose prompt and parser are used")
    seed: int = option(0, help="seed of the bootstrap over prompts", title="Statistics")
    difference: float = option(5.0, help="difference in percentage points; how many prompts show it is printed")

    def __post_init__(self) -> None:
        if not (self.annotations or self.model_outputs):
            raise UserError("--annotations or --model_outputs is missing; expected annotations.json, or answers")
        if self.annotations and self.reference_outputs:
            raise UserError("--annotations and --reference_outputs: the comparisons are annotated already; give one")
        if not self.annotations and not self.output_dir:
            raise UserError("--output_dir is missing; name the folder of model_outputs.json")
        if self.annotations and self.output_dir:
            raise UserError("--output_dir has no effect with --annotations; leave it out, or name a file with --json")
        if bool(self.judge) != bool(self.reference_outputs):
            raise UserError("--judge and --reference_outputs belong together: who judges, and against what")
        if self.json and not (self.annotations or self.judge):
            raise UserError("--json has no effect where nothing is judged; leave it out")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([AlpacaArguments], argv, description=__doc__)
    reads = [args.annotations or ""]
    for spec in filter(None, (args.model_outputs, args.reference_outputs)):
        reads.append(Spec.of(spec).path)
    folder = Path(args.output_dir or ".")
    written = {"--json": args.json}
    if args.output_dir:
        names = ["model_outputs.json"]
        if args.judge:
            names += ["reference_outputs.json", "annotations.json", "leaderboard.csv"]
        written["--output_dir"] = [folder / name for name in names]
    claim("eval_alpaca.py", written, reads=reads, overwrite=args.overwrite)
    if args.annotations:
        evaluate(args, Path(args.annotations))
        return
    if args.judge and importlib.util.find_spec("alpaca_eval") is None:
        raise UserError(EXTRA)
    rows = list(model_outputs(args.model_outputs, args.generator))
    write_json(folder / "model_outputs.json", rows)
    say(f"{folder / 'model_outputs.json'}: {len(rows)} outputs of {rows[0]['generator']}")
    if args.judge:
        write_json(folder / "reference_outputs.json", list(model_outputs(args.reference_outputs, None)))
        annotate(args, folder, rows[0]["generator"])
        evaluate(args, folder / "annotations.json")


def evaluate(args: AlpacaArguments, path: Path) -> None:
    """Print the win rate of annotations, and write its numbers."""
    annotations = read_annotations(path)
    name = check_generator(annotations, args.generator)
    if args.model_outputs:
        outputs = {row["instruction"]: row["output"] for row in model_outputs(args.model_outputs, args.generator)}
        check_outputs(annotations, outputs, Path(args.model_outputs))
    compared = comparisons_of(annotations)
    found, row = numbers(compared, args.seed, args.difference), leaderboard_row(annotations)
    error = row["standard_error"]
    shown = "unknown of one annotation"
    if error == error:
        shown = f"{error:.6f}"
    else:
        error = None
    say(f"{name}: win rate {row['win_rate']:.6f}, standard error {shown} (n {found['n']}, {found['ties']} ties, "
        f"{found['failed']} without a preference)", style="bold")  # fmt: skip
    for line in lines(found):
        say(line)
    if args.json:
        found |= {"generator": name, "standard_error": error, "nulls": found["failed"]}
        found |= {key: row[key] for key in ("discrete_win_rate", "avg_length")}
        write_json(Path(args.json), found)


def annotate(args: AlpacaArguments, folder: Path, name: str) -> None:
    """Run the package on the two files of outputs, and put its annotations and its leaderboard beside them."""
    # Read when the package is imported: version 2 of its leaderboard downloads files, and so does its length control.
    os.environ["IS_ALPACA_EVAL_2"] = "False"
    if args.base_url:
        os.environ["OPENAI_API_BASE"] = args.base_url
    alpaca_eval, openai = importlib.import_module("alpaca_eval"), importlib.import_module("openai")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        judge = Path(made, "configs.yaml")
        judge.write_text(json.dumps(_judge(alpaca_eval, args)), encoding="utf-8")
        try:
            alpaca_eval.evaluate(
                model_outputs=str(folder / "model_outputs.json"),
                reference_outputs=str(folder / "reference_outputs.json"), annotators_config=judge.resolve(), name=name,
                output_path=made, precomputed_leaderboard=None, fn_metric="get_winrate", sort_by="win_rate",
                is_return_instead_of_print=True, is_cache_leaderboard=False, caching_path=folder / "cache.json",
            )  # fmt: skip
        except openai.OpenAIError as error:
            address = args.base_url or "the provider"
            raise UserError(f"--judge {args.judge}: {address} answers {error}; run the same command again") from error
        for file in ("annotations.json", "leaderboard.csv"):
            shutil.copy(Path(made) / file, folder / f".{file}.partial")
            move(folder / f".{file}.partial", folder / file)


def _judge(alpaca_eval: Any, args: AlpacaArguments) -> dict[str, Any]:
    """Return {--judge: the package's description of --annotators_config}, with another model that is asked."""
    import yaml

    configs = Path(alpaca_eval.constants.EVALUATORS_CONFIG_DIR)
    path = configs / args.annotators_config / "configs.yaml"
    if not path.is_file():
        known = ", ".join(sorted(_known(configs)))
        raise UserError(f"--annotators_config {args.annotators_config}: no such judge in the package; known: {known}")
    ((_, config),) = yaml.safe_load(path.read_text(encoding="utf-8")).items()
    asked = {**config.get("completions_kwargs", {}), "model_name": args.judge, "price_per_token": 0.0}
    # JSON is YAML, too; a path of the package is relative to the file that names it.
    prompt = str(configs / config["prompt_template"])
    changed = {"prompt_template": prompt, "fn_completions": "openai_completions", "completions_kwargs": asked}
    return {args.judge: {**config, **changed}}


def _known(configs: Path) -> Iterator[str]:
    for path in configs.glob("*/configs.yaml"):
        if "openai_completions" in path.read_text(encoding="utf-8"):
            yield path.parent.name


if __name__ == "__main__":
    run_program(main)
