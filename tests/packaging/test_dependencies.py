"""pyproject.toml, environment.yml and requirements.lock name the same dependencies."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"pytorch": "torch"}
CONDA_ONLY = {"python", "pip", "jupyterlab"}
LOCKED_EXTRAS = ("book", "test")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def declared() -> dict[str, SpecifierSet]:
    """Name -> range of the dependencies of pyproject.toml with the locked extras."""
    lines = list(PROJECT["dependencies"])
    for extra in LOCKED_EXTRAS:
        lines += PROJECT["optional-dependencies"][extra]
    requirements = [Requirement(line) for line in lines]
    names = [canonicalize_name(requirement.name) for requirement in requirements]
    assert len(set(names)) == len(names), "a dependency is declared twice"
    return {name: r.specifier for name, r in zip(names, requirements, strict=True)}


def conda() -> dict[str, SpecifierSet]:
    """Name -> range of environment.yml, under the names of pyproject.toml."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    plain = [entry for entry in entries if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    assert "--editable ." in pip
    requirements = [Requirement(line) for line in plain + pip if not line.startswith("-")]
    names = [canonicalize_name(CONDA_NAMES.get(r.name, r.name)) for r in requirements]
    assert len(set(names)) == len(names), "a dependency is listed twice"
    return {name: r.specifier for name, r in zip(names, requirements, strict=True)}


def locked() -> list[tuple[str, Version, list[str]]]:
    """(name, version, hashes) of each entry of the lock file; a name may have one a marker."""
    found = []
    for entry in re.split(r"\n(?=[A-Za-z0-9])", LOCK):
        match = re.match(r"([A-Za-z0-9._-]+)==(\S+)", entry)
        assert match, f"not an exact version: {entry.splitlines()[0]}"
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})(?=\s)", entry + "\n")
        found.append((canonicalize_name(match[1]), Version(match[2]), hashes))
    return found


def test_conda_environment_has_the_same_dependencies():
    extra = conda().keys() - declared().keys()
    assert extra == CONDA_ONLY
    assert {name: conda().get(name) for name in declared()} == declared()


def test_conda_environment_has_the_same_python():
    assert conda()["python"] == SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("name", declared())
def test_locked_version_is_inside_its_range(name):
    versions = [version for locked_name, version, _ in locked() if locked_name == name]
    assert versions, f"{name} is not in requirements.lock: make lock"
    assert all(declared()[name].contains(version) for version in versions)


def test_every_locked_version_has_hashes():
    assert len(locked()) > len(declared())
    assert [name for name, _, hashes in locked() if not hashes] == []


def test_lock_names_no_index():
    options = [line for line in LOCK.splitlines() if line.lstrip().startswith("-")]
    assert [line for line in options if not re.match(r"    --hash=sha256:", line)] == []
    assert not re.search(r"://|\b[a-z0-9-]+\.(org|com|io|net|dev)\b", LOCK)


def test_jupyter_book_2_is_shut_out():
    """It ignores _config.yml, writes no page and reports success."""
    assert not declared()["jupyter-book"].contains("2.0.0")


def test_build_tools_are_locked():
    """The package itself is built without isolation, with what the lock file brings."""
    (build,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    (version,) = [version for name, version, _ in locked() if name == Requirement(build).name]
    assert Requirement(build).specifier.contains(version)
