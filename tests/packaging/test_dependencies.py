"""pyproject.toml, both environment.yml and requirements.lock name the same dependencies."""

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"pytorch": "torch", "pytorch-cpu": "torch"}
CONDA_ONLY = {"python", "pip", "jupyterlab"}
LOCKED_EXTRAS = ("notebooks", "book", "test")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def declared(extras: Sequence[str] = LOCKED_EXTRAS) -> dict[str, SpecifierSet]:
    """Name -> range of the dependencies of pyproject.toml with its extras, the locked ones."""
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    requirements = [Requirement(line) for line in lines]
    names = [canonicalize_name(requirement.name) for requirement in requirements]
    assert len(set(names)) == len(names), "a dependency is declared twice"
    return {name: r.specifier for name, r in zip(names, requirements, strict=True)}


def listed(file: str) -> tuple[list[str], list[str]]:
    """What conda and what pip brings of an environment.yml."""
    entries = yaml.safe_load((ROOT / file).read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    return [entry for entry in entries if isinstance(entry, str)], pip


def conda(file: str = "environment.yml") -> dict[str, SpecifierSet]:
    """Name -> range of an environment.yml, under the names of pyproject.toml."""
    plain, pip = listed(file)
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


def test_conda_environment_installs_the_package():
    assert "--editable ." in listed("environment.yml")[1]


def test_binder_has_what_running_the_notebooks_needs_and_no_more():
    needed, binder = declared(["notebooks"]), conda("binder/environment.yml")
    assert binder.keys() - needed.keys() == CONDA_ONLY
    assert {name: binder.get(name) for name in needed} == needed
    assert binder["python"] == SpecifierSet(PROJECT["requires-python"])
    assert binder["jupyterlab"] == conda()["jupyterlab"]


def test_binder_gets_pytorch_once_and_without_cuda():
    plain, pip = listed("binder/environment.yml")
    assert [line for line in plain if line.startswith("pytorch")] == [
        f"pytorch-cpu{line.removeprefix('torch')}"
        for line in PROJECT["dependencies"]
        if re.match(r"torch\b(?!-)", line)
    ]
    assert not any(re.match(r"(torch|torchvision)\b(?!-)", line) for line in pip)
    script = ROOT / "binder" / "postBuild"
    assert os.access(script, os.X_OK)
    assert "pip install --no-cache-dir --no-deps --editable ." in script.read_text()


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
