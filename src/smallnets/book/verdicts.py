"""Tables of claims: what is said, what was published and measured, and the verdict.

A table is made of rows as `claims.judge` returns them and records hold them, so the claims of a run
and stored ones look alike. It takes the width that there is, and its columns share it.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from smallnets.book.interval_plot import interval_plot, limits

Row = Mapping[str, Any]
TITLES = {"paper": "Claims of the paper", "ours": "Hypotheses of our own"}
COLUMNS = {"claim": 24, "paper": 16, "measured": 42, "verdict": 18}  # per cent of the width
CELL = "text-align:left;vertical-align:top;overflow-wrap:anywhere;white-space:normal"


def tables(rows: Sequence[Row], live: Mapping[str, Row] | None = None) -> str:
    """HTML with one table for the paper's claims and one for our own, and the rule below.

    Args:
        rows: of a record; those under an earlier rule have no "comparisons" and no "source".
        live: claim -> row of another run, whose numbers stand below those of the rows.
    """
    parts = [
        _table(title, [row for row in rows if row.get("source", "paper") == source], live or {})
        for source, title in TITLES.items()
    ]
    rules = dict.fromkeys(row["rule"] for row in rows if row.get("rule"))
    parts += [f"<p><em>Rule: {escape(rule)}.</em></p>" for rule in rules]
    return f'<div class="verdicts">{"".join(parts)}</div>'


def stored_table(rows: Sequence[Row]) -> str:
    """HTML with a line a claim and run; a verdict under an earlier rule is marked.

    Args:
        rows: as in `tables`, each also with the name of its "run".
    """
    columns = ("run", "claim", "measured", "verdict")
    header = "".join(f'<th scope="col" style="{CELL}">{name}</th>' for name in columns)
    lines = []
    for row in rows:
        old = "" if "comparisons" in row else " (earlier rule)"
        measured = "<br>".join(map(escape, row["measured"].split("; ")))
        cells = [escape(row["run"]), escape(row["claim"]), measured, escape(row["verdict"]) + old]
        lines.append(
            "<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in cells) + "</tr>"
        )
    return (
        f'<table class="verdicts"><thead><tr>{header}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _table(title: str, rows: Sequence[Row], live: Mapping[str, Row]) -> str:
    if not rows:
        return ""
    columns = "".join(f'<col style="width:{width}%">' for width in COLUMNS.values())
    header = "".join(f'<th scope="col" style="{CELL}">{name}</th>' for name in COLUMNS)
    body = "".join(_rows(row, live.get(row["claim"])) for row in rows)
    return (
        '<table class="verdicts" style="table-layout:fixed;width:100%;min-width:32rem">'
        f'<caption style="text-align:left">{title}</caption><colgroup>{columns}</colgroup>'
        f"<thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
    )


def _rows(row: Row, live: Row | None) -> str:
    cells = [
        escape(row["claim"]),
        escape(row["paper"]),
        _measured(row, live),
        _mark(row["verdict"]),
    ]
    lines = "<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in cells) + "</tr>"
    if row.get("reason"):
        reason = f'<td colspan="{len(COLUMNS)}" style="{CELL}">{escape(row["reason"])}</td>'
        lines += f'<tr class="reason">{reason}</tr>'
    return lines


def _measured(row: Row, live: Row | None) -> str:
    if "comparisons" not in row:
        return "<br>".join(map(escape, row["measured"].split("; ")))
    below = {one["name"]: one for one in live["comparisons"]} if live else {}
    return "".join(
        _line(one, _axis(one, row["comparisons"]), below.get(one["name"]), main=number == 0)
        for number, one in enumerate(row["comparisons"])
    )


def _axis(one: Row, compared: Sequence[Row]) -> tuple[float, float]:
    """Comparisons of one unit share an axis."""
    unit = one["unit"], one["suffix"]
    return limits([other for other in compared if (other["unit"], other["suffix"]) == unit])


def _line(one: Row, axis: tuple[float, float], live: Row | None, main: bool) -> str:
    name = escape(one["name"])
    line = (
        f"{f'<strong>{name}</strong>' if main else name}: {escape(one['text'])} "
        f"(claimed: {escape(one['claimed'])}) {interval_plot(one, axis)} {one['outcome']}"
    )
    if live:
        line += f'<br><span class="live">this run: {escape(live["text"])}</span>'
    return f'<div style="margin-bottom:0.3em">{line}</div>'


def _mark(verdict: str) -> str:
    kind = verdict.replace(" ", "-")
    return f'<span class="verdict verdict-{kind}">{escape(verdict)}</span>'
