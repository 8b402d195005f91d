"""The page "On your own network": every block runs, in the order in which it is read."""

import re
from pathlib import Path

import pytest
import torch

from smallnets.training import seeded

PAGE = Path(__file__).parents[2] / "book" / "your-network.md"
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, list[str]]:
    """Heading -> its blocks of code, as far as it has any."""
    parts = SECTION.split(PAGE.read_text(encoding="utf-8"))
    found = {
        title: BLOCK.findall(text) for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {title: blocks for title, blocks in found.items() if blocks}


@pytest.fixture(scope="module")
def names() -> dict[str, object]:
    """What the blocks before have defined."""
    return {"__name__": "your_network"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("title", sections())
def test_a_first_step_runs(title, names):
    for block in sections()[title]:
        with seeded(0):
            exec(compile(block, f"{PAGE.name}: {title}", "exec"), names)


def test_there_is_one_for_every_room():
    text = PAGE.read_text(encoding="utf-8")
    assert len(sections()) == 16  # what the reader brings, and fifteen first steps
    rooms = (
        "training",
        "measure",
        "distill",
        "prune",
        "search",
        "gan",
        "quantize",
        "structure",
        "synthesize",
        "deploy",
    )
    assert all(
        f"from smallnets.{room} import" in text or f"from smallnets import {room}\n" in text
        for room in rooms
    )


def test_blocks_fit_a_telephone():
    lines = [
        line for blocks in sections().values() for block in blocks for line in block.splitlines()
    ]
    assert max(map(len, lines)) <= 64
    for title, blocks in sections().items():
        for block in blocks:
            assert len(block.splitlines()) <= 20, title


def test_what_the_page_trains_is_better_than_chance(names):
    logits, labels = names["measure"].predict_with_labels(names["teacher"], names["test"])
    assert names["measure"].accuracy(logits, labels) > 0.6
    assert torch.isfinite(logits).all()
