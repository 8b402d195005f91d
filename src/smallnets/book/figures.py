"""The book's figures: one style, one palette, and the pictures that several chapters draw.

Colours are Okabe and Ito's, which the common forms of colour blindness tell apart. The background
is white and opaque, so that a figure reads the same on a light and on a dark page.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
WIDTH = 7.0  # inches: the text column

STYLE = {
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "grid.color": "#dddddd",
    "font.size": 10,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "svg.hashsalt": "smallnets",
    "svg.fonttype": "path",
    "axes.prop_cycle": plt.cycler(color=PALETTE),
}


def use_style() -> None:
    """Draw all following figures in the book's style; in a notebook, as SVG files that do not
    change by themselves.
    """
    plt.rcParams.update(STYLE)
    pd.set_option("display.max_colwidth", None)  # tables show whole sentences
    from IPython import get_ipython

    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def closed(figure: Figure) -> Figure:
    """The figure, taken from pyplot's list: a notebook then shows it once, where it is returned."""
    plt.close(figure)
    return figure


def seed_dots(
    values: Mapping[str, Sequence[float]], xlabel: str, baseline: str | None = None
) -> Figure:
    """One row a method: every seed as a dot, the median as a bar.

    Args:
        values: method -> one value a seed.
        xlabel: what the values are, with their unit.
        baseline: method whose median is drawn through all rows.
    """
    return seed_panels({xlabel: values}, baseline)


def seed_panels(
    panels: Mapping[str, Mapping[str, Sequence[float]]], baseline: str | None = None
) -> Figure:
    """Several measures of the same methods side by side, each as in `seed_dots`.

    Args:
        panels: label of the axis, with its unit -> method -> one value a seed. All panels have the
            same methods in the same order.
        baseline: method whose median is drawn through all rows.
    """
    names = list(next(iter(panels.values())))
    figure, row_of_axes = plt.subplots(
        1,
        len(panels),
        figsize=(WIDTH, 0.42 * len(names) + 0.9),
        sharey=True,
        squeeze=False,
    )
    for axes, (xlabel, values) in zip(row_of_axes[0], panels.items(), strict=True):
        for row, (name, dots) in enumerate(values.items()):
            colour = PALETTE[0] if name != baseline else PALETTE[6]
            axes.scatter(dots, np.full(len(dots), row), s=28, color=colour, alpha=0.75, linewidth=0)
            axes.plot([np.median(dots)] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=2.5)
        if baseline is not None:
            middle = float(np.median(values[baseline]))
            axes.axvline(middle, color=PALETTE[6], linestyle=":", linewidth=1)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(xlabel)
        axes.grid(axis="y", visible=False)
    row_of_axes[0, 0].invert_yaxis()
    return closed(figure)


def contact_sheet(
    images: Tensor, labels: Tensor, class_names: Sequence[str], rows: int = 4
) -> Figure:
    """The first images of every class, a class a column (at most twenty).

    Args:
        images: uint8 (n, channels, height, width).
        labels: (n,).
        class_names: one a class.
        rows: images a class.
    """
    classes = min(len(class_names), 20)
    size = WIDTH / classes
    figure, all_axes = plt.subplots(
        rows, classes, figsize=(WIDTH, size * rows + 0.3), squeeze=False
    )
    for label, column in enumerate(all_axes.T):
        chosen = images[labels == label][:rows].permute(0, 2, 3, 1).squeeze(-1)
        column[0].set_title(class_names[label][:6], fontsize=9)
        for axes in column:
            axes.axis("off")
        for axes, image in zip(column, chosen, strict=False):
            axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=255)
    return closed(figure)


class ClassSorted(Protocol):
    """How a network sees images that are sorted by class."""

    activations: Tensor  # (images, channels)
    similarity: Tensor  # (images, images)
    labels: Tensor  # (images,)


def portraits(seen: Mapping[str, ClassSorted]) -> Figure:
    """Channel activations (top) and similarity matrices (bottom) of networks, side by side.

    A single network gets both pictures in one row. Lines separate the classes. Of similarities the
    mean of their column is taken away, as all are positive and differ little.

    Args:
        seen: title -> what the network saw; all similarities are drawn on one colour scale.
    """
    shape = (1, 2) if len(seen) == 1 else (2, len(seen))
    side = WIDTH / shape[1]
    figure, grid = plt.subplots(*shape, figsize=(WIDTH, side * shape[0] + 0.4), squeeze=False)
    centred = [one.similarity - one.similarity.mean(dim=0) for one in seen.values()]
    high = max(float(matrix.abs().quantile(0.99)) for matrix in centred)
    pairs = grid.reshape(2, -1)
    for (title, one), matrix, over, under in zip(
        seen.items(), centred, pairs[0], pairs[1], strict=True
    ):
        classes = (one.labels.diff().nonzero().flatten() + 1).tolist()
        over.imshow(one.activations.numpy(), aspect="auto", cmap="cividis", interpolation="none")
        drawn = under.imshow(matrix.numpy(), cmap="RdBu_r", vmin=-high, vmax=high)
        ruled(over, classes)
        ruled(under, classes, classes, colour="black")
        over.set_title(title)
        over.set_xlabel("channels")
        under.set_xlabel("images")
    grid[0, 0].set_ylabel("images")
    figure.colorbar(drawn, ax=list(grid[-1]), shrink=0.8, label="similarity - column mean")
    return closed(figure)


def ruled(
    axes: Axes, rows: Sequence[int], columns: Sequence[int] = (), colour: str = "white"
) -> None:
    """Turn off ticks and grid of an image and draw lines before the given rows and columns."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for place in rows:
        axes.axhline(place - 0.5, color=colour, linewidth=0.5)
    for place in columns:
        axes.axvline(place - 0.5, color=colour, linewidth=0.5)


def curves(
    axes: Axes,
    x: Sequence[float],
    values: Mapping[str, Sequence[Sequence[float]]],
    xlabel: str,
    ylabel: str,
) -> None:
    """One line a method through the mean over seeds, with the standard deviation as a band and its
    own marker.

    Args:
        axes: drawn on.
        x: positions.
        values: method -> (seeds, len(x)).
        xlabel, ylabel: what the axes show, with units.
    """
    for colour, marker, (name, runs) in zip(PALETTE, "osD^vPX*", values.items(), strict=False):
        array = np.asarray(runs, dtype=float)
        mean, deviation = array.mean(axis=0), array.std(axis=0, ddof=1 if len(array) > 1 else 0)
        axes.plot(x, mean, color=colour, marker=marker, markersize=4, label=name)
        axes.fill_between(
            x, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0
        )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
