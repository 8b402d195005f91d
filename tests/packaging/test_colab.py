"""A first click on Colab replaces nothing that its running kernel may have loaded.

pip itself decides, offline: it is shown an environment that has what Colab has, and wheels without
contents for what it could fetch. Both lists are beside this file.
"""

import json
import re
import sys
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.packaging
HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]
BASE, EXTRAS = PROJECT["dependencies"], PROJECT["optional-dependencies"]
BEFORE = [  # what smallnets 0.1 first asked for
    line for line in BASE if not line.startswith(("ipython", "matplotlib"))
] + ["ipykernel>=6.29,<8", "matplotlib>=3.11,<4", "papermill>=2.6,<3"]


def listed(name: str) -> list[tuple[str, str, list[str]]]:
    """(name, version, requirements) of each entry of a list."""
    found: list[tuple[str, str, list[str]]] = []
    for line in (HERE / name).read_text().splitlines():
        if line.startswith(" "):
            found[-1][2].append(line.strip())
        elif not line.startswith("#"):
            found.append((*line.split("=="), []))
    return found


PRESENT = {name: version for name, version, _ in listed("colab-present.txt")}


def metadata(name: str, version: str, requires: Sequence[str]) -> str:
    """The METADATA of a package."""
    extras = sorted(set(re.findall(r'extra == "(\w+)"', "\n".join(requires))))
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    return "\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires), ""])


def write_wheel(folder: Path, name: str, version: str, requires: Sequence[str]) -> None:
    """A wheel that holds its metadata and nothing else."""
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        info = f"{stem}.dist-info"
        wheel.writestr(f"{info}/METADATA", metadata(name, version, requires))
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Path:
    """A Python whose site-packages say that they hold what Colab has."""
    folder = tmp_path_factory.mktemp("colab")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name, version, requires in listed("colab-present.txt"):
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(metadata(name, version, requires))
        (info / "RECORD").touch()
        (info / "INSTALLER").write_text("pip\n")
    return folder / "bin" / "python"


@pytest.fixture
def installed(colab, run, tmp_path):
    """installed(requirements) -> name: version of what pip would install of and for smallnets."""

    def call(requirements: Sequence[str]) -> dict[str, str]:
        for entry in listed("colab-fetched.txt"):
            write_wheel(tmp_path, *entry)
        write_wheel(tmp_path, "smallnets", "0.1.0", [line.split("#")[0] for line in requirements])
        report = tmp_path / "report.json"
        command = [sys.executable, "-m", "pip", "--python", colab, "install", "smallnets"]
        command += ["--dry-run", "--quiet", "--report", report, "--no-index", "--no-cache-dir"]
        done = run([*command, "--find-links", tmp_path], tmp_path, PIP_CONFIG_FILE="/dev/null")
        assert done.returncode == 0, done.stdout
        what = [one["metadata"] for one in json.loads(report.read_text())["install"]]
        return {canonicalize_name(one["name"]): one["version"] for one in what}

    return call


def test_nothing_that_colab_has_is_replaced(installed):
    fetched = installed([*BASE, *EXTRAS["colab"]])
    assert {"smallnets", "lightning-fabric", "onnx", "onnxruntime", "torch-pruning"} <= set(fetched)
    assert sorted(fetched.keys() & PRESENT.keys()) == []


def test_without_the_extra_only_protobuf_is_replaced(installed):
    """By the newest ONNX, which needs a newer one: hence the extra."""
    assert sorted(installed(BASE).keys() & PRESENT.keys()) == ["protobuf"]


def test_the_first_ranges_replaced_more_and_the_test_sees_it(installed):
    replaced = installed([*BEFORE, *EXTRAS["colab"]]).keys() & PRESENT.keys()
    assert {"ipykernel", "matplotlib"} <= replaced


@pytest.mark.parametrize("line", BASE)
def test_every_range_has_colabs_version_in_it(line):
    requirement = Requirement(line)
    version = PRESENT.get(canonicalize_name(requirement.name))
    assert version is None or requirement.specifier.contains(version)
