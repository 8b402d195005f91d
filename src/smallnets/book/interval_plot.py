"""A comparison as a small picture: its interval, zero, and where the claim says that it lies."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

WIDTH, HEIGHT = 150, 18  # pixels
MARGIN = 8
COLOURS = {"holds": "#0072B2", "fails": "#D55E00", "open": "#666666"}


def limits(compared: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Ends of an axis for comparisons of one unit: it shows zero, all bounds and all intervals.

    Args:
        compared: rows as of `Comparison.row`; what is None in them is left out.
    """
    ends = [end for one in compared for end in (*one["interval"], *one["bounds"], one["mean"])]
    known = [end for end in ends if end is not None] + [0.0]
    low, high = min(known), max(known)
    return (low, high) if high > low else (low - 1.0, high + 1.0)


def interval_plot(one: Mapping[str, Any], axis: tuple[float, float]) -> str:
    """An image element with an alternative text that says what it shows.

    The claimed range is shaded and ends at dashed lines, zero is a thin line. The interval is a bar
    with its mean: a disc where the comparison holds, a cross where it fails, a ring where it is
    open.

    Args:
        one: a row as of `Comparison.row`.
        axis: ends of the axis, see `limits`.
    """
    low, high = axis

    def place(value: float) -> float:
        share = (value - low) / (high - low)
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    lower, upper = one["bounds"]
    left = 0 if lower is None else place(lower)
    right = WIDTH if upper is None else place(upper)
    middle, colour = HEIGHT // 2, COLOURS[one["outcome"]]
    ends = [place(low if one["interval"][0] is None else one["interval"][0])]
    ends += [place(high if one["interval"][1] is None else one["interval"][1])]
    parts = [
        _rectangle(0, WIDTH, "#ffffff"),
        _rectangle(left, right, "#e4eef5"),
        _line(place(0.0), "#999999"),
        *(
            _line(at, "#000000", ' stroke-dasharray="2 2"')
            for at in (left, right)
            if 0 < at < WIDTH
        ),
        f'<path d="M{ends[0]} {middle}H{ends[1]}" stroke="{colour}" stroke-width="3"/>',
        _mark(one["outcome"], place(one["mean"]), middle, colour)
        if one["mean"] is not None
        else "",
    ]
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg>'
    )
    return (
        f'<img class="interval" width="{WIDTH}" height="{HEIGHT}" alt="{escape(spoken(one))}" '
        f'src="data:image/svg+xml,{quote(drawing)}">'
    )


def spoken(one: Mapping[str, Any]) -> str:
    """What the picture of a row shows, in words."""
    zero = ""
    low, high = one["interval"]
    if low is not None and high is not None:
        side = "above" if low > 0 else "below" if high < 0 else "around"
        zero = f", the interval lies {side} zero"
    return f"{one['name']}: {one['text']}, claimed is {one['claimed']}{zero}: {one['outcome']}"


def _rectangle(left: float, right: float, colour: str) -> str:
    return f'<rect x="{left}" width="{round(right - left, 1)}" height="{HEIGHT}" fill="{colour}"/>'


def _line(at: float, colour: str, dashes: str = "") -> str:
    return f'<path d="M{at} 0V{HEIGHT}" stroke="{colour}"{dashes}/>'


def _mark(outcome: str, x: float, y: float, colour: str) -> str:
    if outcome == "fails":
        path = f"M{x - 4:.1f} {y - 4}l8 8m0 -8l-8 8"
        return f'<path d="{path}" stroke="{colour}" stroke-width="2"/>'
    fill = colour if outcome == "holds" else "#ffffff"
    return f'<circle cx="{x}" cy="{y}" r="4" fill="{fill}" stroke="{colour}" stroke-width="2"/>'
