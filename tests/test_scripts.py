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
        module.main(["--help"])
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


def test_every_stage_has_its_scripts():
    for folder in ("step1_sft", "step2_reward", "step3_dpo", "step3_ppo"):
        names = {s.name for s in SCRIPTS if s.parent.name == folder}
        assert all(any(word in name for name in names) for word in ("tiny", "llama", "lora"))


@pytest.mark.parametrize(
    "script", [*(ROOT / "training").glob("*.sh"), ROOT / "run.sh", ROOT / "test.sh"], ids=lambda p: p.name
)
def test_machinery_parses(script):
    subprocess.run(["bash", "-n", script], check=True)
