"""docs/feedback/replies.md: its forms are those that judges are shown, its examples are what the parsers read."""

import re

import pytest
from toys import ROOT

from utils.feedback.forms import FORMS
from utils.parsing import PARSERS, Unparsed

TEXT = (ROOT / "docs" / "feedback" / "replies.md").read_text(encoding="utf-8")
ARGUMENTS = {"rating": {"low": 1, "high": 7}, "order": {"count": 4}}
VALUES = {"low": 1, "high": 7, "number": "a whole number", "noun": "answer"}
SECTIONS = {part.split()[0].strip(","): part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]}
ROW = re.compile(r"\| `(.+)` \| (?:`(.+)`|unparsed: (.+)) \|")


def examples():
    for name, section in SECTIONS.items():
        for reply, value, reason in ROW.findall(section):
            yield name, reply.replace(r"\n", "\n"), value.replace(r"\n", "\n"), reason


@pytest.mark.parametrize("name, reply, value, reason", list(examples()))
def test_an_example(name, reply, value, reason):
    if reason:
        with pytest.raises(Unparsed) as failed:
            PARSERS[name].parse(reply, **ARGUMENTS.get(name, {}))
        assert failed.value.reason == reason
    else:
        assert str(PARSERS[name].parse(reply, **ARGUMENTS.get(name, {}))) == value


def test_every_row_is_an_example_and_every_kind_has_its_form():
    assert len(list(examples())) == len(re.findall(r"^\| `", TEXT, re.MULTILINE)) > 40
    for name in ("rating", "preference", "order", "explain", "critique", "refinement", "improve"):
        form = " ".join(re.findall(r"^> (.*)", SECTIONS[name], re.MULTILINE))
        assert form == FORMS[name].reply(False, **VALUES)
