"""What a newcomer opens first: the README's map of the rooms, CONTRIBUTING's table, the license, the citation."""

import hashlib
import re

import pytest
import yaml
from test_layout import LAYER_OF
from toys import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def rooms_in_readme():
    tree = README.split("\nutils/ ", 1)[1].split("\n```")[0]
    return re.findall(r"^  ([\w.]+)/? +\S", tree, re.MULTILINE)


def test_the_readme_names_every_room_of_utils():
    rooms = {path.name for path in (ROOT / "utils").iterdir()} - {"__init__.py", "__pycache__"}
    assert sorted(rooms_in_readme()) == sorted(rooms)


def test_the_readme_lists_a_room_below_those_that_it_imports_from():
    layers = [LAYER_OF[room.removesuffix(".py")] for room in rooms_in_readme()]
    assert layers == sorted(layers)


def test_the_reading_order_names_files():
    steps = README.split("<!-- reading order -->", 1)[1].split("<!-- end of the reading order -->")[0]
    files = re.findall(r"^\d+\. `(utils/\S+\.py)`", steps, re.MULTILINE)
    assert len(files) == len(re.findall(r"^\d+\. ", steps, re.MULTILINE)) >= 9
    assert all((ROOT / file).is_file() for file in files)


def test_every_question_of_contributing_has_its_file():
    table = CONTRIBUTING.split("\n## Where would you change", 1)[1]
    rows = [row.strip("|").split("|") for row in table.splitlines() if row.startswith("|")][2:]
    assert len(rows) == 20
    for question, answer in rows:
        paths = re.findall(r"`([^`]+)`", answer)
        assert paths and all((ROOT / path).exists() for path in paths), question
    assert len(CONTRIBUTING.splitlines()) <= 70


def test_the_license_is_apache_2():
    """Word for word, but for the line of the copyright."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.count("Copyright 2026 The Plumbline authors") == 1
    official = text.replace("2026 The Plumbline authors", "[yyyy] [name of copyright owner]")
    assert hashlib.md5(official.encode()).hexdigest() == "3b83ef96387f14655fc854ddc3c6bd57"  # of LICENSE-2.0.txt
    assert '\nlicense = "Apache-2.0"\n' in PROJECT and CITATION["license"] == "Apache-2.0"


def test_the_citation_is_valid():
    """The keys that the Citation File Format 1.2.0 requires, of the project and of each reference."""
    assert CITATION["cff-version"] == "1.2.0" and CITATION["message"] and CITATION["type"] == "software"
    assert f'\nname = "{CITATION["title"].lower()}"\nversion = "{CITATION["version"]}"\n' in PROJECT
    assert CITATION["authors"] == [{"name": "The Plumbline authors"}]
    assert len(CITATION["references"]) == 5
    for reference in CITATION["references"]:
        assert reference["type"] in ("article", "conference-paper") and reference["title"]
        assert all({*author} == {"given-names", "family-names"} for author in reference["authors"])
        assert reference["authors"] and 2023 <= reference["year"] <= 2025
        assert re.fullmatch(r"https://arxiv\.org/abs/2\d{3}\.\d{5}", reference["url"])


def test_feedback_answers_i_have_x_i_want_y():
    first = (ROOT / "docs/feedback.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in first.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 12
    linked = {re.search(r"\]\((feedback/\w+\.md)", row[3])[1] for row in rows}
    chapters = {f"feedback/{path.name}" for path in (ROOT / "docs/feedback").glob("*.md")}
    assert linked | {"feedback/own_kinds.md"} == chapters and "(feedback/own_kinds.md)" in first


@pytest.mark.parametrize("path", sorted((ROOT / "docs/feedback").glob("*.md")), ids=lambda p: p.name)
def test_a_chapter_of_feedback_is_short(path):
    assert len(path.read_text(encoding="utf-8").split()) <= 1000
