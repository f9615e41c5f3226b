"""The house: imports point down, files stay small, each of a few things lives in one place."""

import ast
import re
import sys

import pytest
from toys import ROOT

# The rooms of utils/ and its single files. A room imports from the lines above its own, not from its neighbours.
LAYERS = [
    ["errors", "hub", "statistics", "parsing"],
    ["arguments", "provenance"],
    ["outputs", "records", "reporting"],
    ["raw_datasets", "engine", "world", "tables"],
    ["tokens", "formats", "llm"],
    ["model", "feedback", "losses", "evaluation"],
    ["generation", "report", "doctor"],
    ["training", "answering"],
    ["ppo"],
]
LAYER_OF = {name: level for level, names in enumerate(LAYERS) for name in names}
PROGRAMS = ["training", "inference", "data_collect"]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FILES = sorted(p for top in ("utils", *PROGRAMS) for p in (ROOT / top).rglob("*.py") if "__pycache__" not in p.parts)


def name_of(path):
    """The room or single file of utils that a file belongs to, or None for a program."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return (parts[1] if len(parts) > 1 else "__init__") if parts[0] == "utils" else None


def imports_of(path):
    return imports_of_text(path.read_text(encoding="utf-8"))


def imports_of_text(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "utils":
                yield from (f"utils.{alias.name}" for alias in node.names)


def test_every_room_of_utils_has_a_layer():
    names = {name_of(p) for p in FILES} - {None, "__init__"}
    assert names <= set(LAYER_OF), f"give a layer to {sorted(names - set(LAYER_OF))}"


PROGRAMS_STARTED = [p for p in FILES if name_of(p) is None and "__main__" in p.read_text(encoding="utf-8")]
GUARD = r"""
try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")
"""


@pytest.mark.parametrize("path", PROGRAMS_STARTED, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_program_opens_with_the_same_guard(path):
    """Before it comes the standard library alone: without an environment nothing else can be imported."""
    before, guard, _ = path.read_text(encoding="utf-8").partition(GUARD)
    imported = {name.split(".")[0] for name in imports_of_text(before)}
    assert guard and "argparse" in imported and imported <= sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    mine = name_of(path)
    for module in imports_of(path):
        parts = module.split(".")
        if parts[0] in PROGRAMS:
            assert mine is None and parts[0] == path.relative_to(ROOT).parts[0], f"{path} imports the program {module}"
        if parts[0] == "utils" and len(parts) > 1 and mine not in (None, "__init__", parts[1]):
            down = LAYER_OF[parts[1]] < LAYER_OF[mine]
            assert down, f"{mine} (layer {LAYER_OF[mine]}) imports {parts[1]} (layer {LAYER_OF[parts[1]]})"


@pytest.mark.parametrize("path", FILES + TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_small(path):
    limit = 400 if path in TESTS else 150 if path.name == "main.py" else 250
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


@pytest.mark.parametrize(
    "pattern, places",
    [
        (
            r"^\s*(import deepspeed|from deepspeed)",
            {f"utils/engine/{name}.py" for name in ("deepspeed_engine", "flipping", "freezing", "internals")},
        ),
        (
            r"\.from_pretrained\(",
            {"utils/model/folders.py", "utils/model/writing.py"}
            # from_scratch makes tokenizers without torch, a model card tells others how to load the model
            | {"utils/model/from_scratch.py", "utils/training/extras/model_card.py"},
        ),
        (r"(?<![\w.])print\(", {"utils/reporting.py"}),
        (r"\bsys\.path\b", set()),
        (r"except\s*:|except (Base)?Exception\b", set()),
    ],
)
def test_each_of_these_lives_in_one_place(pattern, places):
    found = {str(p.relative_to(ROOT)) for p in FILES if re.search(pattern, p.read_text(encoding="utf-8"), re.MULTILINE)}
    assert found <= places


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[-2] == "data_collect"], ids=lambda p: p.name)
def test_collecting_feedback_never_imports_torch(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert not any("torch" in ast.unparse(n) for n in top)


def test_no_class_name_is_used_twice():
    """A reader who meets a class by its name knows which one it is."""
    places = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


# torch and transformers take these by position
BY_POSITION = {"LogProbs.apply", "ctx.save_for_backward", "varlen_attn"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_calls_of_many_arguments_name_them(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and len(node.args) > 5:
            called = ast.unparse(node.func)
            assert called in BY_POSITION, f"{path}:{node.lineno}: {called} gets {len(node.args)} by position"
