"""Checks of what a user passed in: one line that names what was given and what is allowed."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

Number = TypeVar("Number", int, float)


def one_of(name: str, value: str, allowed: Collection[str]) -> str:
    """Return `value` if it is among `allowed`, else raise ValueError naming both."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def at_least(name: str, value: Number, minimum: Number) -> Number:
    """Return `value` if it is a number of at least `minimum`, else raise ValueError."""
    if not _is_number(value) or not value >= minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {value!r}")
    return _finite(name, value)


def above(name: str, value: Number, bound: Number) -> Number:
    """Return `value` if it is a number greater than `bound`, else raise ValueError."""
    if not _is_number(value) or not value > bound:
        raise ValueError(f"{name} must be greater than {bound}; got {value!r}")
    return _finite(name, value)


def between(name: str, value: float, low: float, high: float) -> float:
    """Return `value` if `low` <= `value` <= `high`, else raise ValueError."""
    if not _is_number(value) or not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}; got {value!r}")
    return value


def whole(name: str, value: int, minimum: int) -> int:
    """Return `value` if it is a whole number of at least `minimum`, else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number of at least {minimum}; got {value!r}")
    return at_least(name, value, minimum)


def each(
    name: str, values: Sequence[Number], check: Callable[..., object], *bounds: float
) -> Sequence[Number]:
    """Return `values` if there are any and every one passes `check(name, value, *bounds)`."""
    if not values:
        raise ValueError(f"{name} must hold at least one number; got none")
    for value in values:
        check(f"every one of {name}", value, *bounds)
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(name: str, value: Number) -> Number:
    if value == math.inf:
        raise ValueError(f"{name} must be finite; got {value!r}")
    return value
