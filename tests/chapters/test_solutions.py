"""The solutions of the exercises run, on what a chapter has made at the scale smoke."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

pytestmark = pytest.mark.chapters

CHAPTERS = Path(__file__).parents[2] / "chapters"
SOLVED = [
    CHAPTERS / "01_resource_efficient.ipynb",
    CHAPTERS / "03_does_kd_work.ipynb",
    CHAPTERS / "07_gan_compression.ipynb",
    CHAPTERS / "10_distribution_matching.ipynb",
    CHAPTERS / "11_single_image.ipynb",
    CHAPTERS / "12_memory_free_replay.ipynb",
]  # every solution stands for itself
SOLUTION = re.compile(r"\{solution\} (?P<name>\S+)\n(?P<text>.*?)\n````", re.DOTALL)
EXERCISE = re.compile(r"\{exercise\}\n:label: (\S+)\n")
CODE = re.compile(r"```python\n(.*?)\n```", re.DOTALL)


@pytest.mark.parametrize("notebook", SOLVED, ids=lambda path: path.stem)
def test_every_solution_runs(notebook, cells, start):
    start(notebook, scale="smoke")
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    solutions = [found for text in texts for found in SOLUTION.finditer(text)]
    exercises = [name for text in texts for name in EXERCISE.findall(text)]
    assert [found["name"] for found in solutions] == exercises
    with plt.ioff():
        for found in solutions:
            (code,) = CODE.findall(found["text"])
            assert "assert " in code, found["name"]
            exec(compile(code, found["name"], "exec"), start.names)
    plt.close("all")
