"""Layer by layer, with float64's own sums: for programmes of ties and roundings.

A solver of real numbers takes 1 + 1e-8 to be within a budget of 1, and where thousands of choices
are so near it proposes one after the other. Here the layers are added one by one, and of all
choices so far the ones are kept that no other beats in score and in every cost: the front. Choices
that can no longer keep a budget are dropped.
"""

import time
from collections.abc import Sequence

import numpy as np

from smallnets.search.lana.programme import SLACK, InfeasibleError, Programme, Selection

Cut = tuple[tuple[int, ...], int]  # an earlier solution, and layers in which one may agree with it

WIDEST = 4000  # choices in a front
TOO_LATE = "no choice was found within the time limit; give more time"


def solve_fronts(
    programme: Programme,
    cuts: Sequence[Cut] = (),
    *,
    end: float = np.inf,
    bound: float = -np.inf,
    widest: int = WIDEST,
) -> Selection:
    """The best choice within the budgets.

    Args:
        programme: what is to be solved.
        cuts: earlier solutions, each with the number of layers that may be the same.
        end: when to stop, in seconds of `time.monotonic`; what has been found by then is returned.
        bound: that no choice can be below, where it is known.
        widest: of a front; a wider one is thinned out, and then the status is "feasible" unless
            the bound is met.

    Raises:
        InfeasibleError: nothing meets the constraints, or nothing was found in time.
    """
    rows = _rows(programme, cuts)
    limits = np.array(
        [*(b * (1 + SLACK) for b in programme.budgets.values()), *(m for _, m in cuts)]
    )
    least = _to_come([cost.min(axis=1) for _, _, cost in rows], len(limits))
    scores, costs, choices = np.zeros(1), np.zeros((len(limits), 1)), np.zeros((0, 1), np.int16)
    whole = True
    for layer, (places, score, cost) in enumerate(rows):
        if time.monotonic() > end:
            widest, whole = 1 + len(limits), False  # the quickest way to some choice
        scores = (scores[None] + score[:, None]).ravel()
        costs = (costs[:, None] + cost[:, :, None]).reshape(len(limits), -1)
        # The sums of `Programme.cost`, in its order, decide in the end: leave room for roundings.
        fits = (costs + least[layer + 1][:, None] <= limits[:, None] * (1 + SLACK)).all(axis=0)
        kept = np.flatnonzero(fits)
        if len(limits) > 1 and len(kept) > widest:  # all pairs are compared there
            kept, whole = kept[_spread(scores[kept], costs[:, kept], widest)], False
        kept = kept[_front(scores[kept], costs[:, kept])]
        if len(kept) > widest:
            kept, whole = kept[_spread(scores[kept], costs[:, kept], widest)], False
        chosen, before = np.divmod(kept, choices.shape[1])
        choices = np.concatenate([choices[:, before], places[chosen][None]])
        scores, costs = scores[kept], costs[:, kept]
    for place in np.argsort(scores, kind="stable"):
        found = [int(c) for c in choices[:, place]]
        near = all(sum(a == b for a, b in zip(found, o, strict=True)) <= most for o, most in cuts)
        if near and programme.within(found):
            exact = whole or scores[place] <= bound
            status = "optimal" if exact else "time limit" if time.monotonic() > end else "feasible"
            return programme.selection(found, float(scores[place]) if whole else bound, status)
    if not whole:
        raise InfeasibleError(TOO_LATE)
    if cuts:
        raise InfeasibleError(
            f"no choice differs enough from the {len(cuts)} earlier ones; raise the overlap"
        )
    raise InfeasibleError(f"the budgets of {', '.join(programme.budgets)} cannot be met together")


def _rows(
    programme: Programme, cuts: Sequence[Cut]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of every layer the candidates that are allowed, their scores (n,) and their costs (kinds, n);
    what a cut forbids costs 1 of a kind of its own.
    """
    found = []
    for layer, allowed in enumerate(programme.allowed):
        places = np.flatnonzero(allowed)
        costs = [rows[layer][places] for rows in programme.costs.values()]
        costs += [(places == choices[layer]).astype(float) for choices, _ in cuts]
        found.append((places, programme.score[layer][places], np.array(costs)))
    return found


def _to_come(least: list[np.ndarray], kinds: int) -> np.ndarray:
    """(layers + 1, kinds): what this layer and all later ones cost at least."""
    rows = np.array([*least, np.zeros(kinds)])
    return rows[::-1].cumsum(axis=0)[::-1]


def _front(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Places of choices that no other beats in score (n,) and in all costs (kinds, n)."""
    order = np.lexsort((scores, *costs[::-1]))
    if len(costs) == 1:
        lowest = np.minimum.accumulate(scores[order])
        return order[np.r_[True, scores[order][1:] < lowest[:-1]][: len(order)]]
    table = np.concatenate([scores[None], costs])[:, order]
    kept: np.ndarray = np.ones(len(order), dtype=bool)
    for place in range(len(order)):
        if kept[place]:
            beaten = np.asarray((table >= table[:, place : place + 1]).all(axis=0))
            beaten[place] = False
            kept = np.logical_and(kept, ~beaten)
    return order[kept]


def _spread(scores: np.ndarray, costs: np.ndarray, count: int) -> np.ndarray:
    """At most so many places, from the best score to the worst, with the cheapest of every kind."""
    order = np.argsort(scores, kind="stable")
    even = np.linspace(0, len(order) - 1, max(1, count - len(costs))).astype(int)
    return np.unique(np.concatenate([order[even], costs.argmin(axis=1)]))
