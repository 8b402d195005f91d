"""Random numbers that depend on a seed and a place alone.

A patch is named by its number. Its random numbers are read off a hash of (seed, number, slot), so
they are the same in whatever order, batch or process the patches are made. The hash is SplitMix64
(Steele, Lea & Flood, 2014), whose k-th output is a mixture of k steps of a fixed odd width.
"""

import numpy as np

STEP = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio


def uniforms(seed: int, numbers: np.ndarray, slots: np.ndarray | range) -> np.ndarray:
    """Numbers in [0, 1), float64 (n, slots), one for each pair.

    Args:
        seed: 0 or more.
        numbers: whole numbers (n,), such as those of patches.
        slots: which draws of each; a draw is the same whatever others are asked for.
    """
    origin = _mixed(np.array([seed], np.uint64) * STEP + np.uint64(1))
    own = _mixed(origin + (numbers.astype(np.uint64) + np.uint64(1)) * STEP)
    which = (np.asarray(slots).astype(np.uint64) + np.uint64(1)) * STEP
    bits = _mixed(own[:, None] + which[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def between(drawn: np.ndarray, low: float, high: float) -> np.ndarray:
    """Uniform numbers of [0, 1) moved to [low, high)."""
    return low + (high - low) * drawn


def below(drawn: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """Uniform numbers of [0, 1) as whole numbers 0, ..., bound - 1, int64."""
    return np.minimum((drawn * bound).astype(np.int64), np.asarray(bound) - 1)


def normals(seed: int, numbers: np.ndarray, slots: range) -> np.ndarray:
    """Numbers of the standard normal distribution, float64 (n, slots), by Box and Muller."""
    count = len(slots)
    first = uniforms(seed, numbers, slots)
    second = uniforms(seed, numbers, range(slots.start + count, slots.stop + count))
    return np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)


def _mixed(z: np.ndarray) -> np.ndarray:
    """SplitMix64's mixture of 64 bits; NumPy's unsigned numbers wrap."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
