"""Every run_*.sh parses, opens with the five lines that people edit, and gives only flags that its stage knows."""

import importlib.util
import re
import subprocess

import pytest
from toys import ROOT

SCRIPTS = sorted((ROOT / "training").glob("step*/run_*.sh"))


def options_of(folder, capsys):
    spec = importlib.util.spec_from_file_location(f"{folder.name}_main", folder / "main.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit):
        module.main(["--help", "all"])
    return set(re.findall(r"--([a-z_0-9]+)", capsys.readouterr().out))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_script(script, capsys):
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    settings = re.findall(r"^(MODEL|DATA|OUTPUT|GPUS|ZERO_STAGE)=\$\{\1:-", text, re.MULTILINE)
    assert settings == ["MODEL", "DATA", "OUTPUT", "GPUS", "ZERO_STAGE"]
    command = text.split("\nlaunch ", 1)[1]
    used = set(re.findall(r"(?m)^\s+--([a-z_0-9]+)", command))
    assert used and used <= options_of(script.parent, capsys)
    assert command.rstrip().endswith('-- "$@"')
    assert len(re.findall(r"(?m)^\s+--([a-z_0-9]+)", command)) == len(used)


def test_run_sh_calls_the_tiny_scripts_as_they_are():
    """So that a script typed after `bash run.sh` finds its run finished."""
    lines = [line for line in (ROOT / "run.sh").read_text().splitlines() if "training/step" in line]
    assert len(lines) == 4
    assert all(re.fullmatch(r"step \w+ +bash training/step\w+/run_\w*tiny\.sh", line) for line in lines)


def test_every_stage_has_its_scripts():
    for folder in ("step1_sft", "step2_reward", "step3_dpo", "step3_ppo"):
        names = {s.name for s in SCRIPTS if s.parent.name == folder}
        assert all(any(word in name for name in names) for word in ("tiny", "llama", "lora"))


@pytest.mark.parametrize(
    "script", [*(ROOT / "training").glob("*.sh"), ROOT / "run.sh", ROOT / "test.sh"], ids=lambda p: p.name
)
def test_machinery_parses(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.stem.endswith("llama")], ids=lambda p: p.parent.name)
def test_a_gpu_script_says_what_it_needs(script):
    head = script.read_text().split("\nsource ")[0]
    assert re.search(r"8 GPUs of \d+ GB", head)
    assert all(f"{word}:" in head for word in ("Before", "Memory", "Time")) and "estimates" in head
    named = re.findall(r"training/\S+\.sh", head)
    assert all((ROOT / name).is_file() for name in named) and (named or script.parent.name == "step1_sft")


def test_the_example_of_a_cluster_is_true():
    """GPUS: every script has its own default."""
    defaults = {re.search(r"^GPUS=\$\{GPUS:-(\d+)\}", s.read_text(), re.MULTILINE)[1] for s in SCRIPTS}
    line = re.search(r"^# GPUS=.*", (ROOT / "training/cluster.sh.example").read_text(), re.MULTILINE)[0]
    assert "the script's own" in line and defaults == set(re.findall(r"\b\d+\b", line.split("own")[1]))


def test_steps_of_run_sh_are_numbered_in_its_order(tmp_path):
    """A later run, whose steps were done in another order, numbers them anew and keeps their seconds."""
    step = re.search(r"^STEPS=0\n.*?^}\n", (ROOT / "run.sh").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0]
    done = tmp_path / ".done"
    done.mkdir()
    (done / "first").write_text("true \n7\n")
    for script in ("step second true; step third sleep 1", "step first true; step second true; step third sleep 1"):
        subprocess.run(["bash", "-euo", "pipefail", "-c", f"T={tmp_path}\n{step}{script}"], check=True)
    lines = {file.name: file.read_text().splitlines()[1:] for file in done.iterdir()}
    assert lines["first"] == ["1 7"] and lines["second"][0][:2] == "2 " and lines["third"][0] in ("3 1", "3 2")
