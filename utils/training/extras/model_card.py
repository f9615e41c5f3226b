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

from utils.engine import ranks
from utils.model.adapters import BASE
from utils.model.scoring import Policy
from utils.reporting import Report, write_text
from utils.training.extras import Hooks, Setting
from utils.training.run import OF_NO_CONSEQUENCE, ROOT, Run
from utils.training.saving import SavedModel

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


def begin(setting: Setting) -> Hooks:
    """Write the card of every saved model, of its adapter and of its average."""
    run = setting.run

    def write_cards(saved: SavedModel) -> None:
        if ranks.rank() != 0:
            return
        scores = not isinstance(saved.engine.module, Policy)
        loading = REWARD_MODEL if scores else LANGUAGE_MODEL
        adapter = saved.folder / "adapter"
        if saved.is_average:
            _write(run, saved.folder, scores, f"{AVERAGE}\n\n{loading}")
            return
        if adapter.is_dir():
            loading = f"{loading}\n\n{WITH_ADAPTER}"
            _write(run, adapter, scores, _loading_adapter(run, adapter, scores), library="peft")
        _write(run, saved.folder, scores, loading)

    return Hooks(after_saving=write_cards)


def _write(run: Run, folder: Path, scores: bool, loading: str, library: str = "transformers") -> None:
    """Leaves a README.md alone that somebody else wrote."""
    path, base = folder / "README.md", run.facts["options"]["model_name_or_path"]
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    task = "text-classification" if scores else "text-generation"
    base_model = "" if Path(base).expanduser().is_dir() else f"base_model: {base}\n"
    card = CARD.substitute(
        MARK=MARK, library=library, base_model=base_model, task=task, stage=_program().parent.name,
        hashes=_hashes(run), command=_command(run), metrics=_metrics(run), loading=loading,
    )  # fmt: skip
    write_text(path, card)


def _loading_adapter(run: Run, folder: Path, scores: bool) -> str:
    if not run.facts["options"]["only_optimize_lora"]:
        return ALL_TRAINED
    head, labels = ("SequenceClassification", ", num_labels=1") if scores else ("CausalLM", "")
    base = LINKED if (folder / BASE).is_dir() else "the folder of the base, or its name on the hub"
    return ADAPTER.substitute(head=head, labels=labels, base=base)


def _hashes(run: Run) -> str:
    options = run.facts["options"]
    names = {"model": [options["model_name_or_path"]], "data": options["data_path"]}
    hashes = {name: value for name, value in run.facts.items() if name not in ("options", "world_size", "threads")}
    named = {name: " ".join(f"`{shown(each)}`" for each in names.get(name, ())) for name in hashes}
    return "\n".join(f"| {name} | {named[name]} | `{value}` |" for name, value in hashes.items())


def _command(run: Run) -> str:
    ranks = f"  # on {run.facts['world_size']} ranks" if run.facts["world_size"] > 1 else ""
    return " \\\n    ".join([f"python {_program()}", *_options(run)]) + ranks


def _program() -> Path:
    """main.py of the stage, from the root of the checkout."""
    program = Path(sys.argv[0]).resolve()
    return program.relative_to(ROOT) if program.is_relative_to(ROOT) else Path(program.name)


def _options(run: Run) -> Iterator[str]:
    """The options that decide what is computed and are not at their defaults."""
    for group in run.groups:
        for option in dataclasses.fields(group):
            value = getattr(group, option.name)
            default = option.default_factory() if callable(option.default_factory) else option.default
            if option.name == "output_dir":
                yield "--output_dir OUTPUT"
            elif option.name not in OF_NO_CONSEQUENCE and value not in (None, default):
                values = value if isinstance(value, list) else [] if value is True else [value]
                yield " ".join([f"--{option.name}", *(shlex.quote(shown(str(each))) for each in values)])


def shown(text: str) -> str:
    """The value of an option, an absolute path (also after CLASS:) from the root of the checkout, or its last part."""
    found = re.fullmatch(r"([\w-]+:)?([/~].*)", text)
    if not found:
        return text
    path = Path(found[2]).expanduser()
    return (found[1] or "") + str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name)


def _metrics(run: Run) -> str:
    """The last evaluation in metrics.jsonl, as a table."""
    rows = [json.loads(line) for line in run.report.path.read_text(encoding="utf-8").splitlines()]
    evaluated = [row for row in rows if any(name.startswith("eval/") for name in row)]
    if not evaluated:
        return "It was not evaluated (`--eval_every never`)."
    numbers = {name[5:]: value for name, value in evaluated[-1].items() if name.startswith("eval/")}
    lines = [f"| {name} | {value:.4g} |" for name, value in numbers.items() if name not in Report.WALL_CLOCK]
    return "\n".join([f"| held-out rows, step {evaluated[-1]['step']:,} | |", "|---|---|", *lines])
