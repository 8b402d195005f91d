"""The evidence that a chapter shows: the stored run that its verdicts come from.

It is a record `book/results/NN-DATA-evidence.json`, see `smallnets run --scale evidence --store`.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smallnets import checks
from smallnets.book.catalogue import chapter
from smallnets.book.claims import JUDGING, Claim, definitions, judge
from smallnets.book.figures import WIDTH, closed
from smallnets.book.freshness import plainly, read_record, result_name
from smallnets.book.parameters import SCALES
from smallnets.book.verdicts import tables

Measured = Mapping[str, Any]
NEEDED = ("scale", "seeds", "settings", "measurements", "claims", "definitions", "history")


@dataclass(frozen=True)
class Evidence:
    """A stored run that decides.

    Attributes:
        record: everything that it holds.
    """

    record: Mapping[str, Any]

    @property
    def measurements(self) -> Measured:
        """Name -> numbers, those of seeds as lists with one a seed."""
        return self.record["measurements"]

    @property
    def claims(self) -> list[dict[str, Any]]:
        """The claims with their verdicts, as rows of `judge`."""
        return self.record["claims"]

    def __str__(self) -> str:
        commit = self.record.get("commit")
        made = f", commit {commit[:7]}" if commit else ""
        return f"{len(self.record['seeds'])} seeds on {self.record['dataset']}{made}"


def results_folder(start: Path | None = None) -> Path | None:
    """The book's folder of results, looked for from `start` (the current folder) upwards."""
    here = (start or Path.cwd()).resolve()
    folders = (folder / "book" / "results" for folder in (here, *here.parents))
    return next((folder for folder in folders if folder.is_dir()), None)


def evidence(number: str, dataset: str = "glyphs10", start: Path | None = None) -> Evidence | None:
    """The evidence of a chapter on a data set, or None where there is none at hand.

    Args:
        number: of the chapter.
        dataset: its name, or "npz:FILE", of which the name of the file counts.
        start: folder from which to look upwards for `book/results`; the current one by default.

    A record that cannot be used is left out with a warning.
    """
    folder = results_folder(start)
    if folder is None:
        return None
    path = folder / f"{result_name(chapter(number).number, dataset)}.json"
    if not path.exists():
        return None
    try:
        return Evidence(read_record(path, *NEEDED))
    except ValueError as error:
        warnings.warn(f"{error}; it is left out", stacklevel=2)
        return None


def changed(evidence: Evidence, claims: Sequence[Claim], settings: Any) -> list[str]:
    """What makes evidence stale: "claims", "settings", both or none. Other code does not.

    Args:
        evidence: as stored.
        claims: of today, made of its measurements.
        settings: dataclass of today's preset.
    """
    record = evidence.record
    found = ["claims"] if definitions(claims) != record["definitions"] else []
    return found + (["settings"] if plainly(asdict(settings)) != record["settings"] else [])


def claims_table(
    claims: Sequence[Claim],
    *,
    scale: str = "small",
    evidence: Evidence | None = None,
) -> HTML:
    """The claims with published figures, comparisons, verdicts and reasons; ours in a second table.

    Verdicts are those of the evidence, with this run's numbers below those that decided. Without
    evidence, a claim is "not yet judged" beside the numbers of this run.

    Args:
        claims: of this run.
        scale: of this run; "evidence" and "paper" decide by themselves, and at "smoke" a verdict is
            "not judged".
        evidence: what `smallnets.book.evidence` found.

    Raises:
        ValueError: there is no such scale.
    """
    checks.one_of("scale", scale, SCALES)
    rows = judge(claims, scale in JUDGING)
    if scale in JUDGING:
        return HTML(tables(rows))
    live = {row["claim"]: row for row in rows}
    if evidence is not None:
        stored = {row["claim"]: row for row in evidence.claims}
        shown = [stored.get(row["claim"], row) for row in _not_yet_judged(rows)]
        text = "Verdicts are those of the evidence"
        if definitions(claims) != evidence.record["definitions"]:
            text += ", whose claims have changed since"
        made = f"<p>{text}: {evidence}. Below them, the numbers of this run.</p>"
        return HTML(made + tables(shown, live))
    return HTML(tables(rows if scale == "smoke" else _not_yet_judged(rows)))


def _not_yet_judged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**row, "verdict": row["verdict"].replace("not judged", "not yet judged")} for row in rows
    ]


def side_by_side(
    draw: Callable[[Axes, Measured], object],
    measured: Measured,
    evidence: Evidence | None,
    height: float = 3.0,
) -> Figure:
    """One figure of two runs: this one, and beside it the evidence, drawn by the same function.

    Args:
        draw: draws measurements on axes.
        measured: of this run; `draw` gets it as a record would hold it.
        evidence: without it, there is one panel.
        height: of the figure in inches.
    """
    panels = {"this run": plainly(measured)}
    if evidence is not None:
        panels[f"evidence, {len(evidence.record['seeds'])} seeds"] = evidence.measurements
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, height), sharey=True, squeeze=False)
    for one, (title, numbers) in zip(axes[0], panels.items(), strict=True):
        draw(one, numbers)
        one.set_title(title)
    for one in axes[0, 1:]:
        one.set_ylabel("")
    _show_all(axes[0])
    return closed(figure)


def _show_all(panels: Sequence[Axes]) -> None:
    """Widen the limits that panels share: each has set them for its own data, the last one for
    all.
    """
    start, end = panels[0].get_ylim()
    low, high = sorted((start, end))
    lowest = min(one.dataLim.ymin for one in panels)
    highest = max(one.dataLim.ymax for one in panels)
    if len(panels) > 1 and (lowest < low or highest > high):
        low, high = min(low, lowest), max(high, highest + 0.05 * (highest - lowest))
        panels[0].set_ylim((low, high) if start < end else (high, low))
