"""A paired difference over seeds, its interval, and whether it is where a claim says.

Two settings are trained with the same seeds; the differences, one a seed, have a mean and a
two-sided interval (Student's t). A claim asks that the mean difference lies above a margin, below
a bound, or in a band around zero. The comparison

- *holds* if the whole interval lies where the claim says,
- *fails* if the whole interval lies outside of it, on one side,
- is *open* otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, isfinite, log10, sqrt
from typing import Any

import numpy as np
from scipy import stats

from smallnets import checks
from smallnets.checks import plain

ONE_COMPARISON = 0.95  # level of an interval that stands alone
MOST_DIGITS = 6


@cache
def quantile(level: float, freedom: int) -> float:
    """How many standard errors a two-sided t-interval at a level reaches from its middle."""
    return float(stats.t.ppf((1 + level) / 2, freedom))


@dataclass(frozen=True)
class Comparison:
    """One difference of which a claim says where it lies, seed by seed.

    It is above `margin`; with `at_most` it is below that, however negative ("nearly as close");
    with `band` it is nearer to zero than that ("nothing changes").

    Attributes:
        name: what is compared, such as "SP - alone".
        better, worse: one value a seed, in the same order of seeds.
        margin, at_most, band: in the unit of the values; at most one of them.
        unit: what one printed unit is worth (0.01: percentage points).
        suffix: printed after the numbers.
        exact: both sides are counts or sizes that no chance touches, the same in every seed.

    Raises:
        ValueError: better and worse have different numbers of seeds, more than one of margin,
            at_most and band is given, the band is not above 0, or what is said to be exact differs
            between seeds.
    """

    name: str
    better: Sequence[float]
    worse: Sequence[float]
    margin: float = 0.0
    unit: float = 0.01
    suffix: str = " points"
    at_most: float | None = None
    band: float | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if len(self.better) != len(self.worse):
            raise ValueError(
                f"{self.name}: better and worse must have the same seeds; "
                f"got {len(self.better)} and {len(self.worse)} values"
            )
        given = {"margin": self.margin or None, "at_most": self.at_most, "band": self.band}
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise ValueError(
                f"{self.name} must have one of margin, at_most and band; got {' and '.join(names)}"
            )
        if self.band is not None:
            checks.above(f"band of {self.name!r}", self.band, 0)
        if self.exact and any(len(set(side)) > 1 for side in (self.better, self.worse)):
            raise ValueError(f"{self.name} must be the same in every seed to be exact")

    @property
    def differences(self) -> np.ndarray:
        """Better minus worse, one a seed."""
        return np.asarray(self.better, dtype=float) - np.asarray(self.worse, dtype=float)

    @property
    def mean(self) -> float:
        """Of the differences; not a number without seeds."""
        return float(self.differences.mean()) if len(self.better) else np.nan

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which values the claim says that the difference lies."""
        if self.band is not None:
            return -self.band, self.band
        return (-np.inf, self.at_most) if self.at_most is not None else (self.margin, np.inf)

    def interval(self, level: float = ONE_COMPARISON) -> tuple[float, float]:
        """Ends of the two-sided interval for the mean difference at a level between 0 and 1.

        A single seed has an infinite one, an exact difference has one without width.
        """
        count = len(self.differences)
        if self.exact and count > 0:
            return self.mean, self.mean
        if count < 2:
            return -np.inf, np.inf
        error = float(self.differences.std(ddof=1)) / sqrt(count)
        half = quantile(level, count - 1) * error
        return self.mean - half, self.mean + half

    def outcome(self, level: float = ONE_COMPARISON) -> str:
        """ "holds", "fails" or "open"; at a bound itself, a difference is open."""
        (low, high), (lower, upper) = self.interval(level), self.bounds
        if low > lower and high < upper:
            return "holds"
        return "fails" if high < lower or low > upper else "open"

    def row(self, level: float = ONE_COMPARISON) -> dict[str, Any]:
        """The comparison as a record holds it: numbers as measured, and the printed ones in `text`.

        An end that is infinite, or a bound that there is not, is None.
        """
        low, high = self.interval(level)
        return {
            "name": self.name,
            "text": self.text(level),
            "claimed": self.claimed,
            "outcome": self.outcome(level),
            "mean": _finite(self.mean),
            "interval": [_finite(low), _finite(high)],
            "bounds": [_finite(plain(bound)) for bound in self.bounds],
            "unit": plain(self.unit),
            "suffix": self.suffix,
            "exact": self.exact,
            "seeds": len(self.better),
        }

    @property
    def claimed(self) -> str:
        """Where the difference lies according to the claim, such as "more than +5 points"."""
        lower, upper = (f"{bound / self.unit:+.6g}" if bound else "0" for bound in self.bounds)
        if self.band is not None:
            return f"between {lower} and {upper}{self.suffix}"
        word, bound = ("less", upper) if self.at_most is not None else ("more", lower)
        return f"{word} than {bound}{self.suffix}"

    def text(self, level: float = ONE_COMPARISON) -> str:
        """Mean and interval in printed units, such as "+1.20 [+0.04, +2.36] points"."""
        if len(self.better) == 0:
            return "no seed"
        if len(self.better) < 3 and not self.exact:  # an interval of two would say nothing
            seeds = "one seed" if len(self.better) == 1 else "two seeds"
            return f"{round(self.mean / self.unit, 1) + 0.0:+.1f}{self.suffix}, {seeds}"
        ends = self.interval(level)
        digits = self._digits(*ends)
        mean, low, high = (
            f"{round(value / self.unit, digits) + 0.0:+.{digits}f}" for value in (self.mean, *ends)
        )
        if self.exact:
            return f"{mean}{self.suffix}, exact"
        return f"{mean} [{low}, {high}]{self.suffix}"

    def _digits(self, low: float, high: float) -> int:
        """As few as show the width of the interval, and on which side of a bound its ends lie."""
        half = (high - low) / 2 / self.unit
        fewest = max(1, ceil(-log10(half))) if 0 < half < np.inf else 1
        bounds = [bound for bound in self.bounds if isfinite(bound)]
        for digits in range(min(fewest, MOST_DIGITS), MOST_DIGITS):
            if all(
                np.sign(round(end / self.unit, digits) - round(bound / self.unit, 9))
                == np.sign(end - bound)
                for end in (low, high)
                for bound in bounds
            ):
                return digits
        return MOST_DIGITS

    def __str__(self) -> str:
        return f"{self.name}: {self.text()} ({self.outcome()})"


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return float(value) if isfinite(value) else None
