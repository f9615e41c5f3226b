"""Lines, tables and bars show people's texts as they are; Ctrl-C is one line that says what is true."""

import io
import subprocess
import sys

import pytest
from processes import environment

from utils import reporting, tables

TEXT = "[bold]kind[/bold] :smile: [red] [/] c:\\\\"


def test_texts_come_out_as_they_are(capsys):
    reporting.say(TEXT)
    reporting.warn(TEXT)
    tables.show_table([TEXT], [[TEXT]])
    out = capsys.readouterr().out
    assert out.startswith(f"{TEXT}\nwarning: {TEXT}\n") and out.count(TEXT) == 4


def test_a_bar_shows_its_title_as_it_is(monkeypatch):
    shown = io.StringIO()
    drawn = reporting.Console(file=shown, force_terminal=True, width=200, color_system=None, emoji=False)
    monkeypatch.setattr(reporting, "console", drawn)
    with reporting.progress(f"reading {TEXT}", 1) as advance:
        advance(1, answer=TEXT)
    assert f"reading {TEXT} " in shown.getvalue() and f"answer {TEXT}" in shown.getvalue()


@pytest.mark.parametrize(
    ("before", "line"),
    [
        ("", "interrupted"),
        ("say('loading')", "interrupted"),
        ("bar = progress('writing', 2); bar.__enter__()", "interrupted; run the same command again to continue"),
    ],
)
def test_ctrl_c_names_what_continues_only_when_something_does(before, line):
    program = (
        "import os, signal\nfrom utils.reporting import progress, run_program, say\n"
        f"def main():\n    {before}\n    os.kill(os.getpid(), signal.SIGINT)\n    signal.pause()\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nrun_program(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, f"{line}\n")
