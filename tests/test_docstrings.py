"""Docstrings and comments: a name in backquotes, and a file of code that is named, exist in the project."""

import ast
import builtins
import functools
import io
import keyword
import re
import tokenize

import pytest
from test_layout import FILES
from toys import ROOT

CODE_FILE = re.compile(r"(?<![\w./*-])[\w*-]+\.(?:py|css|md|sh|toml|ipynb)\b")
DATA_FILE = re.compile(r"[\w.*-]+\.(?:jsonl?|csv|txt|log|html|gz|parquet)")  # most are examples of a person's own files
SKIPPED = {"output", "node_modules"}  # folders beside the hidden ones, in which no file of the project lies


def docstrings(tree: ast.AST) -> list[ast.Constant]:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node.body[0] for node in ast.walk(tree) if isinstance(node, holders) and node.body]
    values = [first.value for first in found if isinstance(first, ast.Expr)]
    return [value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]


def prose(text: str) -> list[tuple[int, str]]:
    """Return every docstring and every run of comments of a module, each with its first line's number."""
    found = [(value.lineno, value.value) for value in docstrings(ast.parse(text))]
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] == last + 1:  # a sentence may go on in the next comment
            found[-1] = (found[-1][0], f"{found[-1][1]} {token.string.lstrip('# ')}")
        else:
            found.append((token.start[0], token.string))
        last = token.start[0]
    return [(line, " ".join(words.split())) for line, words in found]


def names_in(text: str) -> tuple[set[str], set[str]]:
    """Return the identifiers of a module, and its string constants that are no docstrings."""
    tree = ast.parse(text)
    documented = {id(value) for value in docstrings(tree)}
    names, strings = set(), set()
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                names |= set(value.split("."))  # the name of an import has dots
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            strings.add(node.value)
    return names, strings


@functools.cache
def project() -> tuple[frozenset[str], str, frozenset[str]]:
    """Return every name that prose may refer to, all text in strings, and the names of all files."""
    names, strings = {*dir(builtins), *keyword.kwlist}, set()
    for path in FILES:
        found, literal = names_in(path.read_text(encoding="utf-8"))
        names |= found | set(path.relative_to(ROOT).with_suffix("").parts)
        strings |= literal
    names |= strings
    text = "\n".join(strings)
    names |= {word for word in re.findall(r"\w+", text) if "_" in word}  # a plain word of a message names nothing
    tops = [top for top in ROOT.iterdir() if top.name not in SKIPPED and not top.name.startswith(".")]
    files = {path.name for top in tops for path in (top.rglob("*") if top.is_dir() else [top])}
    return frozenset(names), text, frozenset(files)


def unknown(words: str) -> list[str]:
    """Return what a text names and the project does not have."""
    names, strings, files = project()
    missing = [file for file in CODE_FILE.findall(words) if "*" not in file and file not in files]
    found = [file for file in missing if file not in strings]
    for span in re.findall(r"`([^`]+)`", words):
        whole = re.fullmatch(r"([A-Za-z_]\w*(?:\.\w+)*)(?:\(.*\))?", span)
        if CODE_FILE.fullmatch(span) or DATA_FILE.fullmatch(span):
            continue
        if whole:  # an identifier, a dotted one, or a call
            mentioned = whole[1].split(".")
        else:  # several words: only those that are written as names are checked
            mentioned = [word for word in re.findall(r"\b[A-Za-z]\w*", span) if "_" in word]
        found += [word for word in mentioned if word not in names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_in_docstrings_and_comments_exist(path):
    said = prose(path.read_text(encoding="utf-8"))
    assert [f"line {line}: {word}" for line, words in said for word in unknown(words)] == []


@pytest.mark.parametrize(
    "lie, word",
    [
        ("`adapter_off`: the policy without its adapter", "adapter_off"),
        ("A resumed run calls `cut_after(step)` first", "cut_after"),
        ("the colours are in report.css", "report.css"),
        ("see `nowhere.py`", "nowhere.py"),
        ("`Trainer.nowhere` does it", "nowhere"),
        ("give `--nowhere_at_all 3`", "nowhere_at_all"),
        ("a column `nowhere`", "nowhere"),
    ],
)
def test_a_name_that_does_not_exist_is_found(lie, word):
    assert unknown(lie) == [word]


@pytest.mark.parametrize(
    "truth",
    [
        "`Trainer`, `collate(groups, packed=False)`, `nn.Module.parameters`, `metrics.jsonl`, page.css, `hub.py`",
        "`### Answer A`, `Rating: 6`, `x = softmax(z)`, `None`, `--learning_rate 1e-3`, `tokens_per_micro_batch`",
    ],
)
def test_a_name_that_exists_is_left_alone(truth):
    assert unknown(truth) == []


def test_prose_is_docstrings_and_comments():
    text = '"""One\n`a`."""\n# two `b\n# c`\n\nx = "`d`"  # three\n\n\ndef f():\n    """Four."""\n'
    assert prose(text) == [(1, "One `a`."), (10, "Four."), (3, "# two `b c`"), (6, "# three")]


def public_functions(path):
    """Yield the functions of a file that others may call, each with its class or None."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    holders = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name[0] != "_")]
    for holder in holders:
        for child in holder.body:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if function and (child.name == "__init__" or not child.name.startswith("_")):
                yield child, holder if holder is not tree else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_an_interface_of_more_than_three_parameters_names_each_of_them(path):
    for function, holder in public_functions(path):
        if function.name == "forward" and "autograd" in ast.unparse(holder):
            continue  # autograd dictates its arguments and calls it
        given = function.args
        names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        names = [name for name in names if name not in ("self", "cls")]
        text = ast.get_docstring(function) or ""
        if function.name == "__init__":
            text += ast.get_docstring(holder) or ""
        named = set(re.findall(r"\w+", " ".join(re.findall(r"^\s+([\w, *]+):", text, re.MULTILINE))))
        missing = set(names) - named if len(names) > 3 else set()
        assert not missing, f"{path}:{function.lineno}: Args of {function.name} lack {', '.join(sorted(missing))}"


QUESTIONS = {"What", "How", "Who", "Whom", "Whose", "Where", "When", "Why", "Which", "Whether", "Of", "As", "So"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_docstring_of_a_function_opens_as_a_sentence(path):
    """With a capital letter, and not as half of a question.

    What `--help` prints of a kind of feedback is no sentence, and a constructor may say no more than what it takes.
    """
    for function, _ in public_functions(path):
        text = ast.get_docstring(function)
        is_kind = any(ast.unparse(each).startswith("kind(") for each in function.decorator_list)
        if text and function.name != "__init__" and not is_kind:
            opening = re.match(r"\w*", text).group()
            assert opening[:1].isupper() and opening not in QUESTIONS, f"{path}:{function.lineno}: {text[:60]!r}"
