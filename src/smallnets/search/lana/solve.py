"""Solving the integer programme with HiGHS, once or for a set of diverse solutions."""

import ctypes
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp

from smallnets import checks
from smallnets.search.lana.fronts import TOO_LATE, solve_fronts
from smallnets.search.lana.pool import Table
from smallnets.search.lana.programme import InfeasibleError, Programme, Selection, overlap_of

TRIES = 20  # solutions of the solver's that may exceed a budget by less than its tolerance


def solve(
    programme: Programme,
    *,
    exclude: Sequence[Sequence[int]] = (),
    overlap: int | None = None,
    rel_gap: float = 0.0,
    time_limit: float | None = None,
) -> Selection:
    """The best choice within the budgets.

    The constraint matrix is sparse: a row of ones a layer, a row a budget, a row a cut. Rows are
    scaled to their budgets and scores to their range, so that the solver's tolerances mean the same
    in seconds and in multiply-accumulates. What it returns is checked in float64; a choice that
    exceeds a budget by less than the solver's tolerance is cut off, and the rest solved again.
    Where that happens time and again, `smallnets.search.lana.fronts` takes over, which computes in
    float64 itself.

    Args:
        programme: what is to be solved.
        exclude: earlier solutions.
        overlap: layers in which the answer may agree with each of them; by default all but one.
        rel_gap: stop when the objective, counted from the sum of each layer's best score, is within
            this share of the bound.
        time_limit: seconds in all; what has been found by then is returned. This is no guarantee:
            HiGHS looks at the clock between its own steps. With nine cuts on 100 layers of 197
            candidates it came up to 0.13 s late (one core, limits of 0.02 to 2 s), with fewer
            layers 0.05 s. Where a limit acts, the answer depends on the machine.

    Raises:
        ValueError: overlap, gap or limit is out of range.
        InfeasibleError: nothing meets the constraints, or nothing was found in time.
    """
    layers = programme.layers
    overlap = layers - 1 if overlap is None else overlap
    checks.between("overlap", checks.whole("overlap", overlap, 0), 0, layers)
    checks.at_least("rel_gap", rel_gap, 0)
    if time_limit is not None:
        checks.above("time_limit", time_limit, 0)
    cuts = [(tuple(choices), overlap) for choices in exclude]
    options = {"mip_rel_gap": rel_gap} | ({"time_limit": time_limit} if time_limit else {})
    end = time.monotonic() + (time_limit or np.inf)
    bound = -np.inf
    for _ in range(TRIES):
        if time_limit is not None:
            left = end - time.monotonic()
            if left <= 0 and len(cuts) == len(exclude):
                raise InfeasibleError(TOO_LATE)
            if left <= 0:
                break
            options["time_limit"] = left
        result, constant, scale = _highs(programme, cuts, options, integer=True)
        if result.x is None and (len(cuts) > len(exclude) or result.status == 4):
            break  # nothing is left that the solver takes to be within, or it is at a loss
        if result.x is None:
            raise InfeasibleError(_reason(programme, cuts, result, end))
        choices = [int(row.argmax()) for row in _split(programme, result.x)]
        far = all(overlap_of(choices, other) <= most for other, most in cuts)
        if far and programme.within(choices):
            status = "time limit" if result.status == 1 else "optimal"
            bound = constant + (result.mip_dual_bound or 0.0) / scale
            return programme.selection(choices, bound, status)
        bound = max(bound, constant + (result.mip_dual_bound or 0.0) / scale)
        cuts.append((tuple(choices), layers - 1))
    return solve_fronts(programme, cuts[: len(exclude)], end=end, bound=bound)


def relax(programme: Programme) -> tuple[float, Table]:
    """The linear relaxation: its optimum, a lower bound, and the fractions z of every layer."""
    result, constant, scale = _highs(programme, [], {}, integer=False)
    return constant + result.fun / scale, _split(programme, result.x)


def solve_diverse(
    programme: Programme,
    count: int,
    *,
    overlap: int,
    rel_gap: float = 0.0,
    time_limit: float | None = None,
) -> list[Selection]:
    """Up to `count` solutions, each agreeing with every earlier one in at most `overlap` layers.

    The first is exact. With no gap and no limit objectives do not fall. Cuts can run out: then
    there are fewer solutions.

    Args:
        programme: what is to be solved.
        count: how many.
        overlap: layers, 0 to all.
        rel_gap, time_limit: of the later solutions, which get harder; see `solve`.

    Raises:
        ValueError: a number is out of range.
        InfeasibleError: there is not even one solution.
    """
    checks.whole("count", count, 1)
    found = [solve(programme, overlap=overlap)]
    limits: dict[str, Any] = {"overlap": overlap, "rel_gap": rel_gap, "time_limit": time_limit}
    while len(found) < count:
        try:
            found.append(solve(programme, exclude=[one.choices for one in found], **limits))
        except InfeasibleError:
            break
    return found


def _split(programme: Programme, x: np.ndarray) -> Table:
    return np.split(x, np.cumsum([len(row) for row in programme.score])[:-1])


def _highs(
    programme: Programme,
    cuts: Sequence[tuple[tuple[int, ...], int]],
    options: dict[str, float],
    *,
    integer: bool,
) -> tuple[OptimizeResult, float, float]:
    """HiGHS' result, and how its objective reads: ours is constant + theirs / scale."""
    lengths = np.array([len(row) for row in programme.score])
    starts = np.cumsum(lengths) - lengths
    # A layer's best score taken out: objectives start at 0, where a relative gap has a meaning.
    best = [
        row[allowed].min() for row, allowed in zip(programme.score, programme.allowed, strict=True)
    ]
    score = np.concatenate([row - low for row, low in zip(programme.score, best, strict=True)])
    scale = 100 / (np.abs(score).max() or 1.0)
    total = int(lengths.sum())
    layer_of = np.repeat(np.arange(len(lengths)), lengths)
    one_each = sparse.csr_array((np.ones(total), (layer_of, np.arange(total))))
    constraints = [LinearConstraint(one_each, 1, 1)]
    for key, budget in programme.budgets.items():
        row = sparse.csr_array(np.concatenate(programme.costs[key])[None] / budget)
        constraints.append(LinearConstraint(row, -np.inf, 1))
    if cuts:
        columns = np.concatenate([starts + np.array(choices) for choices, _ in cuts])
        rows = np.repeat(np.arange(len(cuts)), len(lengths))
        block = sparse.csr_array((np.ones(len(columns)), (rows, columns)), shape=(len(cuts), total))
        constraints.append(LinearConstraint(block, -np.inf, [most for _, most in cuts]))
    with _quiet():
        result = milp(
            score * scale,
            constraints=constraints,
            integrality=np.full(total, int(integer)),
            bounds=Bounds(0, np.concatenate(programme.allowed).astype(float)),
            options=options,
        )
    return result, float(sum(best)), scale


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on standard output: HiGHS prints a stray line now and then, whatever it is told."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C still holds back
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _reason(
    programme: Programme,
    cuts: Sequence[tuple[tuple[int, ...], int]],
    result: OptimizeResult,
    end: float,
) -> str:
    """One line on why there is no solution, found before `end`."""
    if result.status == 1:
        return TOO_LATE
    if cuts:
        return f"no choice differs enough from the {len(cuts)} earlier ones; raise the overlap"
    key, *others = programme.budgets
    rest = {other: programme.budgets[other] for other in others}
    costs = {other: programme.costs[other] for other in others}
    left = end - time.monotonic()
    if not others or left <= 0:
        return f"the budgets of {', '.join(programme.budgets)} cannot be met together"
    try:
        cheapest = solve(
            Programme(programme.costs[key], costs, rest, programme.forced, programme.forbidden),
            time_limit=left if np.isfinite(left) else None,
        )
    except InfeasibleError:
        return f"the budgets of {', '.join(others)} cannot be met together"
    return str(cannot_be_met_together(programme, cheapest))


def cannot_be_met_together(programme: Programme, cheapest: Selection) -> InfeasibleError:
    """The error for several budgets, with the least that the first can be.

    Args:
        programme: whose budgets they are.
        cheapest: the network that costs least of the first kind within the other budgets.
    """
    key = next(iter(programme.budgets))
    return InfeasibleError(
        f"the budgets cannot be met together: with the others kept, that of {key} must be at least "
        f"{cheapest.objective:.6g}; got {programme.budgets[key]:.6g}"
    )
