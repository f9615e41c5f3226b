"""Settings of every test: no network, quiet tokenizers, Ctrl-C; what document tests share. Neighbours (toys.py)
import by name."""

import os
import signal

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with Ctrl-C ignored


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of this checkout with what `bash run.sh` leaves, in small."""
    from checkout import make_checkout  # takes a second, which other tests need not spend

    return make_checkout(tmp_path_factory.mktemp("plumbline") / "checkout")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """The address of an oracle that answers for models of any name."""
    from oracle import oracle_program

    with oracle_program(tmp_path_factory.mktemp("oracle"), "--any_model") as (_, url):
        yield url


@pytest.fixture(scope="module")
def paid_judge(tmp_path_factory):
    """The address of an oracle that answers for OpenAI's models as their own server does."""
    from oracle import oracle_program

    with oracle_program(tmp_path_factory.mktemp("paid"), "--strict") as (_, url):
        yield url
