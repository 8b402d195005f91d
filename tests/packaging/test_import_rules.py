"""The rooms of the library import only what lies below them, and the rule is one that bites."""

import shutil
import sys
from pathlib import Path

import pytest

LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def library(root, tmp_path) -> Path:
    """A copy of the library with the rules, to be spoilt."""
    shutil.copy(root / "pyproject.toml", tmp_path)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "src" / "smallnets", tmp_path / "src" / "smallnets", ignore=ignore)
    return tmp_path


@pytest.fixture
def lint(library, run):
    """lint() -> (whether the rules are kept, what the linter says)."""

    def call() -> tuple[bool, str]:
        source = str(library / "src")
        done = run([LINT, "--no-cache", "--no-logo"], library, PYTHONPATH=source)
        assert "Contracts" in done.stdout, done.stdout
        return done.returncode == 0, done.stdout

    return call


def test_library_keeps_the_rules(lint):
    kept, says = lint()
    assert kept, says


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("checks", "storage"),
        ("storage", "data"),
        ("data", "models"),
        ("models", "measure"),
        ("measure", "training"),
        ("training", "distill"),
        ("distill", "quantize"),
        ("quantize", "distill"),
        ("distill", "deploy"),
        ("quantize", "studies"),
        ("losses", "measure"),
        ("surgery", "training"),
        ("deploy", "studies"),
        ("deploy", "remedies"),
        ("studies", "remedies"),
        ("remedies", "studies"),
        ("remedies", "book"),
        ("studies", "book"),
        ("deploy", "book"),
        ("book", "cli"),
    ],
)
def test_import_against_the_rules_is_caught(importer, imported, library, lint):
    package = library / "src" / "smallnets"
    for room in (importer, imported):
        if not (package / room).is_dir() and not (package / f"{room}.py").exists():
            (package / room).mkdir()
            (package / room / "__init__.py").touch()
    home = package / importer
    module = home / "misplaced.py" if home.is_dir() else home.with_suffix(".py")
    with module.open("a") as file:
        file.write(f"\nfrom smallnets import {imported}\n")

    kept, says = lint()
    assert not kept
    assert f"smallnets.{importer} is not allowed to import smallnets.{imported}" in says


def test_room_without_a_place_is_caught(library, lint):
    room = library / "src" / "smallnets" / "attic"
    room.mkdir()
    (room / "__init__.py").touch()
    kept, says = lint()
    assert not kept
    assert "attic" in says
