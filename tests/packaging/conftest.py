"""What the packaging tests share: the repository, a fresh clone of it, a command run to its end."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a surrounding `make test` hands down and an inner make must not see.
MAKE_PASSES = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON")
FENCED = r"^```{language}\n(.*?)^```"


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """run([command, ...], cwd, **environment) -> the finished process, both streams in `stdout`."""

    def call(
        command: Sequence[str | Path], cwd: Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if name not in MAKE_PASSES}
        return subprocess.run(
            command,
            cwd=cwd,
            env={**inherited, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )

    return call


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory, run: Callable) -> Path:
    """A fresh clone of what is committed: nothing that only lies in the working tree is in it."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    done = run(
        ["git", "-c", f"safe.directory={ROOT}", "clone", "--quiet", ROOT, folder], folder.parent
    )
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="session")
def fenced(root: Path) -> Callable[[str, str], list[str]]:
    """fenced(document, language) -> the code blocks of that language in a document at the top."""

    def blocks(document: str, language: str) -> list[str]:
        pattern = FENCED.format(language=language)
        return re.findall(pattern, (root / document).read_text(), flags=re.MULTILINE | re.DOTALL)

    return blocks
