"""How well one list of numbers ranks as another does."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor


class Correlations(NamedTuple):
    """Three coefficients in [-1, 1]; nan where one list is constant."""

    pearson: float  # of the values
    spearman: float  # of their ranks
    kendall: float  # of the order of pairs, ties corrected (tau-b)


def correlations(a: Tensor, b: Tensor) -> Correlations:
    """Pearson, Spearman and Kendall tau-b of two lists (n,).

    Raises:
        ValueError: the lists are not of one length of at least 2, or hold numbers that are not
            finite.
    """
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"a and b must be lists of one length of at least 2; "
            f"got shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("a and b must be finite; got nan or inf")
    x, y = (one.detach().double().cpu().numpy() for one in (a, b))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        warnings.warn("a correlation with a constant is undefined: nan", stacklevel=2)
        return Correlations(np.nan, np.nan, np.nan)
    return Correlations(
        float(stats.pearsonr(x, y)[0]),
        float(stats.spearmanr(x, y)[0]),
        float(stats.kendalltau(x, y)[0]),
    )


def pooled(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Correlations:
    """Coefficients of all layers' scores put together; both have the layers of `b`."""
    return correlations(torch.cat([a[name] for name in b]), torch.cat(list(b.values())))


def within_layers(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Correlations:
    """The mean over layers of each layer's own coefficients; constant layers are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = np.array([correlations(a[name], b[name]) for name in b])
    usable = rows[np.isfinite(rows).all(1)]
    if not len(usable):
        return Correlations(np.nan, np.nan, np.nan)
    return Correlations(*(float(value) for value in usable.mean(0)))
