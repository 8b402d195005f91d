"""Does a fresh run of a chapter say what the stored one says? Asked of their two records.

Where the arithmetic is that of the stored run, every number has to be the same, seed by seed. On
another processor trainings drift apart, and what can be compared is what a chapter concludes from:
means over seeds, within the spread of the seeds.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import sqrt
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.999
RARE = 0.001  # how often a record that is right may be doubted
ROUNDING = {"rtol": 1e-4, "atol": 1e-6}
USUAL, FAR = 0.05, 0.2  # between accuracies, means of two trainings: half, and nine tenths
WIDEST = 2.0  # how many times as far, where the two seeds of a record are far apart
TIMED = "timed "  # begins the names of measurements in which a clock has a part
ALIKE = ("chapter", "dataset", "scale", "seeds", "parameters")


def flattened(measurements: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """(name, values) of every measurement; the values' first axis is that of the seeds, if any."""
    if isinstance(measurements, Mapping):
        for key, part in measurements.items():
            yield from flattened(part, f"{name}/{key}" if name else str(key))
    elif isinstance(measurements, list) and measurements and isinstance(measurements[0], Mapping):
        for key in measurements[0]:  # one dictionary a seed
            yield from flattened([one.get(key) for one in measurements], f"{name}/{key}")
    else:
        yield name, np.asarray(measurements)


def problems(fresh: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """What a fresh record has otherwise than the stored one, a line each; none if it confirms it.

    Other settings of the study than the stored ones are a difference, whatever came of them.
    With the stored record's arithmetic every number must agree to rounding, seed by seed. With
    another one, whole numbers must be the same, unless there is one for every seed: what is
    counted in trained networks is a measurement like any other, and not compared if there are
    fewer than three seeds. Where there are three or more, the means over seeds must agree within
    their pooled standard error times Student's t at 99.9 %. Of many measurements some are further
    off by chance: as many as chance explains in all but one record of a thousand are forgiven,
    unless they are so far off that one would be too many.

    A clock never says the same twice. What it had a part in, whose names begin with "timed", must
    have been measured, and be numbers.

    One or two seeds have no spread to speak of. Of the accuracies that have no more, half must be
    within 5 points of the stored ones, and nine tenths within 20. Networks of one seed often have
    a teacher in common, and are all better or worse with it: if the two seeds of a record differ
    by more than 5 points in half of the accuracies, both bounds grow in proportion, at most to
    twice their size.
    """
    asked, kept = (_what_was_asked(record) for record in (fresh, stored))
    differ = [name for name in kept.keys() | asked.keys() if asked.get(name) != kept.get(name)]
    if differ:
        return [
            f"{name}: {asked.get(name)} was run, {kept.get(name)} is stored"
            for name in sorted(differ)
        ]
    same = fresh.get("arithmetic") == stored.get("arithmetic")
    now, then = (_by_name(record, whole=same) for record in (fresh, stored))
    found = [f"{name} is not in the stored record" for name in now.keys() - then.keys()]
    found += [f"{name} was not measured" for name in then.keys() - now.keys()]
    common = sorted(then.keys() & now.keys())
    far: list[str] = []
    for name in common:
        both = now[name], then[name]
        if now[name].shape != then[name].shape:
            found.append(f"{name}: shape {now[name].shape} instead of {then[name].shape}")
        elif name.startswith(TIMED):
            if not np.isfinite(now[name]).all():
                found.append(f"{name}: {_short(now[name])} instead of numbers")
        elif word := _difference(*both, same, CONFIDENCE):
            sure = same or _difference(*both, same, 1 - RARE / len(common))
            (found if sure else far).append(f"{name}: {word}")
    if len(far) > stats.binom.ppf(1 - RARE, len(common), 1 - CONFIDENCE):
        found += far
    if not same:
        found += _accuracies_of_few_seeds(now, then)
    return sorted(found)


def _what_was_asked(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record was asked for, and every setting of its study by name."""
    return {name: record.get(name) for name in ALIKE} | _settings(record.get("settings"))


def _by_name(record: Mapping[str, Any], whole: bool) -> dict[str, np.ndarray]:
    """Values of every measurement; if not `whole`, one whole number a seed as floats."""
    found, seeds = dict(flattened(record["measurements"])), record.get("seeds") or ()
    if whole:
        return found
    return {
        name: values.astype(float)
        if np.issubdtype(values.dtype, np.integer) and values.shape[:1] == (len(seeds),)
        else values
        for name, values in found.items()
    }


def _settings(value: Any, name: str = "settings") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    parts = (_settings(part, f"{name}/{key}") for key, part in value.items())
    return {key: one for part in parts for key, one in part.items()}


def _accuracies_of_few_seeds(
    now: Mapping[str, np.ndarray], then: Mapping[str, np.ndarray]
) -> list[str]:
    apart = {
        name: float(np.abs(now[name].mean(0) - values.mean(0)).mean())
        for name, values in then.items()
        if name.startswith("accuracy/") and name in now and now[name].shape == values.shape
        if values.ndim > 0 and 0 < len(values) < 3
    }
    if not apart:
        return []
    found = []
    own = max(_between_two_seeds(record, apart) for record in (now, then))
    factor = min(max(1.0, own / USUAL), WIDEST)
    wider = {name: factor * sqrt(2 / len(then[name])) for name in apart}  # of one training alone
    shares = {name: distance / wider[name] for name, distance in apart.items()}
    if not np.median(list(shares.values())) <= USUAL:  # not a number is far, too
        half = np.median(list(apart.values()))
        found.append(f"accuracy: of few seeds, half are {half:.2g} or more apart")
    far = {name: apart[name] for name, share in shares.items() if not share <= FAR}
    if len(far) > len(apart) / 10:
        found += [f"{name}: {distance:.2g} apart" for name, distance in far.items()]
    return found


def _between_two_seeds(record: Mapping[str, np.ndarray], names: Iterable[str]) -> float:
    """How far the two seeds of a record are apart in half of its accuracies; 0 of one seed."""
    pairs = [record[name] for name in names if len(record[name]) == 2]
    return float(np.median([np.abs(one - two).mean() for one, two in pairs])) if pairs else 0.0


def _difference(now: np.ndarray, then: np.ndarray, same: bool, confidence: float) -> str:
    """What is wrong with a measurement of the right shape, or an empty string."""
    if not np.issubdtype(then.dtype, np.floating):
        return "" if np.array_equal(now, then) else f"{now.tolist()} instead of {then.tolist()}"
    if same:
        if np.allclose(now, then, **ROUNDING, equal_nan=True):
            return ""
        return f"{_short(now)} instead of {_short(then)}"
    if then.ndim == 0 or len(then) < 3:
        return ""
    means, others = now.mean(0), then.mean(0)
    bound = _bound(now, then, confidence)
    if np.all(np.abs(means - others) <= bound):
        return ""
    worst = np.unravel_index(np.argmax(np.abs(means - others) - bound), np.shape(means))
    return (
        f"mean {means[worst]:.4g} instead of {others[worst]:.4g}, "
        f"more than {bound[worst]:.2g} apart"
    )


def _bound(now: np.ndarray, then: np.ndarray, confidence: float) -> np.ndarray:
    """How far the means over seeds of two runs may be apart."""
    count = len(then)
    pooled = np.sqrt((now.var(0, ddof=1) + then.var(0, ddof=1)) / 2)
    t = stats.t.ppf((1 + confidence) / 2, 2 * count - 2)
    return np.asarray(t * pooled * sqrt(2 / count) + ROUNDING["atol"])


def _short(values: np.ndarray) -> str:
    flat = [f"{value:.6g}" for value in values.flatten()[:5]]
    return ", ".join(flat) + (", ..." if values.size > 5 else "")
