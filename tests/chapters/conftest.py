import json
from pathlib import Path

import matplotlib as mpl
import pytest

from smallnets.book.execution import execute

CHAPTERS = Path(__file__).parents[2] / "chapters"
NOTEBOOKS = sorted(CHAPTERS.glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request) -> Path:
    return request.param


@pytest.fixture
def cells(notebook):
    return json.loads(notebook.read_text())["cells"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(notebook, **parameters) -> the record of an execution with nothing kept from before."""

    def execute_fresh(notebook: Path, **parameters) -> dict:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        monkeypatch.setenv("SMALLNETS_CACHE", str(folder / "cache"))
        executed = execute(notebook, folder, parameters)
        return json.loads(executed.with_suffix(".record.json").read_text())

    return execute_fresh


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start(notebook, **parameters) runs a chapter's cells in this process, until one fails."""
    monkeypatch.chdir(CHAPTERS)
    monkeypatch.setenv("SMALLNETS_CACHE", str(tmp_path))

    def run_cells(notebook: Path, **parameters) -> None:
        names: dict = {}
        with mpl.rc_context():
            for cell in json.loads(notebook.read_text())["cells"]:
                if cell["cell_type"] == "code" and cell["id"] != "colab":
                    exec("".join(cell["source"]), names)
                if cell["id"] == "parameters":
                    assert parameters.keys() <= names.keys()
                    names |= parameters

    return run_cells
