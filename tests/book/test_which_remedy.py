"""The page "Which remedy for my network?": every block runs, in the order in which it is read."""

import re
from pathlib import Path

import pytest

from smallnets.cli import cli
from smallnets.training import seeded

PAGE = Path(__file__).parents[2] / "book" / "which-remedy.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def text():
    return PAGE.read_text(encoding="utf-8")


def test_its_blocks_run(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "which_remedy"}
    for block in BLOCK.findall(text):
        with seeded(0):
            exec(compile(block, PAGE.name, "exec"), names)
    tried, said = names["tried"], capsys.readouterr().out
    assert not tried.refused
    assert tried["original"].accuracy > 0.8
    assert said.count(tried.verdict) == 2
    assert "within 20,000 bytes the best is" in tried.verdict
    columns = set(tried.table().columns)
    assert {"accuracy", "agreement", "parameters", "MACs", "bytes", "front"} <= columns


def test_its_blocks_fit_a_telephone(text):
    for block in BLOCK.findall(text):
        assert len(block.splitlines()) <= 20
        assert max(map(len, block.splitlines())) <= 64


def test_its_command_is_there(text):
    assert "smallnets measure " in text
    assert "measure" in cli.commands
