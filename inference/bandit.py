"""Supervised fine-tuning on a strong teacher against learning from AI feedback, in a bandit of 100 actions.

    python inference/bandit.py --output_path results/bandit.json

The experiment of Sharma et al. 2024 (arXiv:2402.12366), section 5, over several seeds: expected true reward of teacher,
SFT, RLAIF and student, and how far the learned reward falls among the actions that the student never takes. Writes the
numbers as JSON and the paper's two figures, of the first seed, beside it. inference/synthetic-rlaif.ipynb shows it step
by step.
"""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import asdict, dataclass
from pathlib import Path

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments import parse
from utils.arguments.options import option, overwriting, required
from utils.errors import UserError
from utils.evaluation.bandit import BanditSetting, run
from utils.outputs import claim
from utils.provenance import versions
from utils.report import figures
from utils.reporting import progress, run_program, say, write_json
from utils.statistics import mean_interval
from utils.tables import show_table


@dataclass
class BanditArguments:
    output_path: str = required("JSON file for the numbers; NAME-policies.png and NAME-samples.png go beside it")
    seeds: int = option(10, help="seeds 0, 1, ...; each draws its own samples and gives its own rewards")
    samples: int = option(250_000, help="actions of the teacher for SFT, and pairs of the student's for RLAIF")
    beta: float = option(0.1, help="strength of the KL penalty in RLAIF")
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        if self.seeds < 2 or self.samples < 1 or self.beta <= 0:
            raise UserError(
                f"--seeds is {self.seeds}, --samples {self.samples}, --beta {self.beta}; expected at least 2 (an "
                "interval needs two), at least 1, and above 0"
            )


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([BanditArguments], argv, __doc__)
    path = Path(args.output_path)
    policies, samples = (path.with_name(f"{path.stem}-{name}.png") for name in ("policies", "samples"))
    claim("bandit.py", {"--output_path": [path, policies, samples]}, overwrite=args.overwrite)
    setting = BanditSetting(samples=args.samples, beta=args.beta)
    outcomes = []
    with progress("seeds", args.seeds) as advance:
        for seed in range(args.seeds):
            outcomes.append(run(setting, seed))
            advance(1)
    rows, numbers = [], {}
    for name in ("teacher", "sft", "rlaif", "student"):
        numbers[name] = mean_interval([outcome.expected()[name] for outcome in outcomes])
        rows.append([name, str(numbers[name])])
    numbers["fall"] = mean_interval([outcome.fall() for outcome in outcomes])
    show_table(["policy", "expected true reward"], rows)
    say(f"the learned reward of the best action lies {numbers['fall']} below its peak (the true one: 0)")
    found = {"setting": asdict(setting), "seeds": args.seeds, "versions": versions()}
    found["expected_true_reward"] = {name: numbers[name].to_json() for name, _ in rows}
    found["fall_of_learned_reward"] = numbers["fall"].to_json()
    write_json(path, found)
    figures.save(figures.bandit_policies(outcomes[0]), policies)
    figures.save(figures.bandit_samples(outcomes[0], seed=0), samples)


if __name__ == "__main__":
    run_program(main)
