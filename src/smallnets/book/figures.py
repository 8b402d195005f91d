"""The book's figures: one style, one palette, and the pictures that several chapters draw.

Colours are Okabe and Ito's, which the common forms of colour blindness tell apart. The background
is white and opaque, so that a figure reads the same on a light and on a dark page.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    from IPython import get_ipython

    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def seed_dots(
    values: Mapping[str, Sequence[float]], xlabel: str, baseline: str | None = None
) -> Figure:
    """One row a method: every seed as a dot, the median as a bar.

    Args:
        values: method -> one value a seed.
        xlabel: what the values are, with their unit.
        baseline: method whose median is drawn through all rows.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 0.42 * len(values) + 0.9))
    for row, (name, dots) in enumerate(values.items()):
        colour = PALETTE[0] if name != baseline else PALETTE[6]
        axes.scatter(dots, np.full(len(dots), row), s=28, color=colour, alpha=0.75, linewidth=0)
        axes.plot([np.median(dots)] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=2.5)
    if baseline is not None:
        axes.axvline(
            float(np.median(values[baseline])), color=PALETTE[6], linestyle=":", linewidth=1
        )
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    axes.grid(axis="y", visible=False)
    return figure


def matrices(
    images: Mapping[str, np.ndarray], boundaries: Sequence[int] = (), label: str = ""
) -> Figure:
    """Square matrices side by side on one colour scale, with lines between groups of rows.

    Args:
        images: title -> (n, n) array.
        boundaries: first row of every group but the first.
        label: of the colour bar.
    """
    figure, all_axes = plt.subplots(
        1, len(images), figsize=(WIDTH, WIDTH / len(images) + 0.3), squeeze=False
    )
    low = min(float(image.min()) for image in images.values())
    high = max(float(np.quantile(image, 0.995)) for image in images.values())
    for axes, (title, image) in zip(all_axes[0], images.items(), strict=True):
        drawn = axes.imshow(image, cmap="cividis", vmin=low, vmax=high)
        ruled(axes, boundaries, boundaries)
        axes.set_title(title)
    figure.colorbar(drawn, ax=list(all_axes[0]), shrink=0.75, label=label)
    return figure


def ruled(axes: Axes, rows: Sequence[int], columns: Sequence[int] = ()) -> None:
    """Turn off ticks and grid of an image and draw lines before the given rows and columns."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for place in rows:
        axes.axhline(place - 0.5, color="white", linewidth=0.5)
    for place in columns:
        axes.axvline(place - 0.5, color="white", linewidth=0.5)


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
