"""The paper's claims, judged by a rule that is fixed before the run.

A claim is one or more comparisons of two settings over the same seeds. For each, the differences
seed by seed give a mean and a two-sided 90 % interval (Student's t):

- the comparison *holds* if the whole interval lies above the margin,
- it *fails* if the whole interval lies below it,
- otherwise it is *open*.

The verdict of the claim follows: *reproduced* if every comparison holds, *partly* if some do,
*contradicted* if none holds and one or more fail, *not at this scale* if none holds and none fails.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import sqrt

import numpy as np
import pandas as pd
from IPython.display import HTML
from scipy import stats

CONFIDENCE = 0.90
RULE = (
    f"paired differences over seeds; holds if the {CONFIDENCE:.0%} t-interval of their mean lies "
    "above the margin, fails if below"
)


@dataclass(frozen=True)
class Comparison:
    """One difference that the claim says is larger than `margin`, seed by seed.

    Attributes:
        name: what is compared, such as "SP - alone".
        better, worse: one value a seed, in the same order; at least two seeds.
        margin: what the difference must exceed.
        unit: what one printed unit is worth (0.01: percentage points).
        suffix: printed after the numbers.
    """

    name: str
    better: Sequence[float]
    worse: Sequence[float]
    margin: float = 0.0
    unit: float = 0.01
    suffix: str = " points"

    @property
    def differences(self) -> np.ndarray:
        """Better minus worse, one a seed."""
        return np.asarray(self.better, dtype=float) - np.asarray(self.worse, dtype=float)

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the interval for the mean difference; infinite with a single seed."""
        count = len(self.differences)
        if count < 2:
            return -np.inf, np.inf
        half = (
            stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
            * self.differences.std(ddof=1)
            / sqrt(count)
        )
        return self.differences.mean() - half, self.differences.mean() + half

    @property
    def outcome(self) -> str:
        """ "holds", "fails" or "open"."""
        low, high = self.interval
        return "holds" if low > self.margin else "fails" if high < self.margin else "open"

    def __str__(self) -> str:
        count = len(self.differences)
        half = (self.interval[1] - self.interval[0]) / 2 if count > 1 else np.nan
        mean = f"{self.differences.mean() / self.unit:+.1f} ± {half / self.unit:.1f}"
        return f"{self.name}: {mean}{self.suffix} ({self.outcome})"


@dataclass(frozen=True)
class Claim:
    """What the paper says, and what was measured.

    Attributes:
        text: the claim in one sentence.
        published: the paper's own figure, or that it gives none.
        comparisons: what would have to hold.
        otherwise: the reason to print when the claim is not fully reproduced.
    """

    text: str
    published: str
    comparisons: Sequence[Comparison]
    otherwise: str

    @property
    def verdict(self) -> str:
        """By the rule of this module."""
        outcomes = [comparison.outcome for comparison in self.comparisons]
        if all(outcome == "holds" for outcome in outcomes):
            return "reproduced"
        if "holds" in outcomes:
            return "partly"
        return "contradicted" if "fails" in outcomes else "not at this scale"

    def row(self, judged: bool = True) -> dict[str, str]:
        """The claim as a row of text; without judgement the verdict is "not judged"."""
        verdict = self.verdict if judged else "not judged"
        return {
            "claim": self.text,
            "paper": self.published,
            "measured": "; ".join(map(str, self.comparisons)),
            "verdict": verdict,
            "reason": "" if verdict in ("reproduced", "not judged") else self.otherwise,
            "rule": RULE,
        }


def claims_table(claims: Sequence[Claim], judged: bool = True) -> HTML:
    """Claims, published figures, mean differences ± half their intervals, verdicts and reasons."""
    rows = [claim.row(judged) for claim in claims]
    return rows_table(rows, ("claim", "paper", "measured", "verdict", "reason"))


def rows_table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> HTML:
    """Rows of claims as a table of the given columns, every comparison on a line of its own."""
    cells = [{name: escape(row[name]) for name in columns} for row in rows]
    for row in cells:
        row["measured"] = row["measured"].replace("; ", "<br>")
    table = pd.DataFrame(cells, columns=list(columns))
    return HTML(table.to_html(index=False, escape=False, border=0))
