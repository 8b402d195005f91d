"""Other ways to the same answer: exact by dynamic programming or by trying all, bounded by a
Lagrangian, and greedy.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from smallnets import checks
from smallnets.search.lana.programme import InfeasibleError, Programme, Selection, overlap_of

MOST_TRIED = 1_000_000
MOST_BINS = 5_000_000


def solve_all(
    programme: Programme, *, exclude: Sequence[Sequence[int]] = (), overlap: int | None = None
) -> list[Selection]:
    """Every feasible choice, best first: for small problems and for checking the others.

    Args:
        programme: at most a million choices.
        exclude, overlap: as in `smallnets.search.lana.solve.solve`.

    Raises:
        ValueError: there are too many choices.
        InfeasibleError: no choice is feasible.
    """
    places = [np.flatnonzero(row).tolist() for row in programme.allowed]
    count = float(np.prod([float(len(place)) for place in places]))
    checks.at_least("choices that can be tried", MOST_TRIED, count)
    most = programme.layers - 1 if overlap is None else overlap
    feasible = [
        programme.selection(choices)
        for choices in product(*places)
        if programme.within(choices) and all(overlap_of(choices, one) <= most for one in exclude)
    ]
    if not feasible:
        raise InfeasibleError("no choice meets the budgets and cuts")
    return sorted(feasible, key=lambda one: one.objective)


def solve_dynamic(programme: Programme, bins: int | None = None) -> Selection:
    """By dynamic programming over the cost spent so far (Pisinger, 1995, in its plain form).

    Exact for whole-number costs. Otherwise, or to save memory, costs are divided into `bins` parts
    of the budget and rounded up: the budget is kept, and the answer is a little worse.

    Args:
        programme: with one budget.
        bins: into which the budget is divided; None takes costs as they are.

    Raises:
        ValueError: there are several budgets, or the costs are no whole numbers and `bins` is None.
        InfeasibleError: rounding up leaves nothing.
    """
    key = _only(programme)
    budget = programme.budgets[key] * (1 + 1e-9)
    if bins is None:
        flat = np.concatenate(programme.costs[key])
        broken = flat[flat != np.rint(flat)]
        if len(broken):
            raise ValueError(f"{key} must be whole numbers, or bins be given; got {broken[0]}")
        unit = float(np.gcd.reduce(flat.astype(np.int64))) or 1.0
        capacity = int(budget // unit)
        checks.at_least("bins that fit into memory", MOST_BINS, capacity)
    else:
        capacity = checks.whole("bins", bins, 1)
        unit = budget / capacity
    steps = [np.ceil(row / unit - 1e-9).astype(int) for row in programme.costs[key]]

    best = np.zeros(capacity + 1)  # least score with at most this cost, of the layers so far
    taken = np.zeros((programme.layers, capacity + 1), dtype=np.int32)
    rows = zip(programme.score, steps, programme.allowed, strict=True)
    for layer, (score, step, allowed) in enumerate(rows):
        new = np.full(capacity + 1, np.inf)
        for j in np.flatnonzero(allowed & (step <= capacity)):
            reached = best[: capacity + 1 - step[j]] + score[j]
            better = reached < new[step[j] :]
            new[step[j] :][better] = reached[better]
            taken[layer, step[j] :][better] = j
        best = new
    if not np.isfinite(best[-1]):
        raise InfeasibleError(
            f"with costs rounded up to {capacity} bins no choice is left; take more"
        )
    choices, left = [], capacity
    for layer in reversed(range(programme.layers)):
        choices.append(int(taken[layer, left]))
        left -= steps[layer][choices[-1]]
    exact = bins is None
    return programme.selection(
        choices[::-1], float(best[-1]) if exact else -np.inf, "optimal" if exact else "feasible"
    )


def solve_lagrangian(programme: Programme, steps: int = 100) -> Selection:
    r"""By a price on cost, the dual of the budget.

    The bound is :math:`\max_{\lambda \ge 0} \sum_i \min_j (a_{ij} + \lambda b_{ij}) - \lambda B`
    and equals that of the linear relaxation. Bisection finds the lowest price at which
    the cheapest layers together keep the budget; that choice is returned.

    Args:
        programme: with one budget.
        steps: halvings of the interval of prices.

    Raises:
        ValueError: there are several budgets, or `steps` is below 1.
    """
    key = _only(programme)
    budget = programme.budgets[key]
    checks.whole("steps", steps, 1)
    rows = [
        (np.where(allowed, score, np.inf), cost / budget)
        for score, cost, allowed in zip(
            programme.score, programme.costs[key], programme.allowed, strict=True
        )
    ]

    def at(price: float) -> tuple[list[int], float]:
        chosen, value = [], -price
        for score, cost in rows:
            priced = score + price * cost
            # Of equals the cheapest, so that a high price leads to the least cost.
            j = int(np.lexsort((cost, priced))[0])
            chosen.append(j)
            value += priced[j]
        return chosen, float(value)

    chosen, bound = at(0.0)
    low, high = 0.0, 1.0
    if not programme.within(chosen):
        while not programme.within(at(high)[0]):
            low, high = high, 2 * high
        for _ in range(steps):
            middle = (low + high) / 2
            low, high = (low, middle) if programme.within(at(middle)[0]) else (middle, high)
        chosen = at(high)[0]
        bound = max(at(low)[1], at(high)[1])
    return programme.selection(chosen, bound)


def solve_greedy(programme: Programme) -> Selection:
    """The usual heuristic: from each layer's best candidate on, make the exchange that costs the
    least score for what it saves, until the budget is kept.

    Args:
        programme: with one budget.

    Raises:
        ValueError: there are several budgets.
    """
    key = _only(programme)
    rows = [
        (np.where(allowed, score, np.inf), cost)
        for score, cost, allowed in zip(
            programme.score, programme.costs[key], programme.allowed, strict=True
        )
    ]
    choices = [int(score.argmin()) for score, _ in rows]
    while not programme.within(choices):
        best = (np.inf, -1, -1)
        for layer, ((score, cost), now) in enumerate(zip(rows, choices, strict=True)):
            saved = cost[now] - cost
            with np.errstate(divide="ignore", invalid="ignore"):
                price = np.where(saved > 0, (score - score[now]) / saved, np.inf)
            j = int(price.argmin())
            best = min(best, (float(price[j]), layer, j))
        choices[best[1]] = best[2]
    return programme.selection(choices)


def _only(programme: Programme) -> str:
    if len(programme.budgets) != 1:
        raise ValueError(
            f"this solver takes one budget; got {', '.join(programme.budgets)}: use solve"
        )
    return next(iter(programme.budgets))
