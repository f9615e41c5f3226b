"""What a person gives the oracle's server wrongly: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import socket

import in_process
import pytest
from oracle import PROGRAM


@pytest.fixture
def refuse(capsys):
    def run(*words):
        code, stderr = in_process.run(PROGRAM, *words), capsys.readouterr().err
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert code == 2 and len(errors) == 1 and "Traceback" not in stderr, stderr
        return errors[0]

    return run


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--faults", "429=often"], "--faults: the rate of 429 is 'often'; expected KIND=RATE"),
        (["--faults", "429"], "--faults: the rate of 429 is ''; expected KIND=RATE"),
        (["--faults", "418=0.1"], "unknown fault '418'; known: 429, 429-retry-after, 500, time-out, reset"),
        (["--faults", "429=1.5"], "the rate of 429 is 1.5; expected 0 to 1"),
        (["--faults", "429=nan"], "the rate of 429 is nan; expected 0 to 1"),
        (["--faults", "429=0.6,500=0.6"], "the rates of faults add up to 1.2; expected at most 1"),
        (["--noise", "2"], "--noise is 2.0; expected 0 to 1"),
        (["--position_bias", "-0.1"], "--position_bias is -0.1; expected 0 to 1"),
        (["--noise_temperature", "nan"], "--noise_temperature is nan; expected 0 or more"),
        (["--latency", "-1"], "--latency is -1.0; expected 0 or more"),
        (["--port", "70000"], "--port is 70000; expected 0 to 65535"),
        (["--port", "http"], "argument --port: invalid int value"),
        (["--parent_pid", "99999999"], "--parent_pid 99999999: there is no such process"),
        (["--fault", "429=1"], "unknown option --fault; did you mean --faults?"),
        (["--host", "256.0.0.1", "--port", "0"], "--host 256.0.0.1 --port 0: cannot listen there"),
    ],
)
def test_a_wrong_option(refuse, words, complaint):
    assert complaint in refuse(*words)


def test_a_port_that_is_taken(refuse, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = refuse("--port", taken.getsockname()[1], "--url_file", tmp_path / "url")
    assert "cannot listen there: " in line and "in use" in line and list(tmp_path.iterdir()) == []


def test_an_address_that_cannot_be_written(refuse, tmp_path):
    assert "cannot be written" in refuse("--port", "0", "--url_file", tmp_path / "nowhere" / "url")
    assert "is a folder; expected the name of a file" in refuse("--port", "0", "--url_file", tmp_path)
    assert list(tmp_path.iterdir()) == []
