"""Accuracies over time, each with its formula (section 5 of the method).

A[t, j] is the accuracy on the test images of task j after step t, n_j the task's classes. With

    a_t = sum_{j <= t} n_j A[t, j] / sum_{j <= t} n_j,

there are two averages in use under one name, which differ by points. Here each has its own.
"""

from collections.abc import Sequence

import numpy as np

from smallnets import checks

Matrix = np.ndarray | Sequence[Sequence[float]]


def step_accuracy(matrix: Matrix, sizes: Sequence[int]) -> np.ndarray:
    """a_t of every step, (T,): accuracy on all classes seen, each class counting alike.

    Args:
        matrix: A (T, T); what is above the diagonal is not looked at.
        sizes: n_j, (T,).

    Raises:
        ValueError: shapes that do not fit, or numbers that are not finite.
    """
    a = _lower(matrix)
    if len(sizes) != len(a):
        raise ValueError(f"sizes must be {len(a)} numbers, one a task; got {len(sizes)}")
    checks.each("sizes", sizes, checks.whole, 1)
    n = np.asarray(sizes, dtype=float)
    return np.array([a[t, : t + 1] @ n[: t + 1] / n[: t + 1].sum() for t in range(len(a))])


def last_accuracy(matrix: Matrix, sizes: Sequence[int]) -> float:
    """a_{T-1}: accuracy on all classes after the last step."""
    return float(step_accuracy(matrix, sizes)[-1])


def average_incremental_accuracy(matrix: Matrix, sizes: Sequence[int]) -> float:
    """(1 / T) sum_{t=0}^{T-1} a_t: the first step, before anything could be forgotten, counts."""
    return float(step_accuracy(matrix, sizes).mean())


def average_incremental_accuracy_without_first(matrix: Matrix, sizes: Sequence[int]) -> float:
    """(1 / (T - 1)) sum_{t=1}^{T-1} a_t: the first step does not count.

    Raises:
        ValueError: there is no other step.
    """
    accuracies = step_accuracy(matrix, sizes)
    checks.whole("number of steps", len(accuracies), 2)
    return float(accuracies[1:].mean())


def forgetting_per_task(matrix: Matrix) -> np.ndarray:
    """max_{t in [j, T-1)} A[t, j] - A[T-1, j] of every task but the last, (T - 1,).

    Negative where a task is known better at the end than ever before.

    Raises:
        ValueError: there is only one step.
    """
    a = _lower(matrix)
    last = checks.whole("number of steps", len(a), 2) - 1
    return np.array([a[j:last, j].max() - a[last, j] for j in range(last)])


def forgetting(matrix: Matrix) -> float:
    """The mean of `forgetting_per_task`."""
    return float(forgetting_per_task(matrix).mean())


def _lower(matrix: Matrix) -> np.ndarray:
    a = np.asarray(matrix, dtype=float)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or not len(a):
        raise ValueError(f"matrix must be square, a row a step; got shape {a.shape}")
    if not np.isfinite(np.tril(a)).all():
        raise ValueError("matrix must be finite up to its diagonal; got NaN or infinity")
    return a
