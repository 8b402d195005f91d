"""Parameters, tables, sources and figures of the book's chapters."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from smallnets import book
from smallnets.book.figures import PALETTE
from smallnets.book.source import without_docstrings
from smallnets.models import convnet

matplotlib.use("agg")
GIVEN = {
    "dataset": "digits",
    "scale": "smoke",
    "seeds": None,
    "device": "auto",
    "precision": "auto",
    "output_dir": "runs",
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_good_parameters_pass():
    parameters = book.Parameters(**GIVEN)
    assert parameters.folder == Path("runs")
    assert parameters.cache_dir.name == "trainings"
    assert book.Parameters(**{**GIVEN, "seeds": 3}).seeds == 3
    assert book.Parameters(**{**GIVEN, "scale": "evidence"}).scale == "evidence"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale", "big", "scale must be one of smoke, small, evidence, paper; got 'big'"),
        ("seeds", 0, "seeds must be at least 1; got 0"),
        ("seeds", -3, "seeds must be at least 1; got -3"),
        ("seeds", "5", "seeds must be a whole number of at least 1; got '5'"),
        ("device", "npu", "device must be one of auto, cpu, cuda; got 'npu'"),
        ("precision", "fp8", "precision must be one of auto, 32-true, bf16-mixed; got 'fp8'"),
        ("dataset", 10, "dataset must be text in quotes; got 10"),
        ("dataset", None, "dataset must be text in quotes; got None"),
        ("output_dir", 2024, "output_dir must be text in quotes; got 2024"),
        ("output_dir", "", "output_dir must name a folder; got an empty string"),
    ],
)
def test_bad_parameters_are_named(name, value, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        book.Parameters(**{**GIVEN, name: value})
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("values", "unit", "text"),
    [
        ([0.521, 0.533, 0.547], 0.01, "53 ± 1"),
        ([0.5210, 0.5213, 0.5217], 0.01, "52.13 ± 0.04"),
        ([3.0, 3.0], 1, "3.0 ± 0.0"),
        ([0.5], 0.01, "50"),
        ([10, 300], 1, "155 ± 205"),
    ],
)
def test_spread_has_the_digits_that_the_deviation_supports(values, unit, text):
    assert book.spread(values, unit) == text


def test_wins_are_counted_seed_by_seed():
    assert book.wins([1, 2, 3], [0, 2, 4]) == "1/3"


def test_summary_has_a_row_a_method_and_a_column_a_measure():
    results = [{"a": {"accuracy": 0.5 + 0.1 * seed}, "b": {"accuracy": 0.9}} for seed in (0, 1)]
    table = book.summary(results, {"accuracy (%)": ("accuracy", 0.01)})
    assert table.loc["a", "accuracy (%)"] == "55 ± 7"
    assert table.loc["b", "accuracy (%)"] == "90.0 ± 0.0"
    assert book.over_seeds(results, "accuracy") == {"a": [0.5, 0.6], "b": [0.9, 0.9]}


def test_sizes_are_those_of_the_networks():
    table = book.sizes({"net": convnet(4, 10)}, (3, 32, 32))
    count = sum(p.numel() for p in convnet(4, 10).parameters())
    assert table.loc["net", "parameters"] == f"{count:,}"
    assert int(table.loc["net", "MACs"].replace(",", "")) > 100_000


def example(x):
    """Say nothing.

    At length.
    """
    return x + 1


def test_show_is_the_source_without_its_docstring():
    shown = book.show(example).data
    assert shown == "```python\ndef example(x):\n    return x + 1\n```"
    assert "At length." in book.show(example, docstrings=True).data


def test_methods_are_shown_without_their_indentation():
    assert book.show(book.Parameters.__post_init__).data.startswith("```python\ndef __post_init__")


def test_docstrings_inside_are_left_out_too():
    source = 'class A:\n    """Doc."""\n\n    def f(self):\n        """Doc."""\n        return 1'
    assert without_docstrings(source) == "class A:\n    def f(self):\n        return 1"


def test_chapters_are_twelve_and_found_by_number():
    assert [one.number for one in book.CHAPTERS] == [f"{n:02}" for n in range(1, 13)]
    assert book.chapter("2").slug == "similarity-preserving"
    assert book.chapter("02").notebook == "02_similarity_preserving.ipynb"
    with pytest.raises(ValueError, match=r"chapter must be one of 01, .*12; got '13'"):
        book.chapter("13")


def test_palette_is_told_apart_by_the_colour_blind():
    """Any two of the first six colours differ in lightness or in the blue-yellow direction."""
    rgb = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in PALETTE[:6]])
    axes = np.stack([rgb @ [0.299, 0.587, 0.114], rgb[:, 2] - rgb[:, :2].mean(axis=1)])
    distance = np.linalg.norm(axes[:, :, None] - axes[:, None, :], axis=0)
    assert distance[~np.eye(6, dtype=bool)].min() > 20


def test_dots_show_every_seed_and_the_median():
    figure = book.seed_dots({"a": [1, 2, 9], "b": [3, 4, 5]}, "points", baseline="a")
    axes = figure.axes[0]
    offsets = [dots.get_offsets()[:, 0].tolist() for dots in axes.collections]
    assert offsets == [[1, 2, 9], [3, 4, 5]]
    assert axes.lines[0].get_xdata()[0] == 2
    assert axes.get_xlabel() == "points"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_panels_show_several_measures_of_the_same_methods():
    panels = {"points": {"a": [1, 2], "b": [3, 4]}, "KL": {"a": [0.1, 0.2], "b": [0.3, 0.4]}}
    figure = book.seed_panels(panels)
    assert [axes.get_xlabel() for axes in figure.axes] == ["points", "KL"]
    assert [len(axes.collections) for axes in figure.axes] == [2, 2]
    assert figure.axes[0].yaxis_inverted()


def test_curves_are_means_over_seeds():
    _, axes = plt.subplots()
    book.curves(axes, [1, 2], {"m": [[0, 4], [2, 8]]}, "x", "y")
    assert axes.lines[0].get_ydata().tolist() == [1, 6]


@pytest.mark.parametrize(("channels", "classes"), [(3, 4), (1, 30)])
def test_contact_sheet_has_a_column_a_class(channels, classes):
    labels = torch.arange(classes).repeat(2)
    images = torch.zeros(len(labels), channels, 8, 8, dtype=torch.uint8)
    figure = book.contact_sheet(images, labels, [f"class {i}" for i in range(classes)], rows=2)
    assert len(figure.axes) == 2 * min(classes, 20)
    assert figure.axes[0].images


class Seen:
    activations = torch.rand(6, 3)
    similarity = torch.rand(6, 6)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize("count", [1, 3])
def test_portraits_separate_the_classes(count):
    figure = book.portraits({str(number): Seen() for number in range(count)})
    assert len(figure.axes) == 2 * count + 1
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == [1.5, 3.5]
    drawn = figure.axes[count].images[0].get_array()
    assert np.allclose(drawn.mean(axis=0), 0, atol=1e-6), "column means are taken away"


def test_style_makes_tables_whole_and_figures_opaque():
    book.use_style()
    figure, _ = plt.subplots()
    assert figure.get_facecolor() == (1, 1, 1, 1)
