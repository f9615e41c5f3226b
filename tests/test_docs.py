"""The documents: every path, program, flag and name in them exists, every command parses, every example runs."""

import contextlib
import functools
import importlib.util
import io
import itertools
import re
import shlex
import sys
from pathlib import Path

import pytest
from checkout import fences
from test_losses import HAND
from toys import ROOT

from utils.errors import UserError
from utils.losses import preference
from utils.tokens.templates import wording

STAGES = ("step1_sft", "step2_reward", "step3_dpo", "step3_ppo")
READMES = [ROOT / f"{top}README.md" for top in ("", "inference/", "ds_configs/")] + [*ROOT.glob("training/*/README.md")]
DOCUMENTS = sorted([*READMES, *(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md"])
PROGRAMS = [p for top in ("training", "inference", "data_collect") for p in sorted((ROOT / top).rglob("*.py"))]
TOPS = "training|inference|data_collect|utils|ds_configs|docs|tests"
STARTERS = {"python", "python3", "torchrun", "deepspeed", "accelerate"}
OTHER_TOOLS = {"pip", "ruff", "git", "source", "tensorboard", "cp", "export"}
ENVIRONMENT = {"OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "HF_HOME", "WORKERS"}


class Parsed(Exception):  # noqa: N818 - it is no error
    """The program's own parser took the words."""


@functools.cache
def module_of(program: Path):
    spec = importlib.util.spec_from_file_location("documented_" + "_".join(program.parts[-2:])[:-3], program)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def refusal(program: Path, words: list[str]) -> str | None:
    """Why `program` refuses these words, None if it takes them: its real parser runs, and nothing after it."""
    module = module_of(program)
    name = "parse_mode" if hasattr(module, "parse_mode") else "parse"
    real = getattr(module, name)

    def parse_and_stop(*args, **kwargs):
        real(*args, **kwargs)
        raise Parsed

    setattr(module, name, parse_and_stop)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            module.main(words)
    except (Parsed, SystemExit):
        return None
    except UserError as error:
        return str(error)
    finally:
        setattr(module, name, real)
    return "it never parsed its options"


@functools.cache
def all_flags() -> frozenset[str]:
    modes = [["--mode", mode] for mode in ("generate", "ppl", "rm", "chat", "arena")]
    found = io.StringIO()
    for program in PROGRAMS:
        for mode in modes if program.name == "chatbot.py" else [[]]:
            with contextlib.redirect_stdout(found), contextlib.suppress(SystemExit):
                module_of(program).main([*mode, "--help", "all"])
    return frozenset(re.findall(r"--\w+", found.getvalue()))


@functools.cache
def source() -> str:
    """All that a name in a document may refer to."""
    patterns = ("utils/**/*.py", "tests/**/*.py", "training/**/*.sh*", "ds_configs/*.json", "*.sh", "pyproject.toml")
    files = [*PROGRAMS, *itertools.chain.from_iterable(map(ROOT.glob, patterns))]
    return "\n".join(f.read_text(encoding="utf-8") for f in files if f.name != "test_docs.py")


# ---- what a document says


def spans(text: str) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(s.split()) for s in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)]


def is_command(span: str) -> bool:
    return re.match(r"(\w+=\S+ )*(python3?|bash|torchrun|deepspeed|accelerate|cd) .*\.(py|sh)\b", span) is not None


def complaints(text: str, home: Path = ROOT) -> list[str]:
    """What is not true in a document that stands in `home`."""
    said = []
    for block in fences(text, "bash"):
        said += command_complaints(block.replace("\\\n", " ").splitlines(), [home, ROOT])
    for span in spans(text):
        if is_command(span):
            said += command_complaints([span], [home, ROOT])
        else:
            said += [f"no program has {f}" for f in re.findall(r"--\w+", span) if f not in all_flags()]
            said += name_complaints(span, home)
    told = re.sub(r"^```json.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for path in re.findall(rf"(?<![\w/.-])(?:{TOPS})/[\w./*{{}},-]*\w", told):
        said += [] if exists(path, ROOT) else [f"no {path}"]
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        if target and not exists(target, home):
            said.append(f"no {target}")
        elif anchor and anchor not in anchors((home / target).read_text(encoding="utf-8") if target else text):
            said.append(f"no heading #{anchor} in {target or 'this document'}")
    return said


def anchors(text: str) -> set[str]:
    """The headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(path: str, folder: Path) -> bool:
    """Braces and stars may stand for several; each must be there."""
    brace = re.search(r"\{([^{}]*)\}", path)
    if brace:
        return all(exists(path[: brace.start()] + one + path[brace.end() :], folder) for one in brace[1].split(","))
    if "*" in path:
        return any(folder.glob(path))
    return (folder / path).exists() or (folder / f"{path}.example").exists()  # training/cluster.sh is the reader's own


def name_complaints(span: str, home: Path) -> list[str]:
    """A file of ours by its bare name, or a name in the code."""
    if re.fullmatch(r"[\w*.-]+\.(py|sh|md)", span):
        known = exists(span, home) or any(ROOT.glob(span)) or any(ROOT.glob(f"[!.]*/**/{span}"))
        return [] if known else [f"no {span}"]
    if re.fullmatch(r"[A-Za-z]\w+(\.\w+)*(\(\))?", span) and re.search(r"_|[a-z][A-Z]|^[A-Z]{4,}$", span):
        last = span.rstrip("()").split(".")[-1]
        return [] if re.search(rf"\b{last}\b", source()) else [f"nothing is called {span}"]
    return []


def command_complaints(lines: list[str], folders: list[Path]) -> list[str]:
    """Lines of one terminal, which starts in the first of `folders` that has what it names."""
    said, variables = [], {}
    for line in lines:
        line = re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), line)  # noqa: B023 (called at once)
        words = shlex.split(line, comments=True)
        if words and all(re.match(r"[A-Z_]+=", word) for word in words):
            variables |= dict(word.split("=", 1) for word in words)
            continue
        for is_and, command in itertools.groupby(words, lambda word: word in ("&&", ";", "|", "&")):
            if not is_and:
                found, folders = one_command(list(command), folders)
                said += [f"{line.strip()}: {complaint}" for complaint in found]
    return said


def one_command(words: list[str], folders: list[Path]) -> tuple[list[str], list[Path]]:
    settings = list(itertools.takewhile(lambda word: re.match(r"[A-Z_]+=", word), words))
    tool, *rest = words[len(settings) :] or ["export"]
    if tool == "cd":
        there = [folder / rest[0] for folder in folders if (folder / rest[0]).is_dir()]
        return ([] if there else [f"no folder {rest[0]}"]), there or folders
    if tool not in STARTERS | {"bash"}:
        return ([] if tool in OTHER_TOOLS else [f"{tool}: no tool that a document may name"]), folders
    at = next((i for i, word in enumerate(rest) if word.endswith((".py", ".sh"))), None)
    if at is None:
        return ([] if rest[:1] == ["-m"] else ["it runs nothing"]), folders
    file = next((f / rest[at] for f in folders if (f / rest[at]).is_file()), None)
    if file is None:
        return [f"no {rest[at]}"], folders
    known = file.read_text(encoding="utf-8") + (ROOT / "training/launch.sh").read_text(encoding="utf-8")
    names = [setting.split("=")[0] for setting in settings]
    said = [
        f"{name} sets nothing" for name in names if name not in ENVIRONMENT and not re.search(rf"\$\{{?{name}\b", known)
    ]
    return said + options_complaints(file, rest[at + 1 :]), folders


def options_complaints(file: Path, options: list[str]) -> list[str]:
    if "…" in options:  # something is left out: only the names can be checked
        return [f"no program has {f}" for f in options if f.startswith("--") and f.split("=")[0] not in all_flags()]
    program = file
    if file.name.startswith("run_"):  # the script's flags, then those of the command line, as launch.sh puts them
        flags = file.read_text(encoding="utf-8").split("\nlaunch ", 1)[1].replace("\\\n", " ").replace('"$@"', "")
        flags = re.sub(r"\$\{\w+:\+(.*?)\}", r"\1", flags)  # ${NAME:+what is given when NAME is set}
        base = ["--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o", "--zero_stage", "1"]
        program, options = file.parent / "main.py", [*base, *shlex.split(flags), *options]
    if program.suffix == ".sh":
        return []
    why = refusal(program, options)
    return [why] if why else []


# ---- the tests


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_document_is_true(document):
    assert complaints(document.read_text(encoding="utf-8"), document.parent) == []


def test_every_stage_has_a_document():
    assert {ROOT / "training" / stage / "README.md" for stage in STAGES} <= set(DOCUMENTS)


@pytest.mark.parametrize(
    "lie, complaint",
    [
        ("see utils/nowhere.py", "no utils/nowhere.py"),
        ("see `ds_configs/{zero0,zero9}.json`", "no ds_configs/{zero0,zero9}.json"),
        ("[here](docs/nowhere.md)", "no docs/nowhere.md"),
        ("[here](docs/adding.md#a-horse)", "no heading #a-horse in docs/adding.md"),
        ("# Here\n\n[there](#there)", "no heading #there in this document"),
        ("run `nowhere.sh`", "no nowhere.sh"),
        ("give `--nowhere 3`", "no program has --nowhere"),
        ("set `NOWHERE_AT_ALL`", "nothing is called NOWHERE_AT_ALL"),
        ("`bash training/step1_sft/run_tiny.sh --lerning_rate 1`", "did you mean --learning_rate"),
        ("`bash training/step3_dpo/run_tiny.sh --loss hinges`", "--loss hinges is unknown"),
        ("`python inference/chatbot.py --mode rm --temperature 1`", "not by --mode rm"),
        ("```bash\npython inference/nowhere.py\n```", "no inference/nowhere.py"),
        ("```bash\ncd training && bash run_tiny.sh\n```", "no run_tiny.sh"),
        ("```bash\nGPU=2 bash training/step1_sft/run_llama.sh\n```", "GPU sets nothing"),
        ("```bash\ncd training/step1_sft\nbash run_tiny.sh \\\n    --zero_stage 4  # no such\n```", "--zero_stage"),
        ("```bash\nmake all\n```", "make: no tool"),
        ("`python inference/rerank.py --nowhere 4 …`", "no program has --nowhere"),
    ],
)
def test_a_lie_is_found(lie, complaint):
    found = complaints(lie)
    assert found and all(complaint in one for one in found)


@pytest.mark.parametrize(
    "truth",
    [
        "`cd training/step3_dpo && bash run_dpo_llama.sh --beta 0.2`, `--loss ipo`, `LOSSES`, `/path/to/docs/mine.md`",
        "```bash\ncd training/step1_sft\nGPUS=2 ZERO_STAGE=2 bash run_llama.sh --seed 1   # two\n```",
        "```bash\ntorchrun --nproc_per_node 2 inference/chatbot.py --mode generate \\\n  --data_path d\n```",
        "`torchrun --nproc_per_node 4 inference/chatbot.py …` and `accelerate launch`",
        "# A place, here\n\n[there](docs/adding.md#a-model-family) and [here](#a-place-here)",
    ],
)
def test_the_truth_is_left_alone(truth):
    assert complaints(truth) == []


# ---- the examples of docs/adding.md


def example(heading: str) -> str:
    document = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
    section = document.split(f"\n## {heading}\n", 1)[1].split("\n## ")[0]
    (code,) = fences(section, "python")
    return code


def test_the_template_works():
    here = {**vars(wording), "TEMPLATES": {}}
    exec(example("A template"), here)
    from jinja2 import Template

    ((name, template),) = here["TEMPLATES"].items()
    messages = [{"role": role, "content": role[0].upper()} for role in ("system", "user", "assistant")]
    render = functools.partial(Template(template.jinja).render, bos_token="<s>", eos_token="</s>")
    assert (name, template.stop_strings) == ("qa", ("\nQ:",))
    assert render(messages=messages) == "<s>S\nQ: U\nA: A</s>\n"
    assert render(messages=messages[:2], add_generation_prompt=True) == "<s>S\nQ: U\nA:"


def test_the_loss_works():
    try:
        exec(example("A preference loss"), dict(vars(preference)))
        loss = preference.LOSSES["exponential"]
        assert loss(HAND, beta=0.1).tolist() == pytest.approx([0.860708], abs=1e-6)
        assert loss.value_at_start({"beta": 0.1}) == 1.0 and loss.options == ("beta",)
    finally:
        preference.LOSSES.pop("exponential", None)


def test_the_model_family_works():
    exec(example("A model family"), {})
