"""The training core can be read in one sitting, and little is reachable from a stage's entry.

Counted are lines of code: those that hold a token other than a comment, without blank lines and docstrings, so that an
explanation never costs anything. CORE is what DPO needs from a packed batch to an optimizer step and a checkpoint, in
reading order. Reachable from step3_dpo/main.py is every file of utils/ that it imports, at module level or inside a
function, and what those import. Left out are the preference losses other than the default of --loss, since each further
loss is a function by itself, and what is looked up by name: the raw-dataset classes, with the reader of CSV and Parquet
that they share, and, imported only when an option or a name asks for it, the extras of utils/training/extras and
LOOKED_UP.
"""

import ast
import io
import tokenize
from pathlib import Path

from test_layout import imports_of
from toys import ROOT

ENTRY = "training/step3_dpo/main.py"
CORE = (
    "utils/model/batch.py",
    "utils/model/packed_attention.py",
    "utils/model/scoring.py",
    "utils/model/head/logprobs.py",
    "utils/losses/preference.py",
    "utils/training/plan.py",
    "utils/training/steps.py",
    "utils/training/trainer.py",
    "utils/engine/deepspeed_engine.py",
    "utils/engine/checkpoints.py",
)
# The aim is 4,500 reachable lines: what further losses alone use (mixtures, looks, votes) is still among them.
FILES, CORE_LINES, REACHABLE_LINES = 12, 1600, 5200
LOOKED_UP = {  # what is imported only when it is asked for -> what asks for it
    "utils/arguments/help.py": "--help",
    "utils/arguments/config.py": "--config",
    "utils/model/lora.py": "--lora_dim",
    "utils/hub.py": "a model or a data set that is no folder",
    "utils/raw_datasets/sources/hub.py": "a data set of the hub, or a folder of the `datasets` library",
}
# losses that are not the default of --loss, with what they alone use
FURTHER = [f"utils/losses/{name}.py" for name in ("listwise", "unpaired", "whole_batch", "without_reference")]
BLANK = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def code_lines(path: Path) -> set[int]:
    """The numbers of the lines that hold code."""
    text, found = path.read_text(encoding="utf-8"), set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in BLANK:
            found |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            found -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return found


def other_losses(path: Path) -> set[int]:
    """The lines of the preference losses other than the default."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list and node.name != "sigmoid":
            found |= set(range(node.decorator_list[0].lineno, node.end_lineno + 1))
    return found


def files_of(module: str) -> list[Path]:
    """The files that importing a module of utils runs: it and the packages around it."""
    place, found = ROOT, []
    for part in module.split("."):
        place = place / part
        found += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return found


def modules_of(path: Path) -> set[str]:
    """What a file imports of utils; of `from package import name` also package.name, which may be a module."""
    found = set(imports_of(path))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module for module in found if module.split(".")[0] == "utils"}


def reachable(entry: Path) -> set[Path]:
    seen, left = set(), [entry]
    while left:
        path = left.pop()
        if path not in seen:
            seen.add(path)
            left += [file for module in modules_of(path) for file in files_of(module)]
    return seen


def test_the_core_is_read_in_one_sitting():
    sizes = {name: len(code_lines(ROOT / name)) for name in CORE}
    assert len(CORE) <= FILES and sum(sizes.values()) <= CORE_LINES, sizes


def test_the_core_belongs_to_the_stage_and_imports_no_extra():
    found = reachable(ROOT / ENTRY)
    assert {ROOT / name for name in CORE} <= found
    for extra in (ROOT / "utils" / "training" / "extras").glob("[a-z]*.py"):
        assert extra not in found
    for name, option in LOOKED_UP.items():
        assert (ROOT / name).is_file() and ROOT / name not in found, f"{name} is for {option} alone"
    assert not any("generation" in path.parts or "ppo" in path.parts for path in found)


def test_little_is_reachable_from_a_stage():
    loss = ROOT / "utils/losses/preference.py"
    sizes = {path: len(code_lines(path)) for path in reachable(ROOT / ENTRY)}
    sizes[loss] = len(code_lines(loss) - other_losses(loss))
    assert ROOT / "utils/__init__.py" in sizes and sizes[loss] > 20
    for name in FURTHER:
        del sizes[ROOT / name]
    assert sum(sizes.values()) <= REACHABLE_LINES, sorted((n, path.name) for path, n in sizes.items())[-20:]
