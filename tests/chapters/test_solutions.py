"""The solutions of the exercises run, on what a chapter has made at the scale smoke."""

import re

import matplotlib.pyplot as plt
import pytest

pytestmark = pytest.mark.chapters

SOLVED = ("03",)  # chapters whose solutions all stand for themselves
SOLUTION = re.compile(r"\{solution\} (?P<name>\S+)\n(?P<text>.*?)\n````", re.DOTALL)
CODE = re.compile(r"```python\n(.*?)\n```", re.DOTALL)


def test_every_solution_runs(notebook, cells, start):
    if notebook.name[:2] not in SOLVED:
        pytest.skip("its solutions are not run yet")
    start(notebook, scale="smoke")
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    solutions = [found for text in texts for found in SOLUTION.finditer(text)]
    exercises = [name for text in texts for name in re.findall(r":label: (fid-\S+)\n", text)]
    assert [found["name"] for found in solutions] == exercises
    with plt.ioff():
        for found in solutions:
            (code,) = CODE.findall(found["text"])
            assert "assert " in code, found["name"]
            exec(compile(code, found["name"], "exec"), start.names)
    plt.close("all")
