import json
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from smallnets.book.execution import ENVIRONMENT, execute

CHAPTERS = Path(__file__).parents[2] / "chapters"
NOTEBOOKS = sorted(CHAPTERS.glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request) -> Path:
    return request.param


@pytest.fixture
def first_notebook() -> Path:
    return NOTEBOOKS[0]


@pytest.fixture
def cells(notebook):
    return json.loads(notebook.read_text())["cells"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(notebook, **parameters) -> the record of an execution with nothing kept from before."""

    def execute_fresh(notebook: Path, **parameters) -> dict:
        monkeypatch.setenv("SMALLNETS_CACHE", str(tmp_path / "cache"))
        executed = execute(notebook, tmp_path / "run", parameters)
        return json.loads(executed.with_suffix(".record.json").read_text(encoding="utf-8"))

    return execute_fresh


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start(notebook, **parameters) -> the record of a chapter whose cells run in this process,
    with nothing kept from before; the error of the first cell that fails is raised. What its cells
    have named is in `start.names`.

    A kernel takes longer to start than many a chapter at the scale smoke, and so do its workers.
    """
    monkeypatch.chdir(CHAPTERS)
    monkeypatch.setenv("SMALLNETS_CACHE", str(tmp_path / "cache"))
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, ENVIRONMENT[name])

    def run_cells(notebook: Path, **parameters) -> dict:
        names = run_cells.names = {}
        given = {"output_dir": str(tmp_path / "run"), **parameters}
        with mpl.rc_context(), plain_figures():
            for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
                if cell["cell_type"] == "code" and cell["id"] != "colab":
                    exec("".join(cell["source"]), names)
                if cell["id"] == "parameters":
                    assert given.keys() <= names.keys()
                    names |= given
        record = tmp_path / "run" / f"{notebook.stem}.record.json"
        return json.loads(record.read_text(encoding="utf-8"))

    return run_cells


@contextmanager
def plain_figures():
    """Figures that nobody sees are drawn all the same, and closed."""
    backend = plt.get_backend()
    plt.switch_backend("agg")
    try:
        yield
    finally:
        plt.close("all")
        plt.switch_backend(backend)
