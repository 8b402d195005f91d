"""Numbers over seeds as text: with a spread, and no more digits than the spread supports."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import nn

from smallnets import measure

Results = Sequence[Mapping[str, Mapping[str, float]]]


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
    if deviation < 1e-9 * abs(scaled.mean()):
        deviation = 0.0  # rounding, not a spread
    digits = 1 if deviation == 0 else int(np.clip(-np.floor(np.log10(deviation)), 0, 6))
    return f"{scaled.mean():.{digits}f} ± {deviation:.{digits}f}"


def wins(better: Sequence[float], worse: Sequence[float]) -> str:
    """In how many seeds the first is the larger, such as "4/5"."""
    return f"{sum(a > b for a, b in zip(better, worse, strict=True))}/{len(better)}"


def over_seeds(results: Results, measure: str) -> dict[str, list[float]]:
    """One measure of every method: method -> one value a seed."""
    return {name: [seed[name][measure] for seed in results] for name in results[0]}


def summary(results: Results, columns: Mapping[str, tuple[str, float]]) -> pd.DataFrame:
    """A row a method, a column a measure, mean ± standard deviation over the seeds.

    Args:
        results: one dictionary a seed: method -> measure -> value.
        columns: heading -> (measure, what one printed unit is worth).
    """
    return pd.DataFrame(
        {
            heading: {
                name: spread(values, unit) for name, values in over_seeds(results, key).items()
            }
            for heading, (key, unit) in columns.items()
        }
    )


def sizes(networks: Mapping[str, nn.Module], input_shape: tuple[int, ...]) -> pd.DataFrame:
    """Parameters, and multiply-accumulates for one input of a shape, a network a row."""
    return pd.DataFrame(
        {
            "parameters": {name: f"{measure.parameters(net):,}" for name, net in networks.items()},
            "MACs": {name: f"{measure.macs(net, input_shape):,}" for name, net in networks.items()},
        }
    )
