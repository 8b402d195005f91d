"""Numbers over seeds as text: with a spread, and no more digits than the spread supports."""

from collections.abc import Sequence

import numpy as np


def spread(values: Sequence[float], unit: float = 1.0) -> str:
    """Mean ± standard deviation over seeds, with the digits that the deviation supports.

    Args:
        values: one number a seed.
        unit: what one printed unit is worth; 0.01 prints a share as a percentage.
    """
    scaled = np.asarray(values, dtype=float) / unit
    if len(scaled) < 2:
        return f"{scaled.mean():.3g}"
    deviation = scaled.std(ddof=1)
    digits = 1 if deviation == 0 else int(np.clip(-np.floor(np.log10(deviation)), 0, 6))
    return f"{scaled.mean():.{digits}f} ± {deviation:.{digits}f}"


def wins(better: Sequence[float], worse: Sequence[float]) -> str:
    """In how many seeds the first is the larger, such as "4/5"."""
    return f"{sum(a > b for a, b in zip(better, worse, strict=True))}/{len(better)}"
