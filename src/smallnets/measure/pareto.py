"""Which of several solutions no other one beats in everything."""

from collections.abc import Collection, Hashable, Mapping
from typing import TypeVar

import numpy as np

from smallnets.checks import plain

Name = TypeVar("Name", bound=Hashable)


def pareto(
    points: Mapping[Name, Mapping[str, float]],
    least: Collection[str] = (),
    most: Collection[str] = (),
) -> list[Name]:
    """The names of the points on the Pareto front, in the order of the first thing that is named.

    A point is beaten where another one is at least as good in everything and better in something;
    of equals all are kept.

    Args:
        points: name -> what it costs and is worth.
        least: the things of which less is better, such as "bytes".
        most: those of which more is better, such as "accuracy".

    Raises:
        ValueError: nothing to compare by, a thing that a point lacks or that is named twice, or a
            number that is not one.
    """
    if isinstance(least, str) or isinstance(most, str):
        raise ValueError("least and most must be collections of names; got a string")
    least, most = tuple(least), tuple(most)
    signs = [*((name, 1.0) for name in least), *((name, -1.0) for name in most)]
    names = [name for name, _ in signs]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"least and most must name something to compare by, each once; got {names or 'nothing'}"
        )
    table = np.empty((len(points), len(signs)))
    for row, (point, values) in enumerate(points.items()):
        for column, (name, sign) in enumerate(signs):
            value = plain(values.get(name))
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or value != value:
                raise ValueError(f"{name} of {point!r} must be a number; got {value!r}")
            table[row, column] = sign * value
    no_worse = (table[:, None] <= table[None]).all(axis=2)  # [a, b]: a is no worse than b
    better = (table[:, None] < table[None]).any(axis=2)
    front = ~(no_worse & better).any(axis=0)
    kept = [(*table[row], row) for row in np.flatnonzero(front)]
    order = list(points)
    return [order[int(row)] for *_, row in sorted(kept)]
