"""A program that cannot run ends with one line: no environment, a missing package, no hub, Ctrl-C at any moment."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv

import pytest
from processes import environment
from test_layout import PROGRAMS_STARTED
from test_no_torch import SITE
from toys import ROOT

ACTIVATE = "source training/environment.sh"


def ended(*words, **settings):
    """(exit code, stderr) of a command."""
    env = {**os.environ, **{name: str(value) for name, value in settings.items()}}
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, env=env, cwd=ROOT)
    return done.returncode, done.stderr


@pytest.mark.parametrize("program", PROGRAMS_STARTED, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_program_without_the_environment(program):
    code, said = ended(sys.executable, "-I", "-S", program)
    assert (code, said.count("\n")) == (2, 1) and said.startswith("error: ") and ACTIVATE in said


def test_a_project_without_its_packages(tmp_path):
    """The project is found (PYTHONPATH), what it needs is not; torch is needed by training and inference alone."""
    for program in ("training/step1_sft/main.py", "inference/report.py", "data_collect/oracle_server.py"):
        code, said = ended(sys.executable, "-S", program, PYTHONPATH=ROOT)
        assert (code, said.count("\n")) == (2, 1) and "lacks the package numpy" in said and ACTIVATE.split()[1] in said
    (tmp_path / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    code, said = ended(sys.executable, "training/step3_ppo/main.py", PYTHONPATH=path)
    assert code == 2 and said.count("\n") == 1 and "lacks the package torch" in said


def tools(folder, *programs):
    """A folder for PATH that holds these programs alone, and what launch.sh itself calls."""
    folder.mkdir()
    for name in ("bash", "dirname", *programs):
        for place in os.environ["PATH"].split(os.pathsep):
            if os.path.exists(os.path.join(place, name)):
                (folder / name).symlink_to(os.path.join(place, name))
                break
    return folder


def test_a_script_without_the_environment(tmp_path):
    script, none = ROOT / "training/step1_sft/run_llama.sh", {"VIRTUAL_ENV": tmp_path}
    path = tools(tmp_path / "bin")
    code, said = ended("/bin/bash", script, PATH=path, **none)
    assert (code, said.count("\n")) == (2, 1) and ACTIVATE.split()[1] in said
    (path / "python").write_text(f'#!/bin/bash\nexec {sys.executable} -I -S "$@"\n')
    (path / "python").chmod(0o755)
    code, said = ended("/bin/bash", script, PATH=path, **none)
    assert (code, said.count("\n")) == (2, 1) and ACTIVATE in said


def test_the_environment_is_noted_only_when_it_was_installed(tmp_path):
    """`source training/environment.sh`, typed in a shell that goes on after an error; pip is a stand-in."""
    (tmp_path / "pip").write_text('#!/bin/bash\necho "pip $1"; exit "${PIP_ENDS:-0}"\n')
    (tmp_path / "pip").chmod(0o755)
    source = "source training/environment.sh >&2; echo ended $? >&2"
    settings = {"VIRTUAL_ENV": tmp_path, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for ends, words in ((1, "pip install\nended 1\n"), (0, "pip install\nended 0\n")):
        assert ended("bash", "-c", source, PIP_ENDS=ends, **settings)[1].endswith(words)
    assert ended("bash", "-c", source, **settings)[1] == "ended 0\n"


def checkout(folder):
    """A second checkout of the project, so far as its programs for data need it."""
    for name in ("utils", "data_collect"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "training").mkdir()
    for name in ("training/environment.sh", "training/launch.sh", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.slow
def test_two_checkouts_share_an_environment(tmp_path):
    """The second prints a line and leaves the first's install alone; each runs its own programs, REINSTALL=1 moves
    it."""
    first, second, env = checkout(tmp_path / "first"), checkout(tmp_path / "the second"), tmp_path / "env"
    venv.create(env)
    (site,) = env.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(f"{first}\n{sysconfig.get_path('purelib')}\n")
    about = site / "plumbline-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: plumbline\nVersion: 0.1.0\n")
    noted = '{"url": "file://%s", "dir_info": {"editable": true}}'
    pip = f"""#!/bin/bash
        last="${{@: -1}}"
        printf '{noted}' "${{last// /%20}}" >'{about}/direct_url.json'
        echo "${{last}}" >>'{tmp_path}/installs'"""
    (env / "bin/pip").write_text(pip)
    (env / "bin/pip").chmod(0o755)
    path = f"{env / 'bin'}:{os.environ['PATH']}"
    kept = {**environment(), "VIRTUAL_ENV": str(env), "PATH": path}
    del kept["PYTHONPATH"]

    def typed(script):
        done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, env=kept, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    installs = lambda: (tmp_path / "installs").read_text().splitlines()  # noqa: E731
    here, there = f"source '{first}/training/environment.sh'", f"source '{second}/training/environment.sh'"
    program = "data_collect/make_world.py --help"
    assert typed(here)[0] == 0 and installs() == [str(first)]
    code, out, err = typed(f"{there}\npython {program}")
    assert code == 0, err
    assert out.startswith(f"{env} belongs to the checkout {first} and keeps it; this shell uses {second}")
    assert out.splitlines()[1].startswith("usage:") and installs() == [str(first)]
    for command in (here, f"python '{first}'/{program}"):  # the first is as it was, with its environment.sh and without
        assert typed(command)[0] == 0 and installs() == [str(first)]
    code, _, err = typed(f"python '{second}'/{program}")
    assert (code, err.count("\n")) == (2, 1) and f"set PYTHONPATH={second}" in err
    code, out, _ = typed(f"REINSTALL=1 {there}")
    assert code == 0 and "belongs" not in out and installs() == [str(first), str(second)]
    assert f"belongs to the checkout {second} and keeps it" in typed(here)[1] and len(installs()) == 2


def test_ctrl_c_while_a_program_imports(tmp_path):
    (tmp_path / "numpy.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    words = [sys.executable, ROOT / "training/step1_sft/main.py"]
    env = environment(PYTHONPATH=os.pathsep.join(map(str, (tmp_path, ROOT))))
    program = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "importing\n"
    program.send_signal(signal.SIGINT)
    assert (program.communicate(timeout=20)[1], program.returncode) == ("interrupted\n", 130)


def test_a_hub_that_cannot_be_reached_is_not_tried_again():
    """huggingface_hub alone tries each file six times, within 23 seconds."""
    settings = {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1", "PYTHONPATH": ROOT}
    ask = (
        "from utils.errors import UserError\nfrom utils.raw_datasets.sources import open_source\n"
        "from utils.model.from_scratch import token_counter\nimport sys\n"
        "for ask in (token_counter, open_source):\n"
        "    try:\n        ask('no-such/name')\n"
        "    except UserError as error:\n        print(error, file=sys.stderr)\n"
    )
    started = time.monotonic()
    code, said = ended(sys.executable, "-c", ask, **settings)
    assert code == 0 and time.monotonic() - started < 20, said
    assert said.count("\n") == 2 and "no-such/name: cannot be loaded" in said and "no such file or folder, and" in said


@pytest.mark.slow
def test_accelerate_on_cpus_says_that_it_starts_one_process():
    words = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "data_collect/group.py", "--nowhere")
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert done.returncode and "accelerate launch started one process; on CPUs --use_deepspeed" in done.stdout
