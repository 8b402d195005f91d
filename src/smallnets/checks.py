"""Checks of what a user passed in: one line that names what was given and what is allowed."""

import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import numpy as np

Number = TypeVar("Number", int, float)


def one_of(name: str, value: str, allowed: Collection[str]) -> str:
    """Return `value` if it is among `allowed`, else raise ValueError naming both."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def at_least(name: str, value: Number, minimum: Number) -> Number:
    """Return `value` if it is a number of at least `minimum`, else raise ValueError."""
    if not _number(name, value) >= minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {plain(value)!r}")
    return _finite(name, value)


def above(name: str, value: Number, bound: Number) -> Number:
    """Return `value` if it is a number greater than `bound`, else raise ValueError."""
    if not _number(name, value) > bound:
        raise ValueError(f"{name} must be greater than {bound}; got {plain(value)!r}")
    return _finite(name, value)


def between(name: str, value: float, low: float, high: float) -> float:
    """Return `value` if `low` <= `value` <= `high`, else raise ValueError."""
    if not low <= _number(name, value) <= high:
        raise ValueError(f"{name} must be between {low} and {high}; got {plain(value)!r}")
    return value


def whole(name: str, value: int, minimum: int) -> int:
    """Return `value` if it is a whole number of at least `minimum`, else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be a whole number of at least {minimum}; got {value!r}")
    return at_least(name, value, minimum)


def each(
    name: str, values: Sequence[Number], check: Callable[..., object], *bounds: float
) -> Sequence[Number]:
    """Return `values` if there are any and every one passes `check(name, value, *bounds)`."""
    if len(values) == 0:
        raise ValueError(f"{name} must hold at least one number; got none")
    for value in values:
        check(f"every one of {name}", value, *bounds)
    return values


def plain(value: Any) -> Any:
    """A NumPy number as Python's, also within lists and tuples, and a NumPy array as a tuple;
    anything else as it is.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return tuple(map(plain, value)) if value.ndim else value.item()
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def plain_fields(settings: Any) -> None:
    """Make the fields of a dataclass `plain`, frozen or not: what decides a training, names a file
    or stands in a record has one form.
    """
    for field in dataclasses.fields(settings):
        object.__setattr__(settings, field.name, plain(getattr(settings, field.name)))


def _number(name: str, value: Number) -> Number:
    number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not number:
        raise ValueError(f"{name} must be a number; got {value!r}")
    return value


def _finite(name: str, value: Number) -> Number:
    if value == math.inf:
        raise ValueError(f"{name} must be finite; got {plain(value)!r}")
    return value
