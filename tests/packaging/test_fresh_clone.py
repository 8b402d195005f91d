"""A fresh clone has all that the commands of the README need."""

import os
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

SET_UP = [
    "python3 -m venv .venv",
    ".venv/bin/pip install --quiet --require-hashes -r requirements.lock",
    ".venv/bin/pip install --quiet --no-deps --no-build-isolation -e .",
]
FOLDERS = ("src/smallnets", "book", "chapters", "benchmarks", "tests/book", "tests/chapters")
BUILD = ".venv/bin/jupyter-book build . -W -n --keep-going"


def positions(text: str, steps: list[str]) -> list[int]:
    """Where each step begins in `text`; -1 where it does not."""
    return [text.find(step) for step in steps]


def test_book_sets_itself_up_and_builds(clone, run):
    plan = run(["make", "-n", "book"], clone)
    assert plan.returncode == 0, plan.stdout
    found = positions(plan.stdout, [*SET_UP, BUILD])
    assert -1 not in found
    assert found == sorted(found)


def test_test_sets_itself_up_and_runs_every_part(clone, run):
    plan = run(["make", "-n", "test"], clone)
    assert plan.returncode == 0, plan.stdout
    parts = ["ruff check", "ruff format --check", "mypy", "lint-imports", "pytest", BUILD]
    parts += ["tests/packaging", "tests/chapters", "tests/book", "--nbval"]
    assert -1 not in positions(plan.stdout, [*SET_UP, *parts])
    for step in SET_UP:
        assert plan.stdout.count(step) == 1


def test_folders_that_the_commands_name_are_committed(clone):
    for folder in FOLDERS:
        assert any((clone / folder).iterdir()), folder
    for file in ("_config.yml", "_toc.yml", "requirements.lock", "environment.yml"):
        assert (clone / file).stat().st_size > 0, file
    assert os.access(clone / ".ci" / "run", os.X_OK)


def test_second_call_does_only_what_changed(clone, run, tmp_path):
    """Nothing if nothing did; the build for a new page, the set-up for a new lock file."""
    copy = tmp_path / "clone"
    assert run(["git", "clone", "--quiet", clone, copy], tmp_path).returncode == 0
    for made in (copy / ".venv" / ".ready", copy / "_build" / "html" / "index.html"):
        made.parent.mkdir(parents=True)
        made.touch()

    def plan(changed: str | None) -> str:
        old, new = (1_700_000_000 + day * 86_400 for day in (0, 1))
        for path in copy.rglob("*"):
            os.utime(path, (old, old))
        for made in (copy / ".venv" / ".ready", copy / "_build" / "html" / "index.html"):
            os.utime(made, (new, new))
        if changed:
            os.utime(copy / changed, (new + 1, new + 1))
        return run(["make", "-n", "book"], copy).stdout

    assert "pip install" not in plan(None)
    assert BUILD not in plan(None)
    for source in ("_toc.yml", "book/references.bib", "src/smallnets/__init__.py"):
        assert BUILD in plan(source), source
        assert "pip install" not in plan(source), source
    for source in ("pyproject.toml", "requirements.lock"):
        assert -1 not in positions(plan(source), [*SET_UP[1:], BUILD]), source


def test_without_a_browser_the_tests_say_what_to_install(clone, run, tmp_path):
    for tool in ("sh", "find", "make"):
        (tool_path,) = run(["sh", "-c", f"command -v {tool}"], clone).stdout.split()
        (tmp_path / tool).symlink_to(tool_path)
    done = run([tmp_path / "make", "test"], clone, PATH=str(tmp_path))
    assert done.returncode != 0
    assert "apt-get install chromium" in done.stdout
    assert "pip" not in done.stdout


@pytest.fixture(scope="module")
def wheel(clone, run, tmp_path_factory) -> Path:
    """The wheel that the clone builds."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = run([*command, "--wheel-dir", folder, clone], folder)
    assert done.returncode == 0, done.stdout
    (path,) = folder.glob("smallnets-*.whl")
    return path


def test_wheel_holds_the_package_and_no_more(wheel, clone):
    names = zipfile.ZipFile(wheel).namelist()
    package = {name for name in names if ".dist-info/" not in name}
    source = clone / "src"
    files = {path for path in (source / "smallnets").rglob("*") if path.is_file()}
    assert package == {str(path.relative_to(source)) for path in files}


def test_wheel_names_version_command_and_licences(wheel, clone):
    project = tomllib.loads((clone / "pyproject.toml").read_text())["project"]
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    metadata = archive.read(f"{info}/METADATA").decode()
    (version,) = [
        line.split('"')[1]
        for line in (clone / "src/smallnets/__init__.py").read_text().splitlines()
        if line.startswith("__version__")
    ]
    assert f"\nVersion: {version}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert metadata.count("\nRequires-Dist: ") >= len(project["dependencies"])
    assert "smallnets = smallnets.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert {f"{info}/licenses/{name}" for name in ("LICENSE", "LICENSE-prose.md")} <= set(
        archive.namelist()
    )


def test_every_module_of_the_wheel_imports(wheel, run, tmp_path):
    """Away from the repository, so that nothing comes from the source folder."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = (
        "import importlib, pkgutil, smallnets\n"
        "for module in pkgutil.walk_packages(smallnets.__path__, 'smallnets.'):\n"
        "    importlib.import_module(module.name)\n"
        "import smallnets.cli\n"
        "print(smallnets.__file__, callable(smallnets.cli.main))\n"
    )
    done = run([sys.executable, "-c", script], tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert done.stdout.split()[-2:] == [str(tmp_path / "smallnets" / "__init__.py"), "True"]
