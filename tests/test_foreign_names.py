"""Private names of other libraries are touched in utils/engine/internals.py alone."""

import ast

import pytest
from test_layout import FILES, TESTS
from torch import nn
from toys import ROOT

FILE = "utils/engine/internals.py"
ALLOWED = {  # (file, name): why it is not in internals.py
    ("utils/arguments/__init__.py", "_actions"): "argparse has no public list of its options; no torch may load there",
    ("utils/arguments/help.py", "_actions"): "the same list, for the pages of --help",
    (
        "utils/raw_datasets/sources/hub.py",
        "_fingerprint",
    ): "datasets has no public name for it; no torch there",
    ("tests/test_losses_trl.py", "_compute_loss"): "TRL has no public function of a single loss",
    ("tests/test_speed.py", "torch.utils._python_dispatch"): "the import that PyTorch's documentation shows",
    (
        "tests/test_formats_reading.py",
        "pandas._libs.parsers",
    ): "compared with pandas' own list, private there",
    (
        "tests/test_ds_configs.py",
        "deepspeed.runtime.constants",
    ): "documented defaults are compared with DeepSpeed's",
    ("tests/test_ds_configs.py", "deepspeed.runtime.zero.config"): "the same",
    ("tests/test_ds_configs.py", "deepspeed.runtime.zero.offload_config"): "the same",
}
EXEMPT = {FILE, "tests/test_internals.py"}
INNER = ("deepspeed.runtime", "transformers.integrations")
DOCUMENTED = {"_asdict", "_replace", "_exit"}  # of a NamedTuple and of os, in Python's own manual
REACHING = {"getattr", "hasattr", "setattr", "delattr"}
PROJECT = {"utils", "training", "inference", "data_collect", *(path.stem for path in TESTS)}


def private(name):
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def defined(tree):
    """Names that a module defines: functions, classes, variables, and attributes of self and cls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of_itself(node):
            yield node.attr


def of_itself(node):
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def touched(node):
    """Private names and inner modules that a node of the syntax tree reaches for, whoever owns them."""
    if isinstance(node, ast.Attribute) and private(node.attr) and not of_itself(node):
        yield node.attr
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        words = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        yield from (word for word in words if name in REACHING and private(word))
    elif isinstance(node, ast.ClassDef):
        methods = [method.name for method in node.body if isinstance(method, ast.FunctionDef)]
        yield from (name for name in methods if private(name) and hasattr(nn.Module, name))
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if inner(alias.name))
    elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] not in PROJECT:
        whole = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from {node.module if inner(node.module) else name for name in whole if inner(name)}


def inner(module):
    return module.startswith(INNER) or any(map(private, module.split(".")))


def foreign(text, ours=()):
    """What a file's text touches of other libraries' insides; `ours`: private names of this project."""
    tree = ast.parse(text)
    ours = {*defined(tree), *ours}
    methods = {name for name in vars(nn.Module) if private(name)}
    return {name for node in ast.walk(tree) for name in touched(node) if name not in ours or name in methods}


TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in (*FILES, *TESTS)}
OURS = {name for path in FILES for name in defined(ast.parse(TEXTS[str(path.relative_to(ROOT))]))}


@pytest.mark.parametrize("path", sorted(TEXTS.keys() - EXEMPT))
def test_no_other_file_touches_the_insides_of_a_library(path):
    found = foreign(TEXTS[path], OURS if path.startswith("tests/") else ())
    strange = sorted(name for name in found if (path, name) not in ALLOWED)
    assert not strange, f"{path} touches {', '.join(strange)}; give {FILE} a function for it, and this file a check"


def test_what_is_allowed_is_still_needed():
    needed = {(path, name) for path, text in TEXTS.items() for name in foreign(text)}
    assert ALLOWED.keys() <= needed


@pytest.mark.parametrize(
    "line",
    ["x = model._init_weights", "engine._take_model_step = look", "getattr(config, '_commit_hash', None)",
     "from deepspeed.runtime.zero import parameter_offload", "from torch import _dynamo", "import torch._dynamo",
     "from transformers import integrations", "from transformers.integrations import deepspeed",
     "class Head(Module):\n    def _load_from_state_dict(self): pass"],
)  # fmt: skip
def test_a_touch_is_found(line):
    assert len(foreign(line)) == 1


@pytest.mark.parametrize("line", ["self._x = 1\ny._x", "def _f(): pass\nmodule._f()", "a.__name__"])
def test_own_names_are_not(line):
    assert not foreign(line)
