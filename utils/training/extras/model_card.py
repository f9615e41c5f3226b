"""The model card: README.md of a saved model, with its base, data, command and metrics, and how to load it.

It holds neither a time nor a path of the machine: a run that was killed and continued ends with the same card.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

from utils.engine import ranks
from utils.model.adapted import BASE
from utils.model.scoring import Policy
from utils.reporting import Report, write_text
from utils.training.extras import Hooks
from utils.training.run import OF_NO_CONSEQUENCE, ROOT, Run
from utils.training.saving import SavedModel
from utils.training.stage import Stage

MARK = "<!-- Plumbline writes this file with the model. Without this line it leaves the file as it is. -->"
CARD = Template("""---
library_name: $library
${base_model}pipeline_tag: $task
tags: [plumbline, $stage]
---
$MARK

# A model of $stage

| made from | | hash of the content |
|---|---|---|
$hashes

```bash
$command
```

$metrics

$loading
""")
LANGUAGE_MODEL = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "OUTPUT"  # this folder
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
inputs = tokenizer.apply_chat_template(
    [{"role": "user", "content": "…"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
text = tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0])
```"""
REWARD_MODEL = """```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "OUTPUT"  # this folder
model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
inputs = tokenizer.apply_chat_template(
    [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], return_tensors="pt", return_dict=True
)
score = model(**inputs).logits[0, 0]  # of the answer
```"""
ADAPTER = Template("""```python
from peft import AutoPeftModelFor$head

model = AutoPeftModelFor$head.from_pretrained("OUTPUT/adapter")  # this folder
```

`base_model_name_or_path` in adapter_config.json names $base.
When it moves, write the new path there, or name the base in the program:

```python
from peft import PeftModel
from transformers import AutoModelFor$head

base = AutoModelFor$head.from_pretrained("BASE"$labels)
model = PeftModel.from_pretrained(base, "OUTPUT/adapter")
```""")
LINKED = """the folder base/ in here, with a config.json for one label and links to the
weights of the base. When the weights move, link to them anew"""
WITH_ADAPTER = "The trained adapter, which was added into these weights, is also in adapter/."
AVERAGE = "An average of the weights during training (--ema_decay). The metrics are those of the folder above."
ALL_TRAINED = "The weights under the adapter were trained, too (--only_optimize_lora False): load the folder above."


def begin(stage: Stage) -> Hooks:
    """Write the card of every saved model, of its adapter and of its average."""
    run = stage.run

    def write_cards(saved: SavedModel) -> None:
        if ranks.rank() != 0:
            return
        scores = not isinstance(saved.engine.module, Policy)
        loading = REWARD_MODEL if scores else LANGUAGE_MODEL
        adapter = saved.folder / "adapter"
        if (saved.folder / "ema").is_dir():
            _write(run, saved.folder / "ema", scores, f"{AVERAGE}\n\n{loading}")
        if adapter.is_dir():
            loading = f"{loading}\n\n{WITH_ADAPTER}"
            _write(run, adapter, scores, _loading_adapter(run, adapter, scores), library="peft")
        _write(run, saved.folder, scores, loading)

    return Hooks(after_saving=write_cards)


def _write(run: Run, folder: Path, scores: bool, loading: str, library: str = "transformers") -> None:
    """Write one card, unless a person wrote the README.md that is there.

    Args:
        run: whose model it is.
        folder: the folder of the model.
        scores: whether the model gives scores, or text.
        loading: how to load it, as Markdown.
        library: what loads it.
    """
    path, base = folder / "README.md", run.facts["options"]["model_name_or_path"]
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    base_model = f"base_model: {base}\n"
    if Path(base).expanduser().is_dir():  # a card on the hub names no folder of this machine
        base_model = ""
    card = CARD.substitute(
        MARK=MARK, library=library, base_model=base_model, stage=_program().parent.name, hashes=_hashes(run),
        command=_command(run), metrics=_metrics(run), loading=loading,
        task="text-classification" if scores else "text-generation",
    )  # fmt: skip
    write_text(path, card)


def _loading_adapter(run: Run, folder: Path, scores: bool) -> str:
    """Return how to load the adapter in `folder`."""
    if not run.facts["options"]["only_optimize_lora"]:
        return ALL_TRAINED
    base = "the folder of the base, or its name on the hub"
    if (folder / BASE).is_dir():
        base = LINKED
    if scores:
        return ADAPTER.substitute(head="SequenceClassification", labels=", num_labels=1", base=base)
    return ADAPTER.substitute(head="CausalLM", labels="", base=base)


def _hashes(run: Run) -> str:
    """Return the rows of a table: what the run was made from, by which names, with which hash."""
    options, rows = run.facts["options"], []
    names = {"model": [options["model_name_or_path"]], "data": options["data_path"]}
    for name, value in run.facts.items():
        if name not in ("options", "world_size", "threads"):
            named = " ".join(f"`{shown(each)}`" for each in names.get(name, ()))
            rows.append(f"| {name} | {named} | `{value}` |")
    return "\n".join(rows)


def _command(run: Run) -> str:
    """Return the command that makes the model again."""
    command = " \\\n    ".join([f"python {_program()}", *_options(run)])
    if run.facts["world_size"] > 1:
        command += f"  # on {run.facts['world_size']} ranks"
    return command


def _program() -> Path:
    """Return main.py of the stage, from the root of the checkout."""
    program = Path(sys.argv[0]).resolve()
    if program.is_relative_to(ROOT):
        return program.relative_to(ROOT)
    return Path(program.name)


def _options(run: Run) -> Iterator[str]:
    """Yield the options that decide what is computed and are not at their defaults."""
    for group in run.groups:
        for option in dataclasses.fields(group):
            value, default = getattr(group, option.name), option.default
            if callable(option.default_factory):
                default = option.default_factory()
            if option.name == "output_dir":
                yield "--output_dir OUTPUT"
            elif option.name not in OF_NO_CONSEQUENCE and value not in (None, default):
                yield " ".join([f"--{option.name}", *_words(value)])


def _words(value: Any) -> Iterator[str]:
    """Yield the words behind a flag; a switch that is on has none."""
    if value is True:
        return
    for each in value if isinstance(value, list) else [value]:
        yield shlex.quote(shown(str(each)))


def shown(text: str) -> str:
    """Return the value of an option as a card shows it: an absolute path (also after CLASS:) from the root of the
    checkout, or its last part."""
    found = re.fullmatch(r"([\w-]+:)?([/~].*)", text)
    if not found:
        return text
    path, name = Path(found[2]).expanduser(), found[1] or ""
    if path.is_relative_to(ROOT):
        return name + str(path.relative_to(ROOT))
    return name + path.name


def _metrics(run: Run) -> str:
    """Return the last evaluation in metrics.jsonl, as a table."""
    numbers, step = {}, 0
    for line in run.report.path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        measured = {name[5:]: value for name, value in row.items() if name.startswith("eval/")}
        if measured:
            numbers, step = measured, row["step"]
    if not numbers:
        return "It was not evaluated (`--eval_every never`)."
    lines = [f"| held-out rows, step {step:,} | |", "|---|---|"]
    for name, value in numbers.items():
        if name not in Report.WALL_CLOCK:
            lines.append(f"| {name} | {value:.4g} |")
    return "\n".join(lines)
