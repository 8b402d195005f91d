r"""The integer programme: one candidate a layer, least summed score, within budgets.

.. math::

    \min_z \sum_i a_i^\top z_i \quad\text{s.t.}\quad \sum_i b_i^\top z_i \le B,\;
    \mathbf 1^\top z_i = 1,\; \sum_i z_i^\top \bar z_i^{(k)} \le O,\; z_{ij} \in \{0, 1\}

with the scores a (lower is better), any number of costs b with budgets B, and one overlap cut for
each earlier solution k. A multiple-choice knapsack problem.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from smallnets import checks
from smallnets.search.lana.pool import Table

SLACK = 1e-9  # relative: sums in another order differ in their last digits


class InfeasibleError(ValueError):
    """No choice meets all constraints."""


@dataclass(frozen=True)
class Selection:
    """A solution.

    Attributes:
        choices: one candidate a layer.
        objective: summed score.
        costs: of every kind that has a budget.
        bound: no choice within the constraints can have a lower objective; -inf if unknown.
        status: "optimal" (to the gap that was asked for), "time limit" or "feasible".
    """

    choices: tuple[int, ...]
    objective: float
    costs: dict[str, float]
    bound: float
    status: str


@dataclass(frozen=True, eq=False)
class Programme:
    """Scores, costs and budgets.

    Attributes:
        score: one row a layer, one number a candidate, lower is better; rows may differ in length.
        costs: kind -> rows of the same lengths, not negative, in the unit of its budget.
        budgets: kind -> the most that the layers may cost together. What stays (stem, head) costs
            as well: subtract it first.
        forced: layer -> the candidate that it must have.
        forbidden: (layer, candidate) that may not be chosen.

    Raises:
        ValueError: rows do not match or are empty, a number is not finite, a cost is negative, a
            budget is not above 0, or forced and forbidden candidates are not there.
        InfeasibleError: a budget is below the least that the layers can cost; the message says what
            that is.
    """

    score: Table
    costs: Mapping[str, Table]
    budgets: Mapping[str, float]
    forced: Mapping[int, int] = field(default_factory=dict)
    forbidden: Collection[tuple[int, int]] = ()

    def __post_init__(self) -> None:
        score = _rows("score", self.score)
        lengths = [len(row) for row in score]
        if not lengths or 0 in lengths:
            empty = f"layer {lengths.index(0)} has none" if lengths else "there are no layers"
            raise ValueError(f"every layer must have a candidate; {empty}")
        if set(self.costs) != set(self.budgets) or not self.costs:
            raise ValueError(
                "costs and budgets must name the same kinds, at least one; "
                f"got {sorted(self.costs)} and {sorted(self.budgets)}"
            )
        costs = {key: _rows(key, rows) for key, rows in self.costs.items()}
        for key, rows in costs.items():
            if [len(row) for row in rows] != lengths:
                raise ValueError(
                    f"{key} must have rows of the score's lengths {lengths}; "
                    f"got {[len(row) for row in rows]}"
                )
            low = min(float(row.min()) for row in rows)
            if low < 0:
                raise ValueError(f"{key} must not be negative; got {low:.6g}")
            checks.above(f"budget of {key}", float(self.budgets[key]), 0)
        for layer, choice in [*self.forced.items(), *self.forbidden]:
            if not (0 <= layer < len(lengths) and 0 <= choice < lengths[layer]):
                raise ValueError(
                    "forced and forbidden candidates must be in the pool; "
                    f"got {choice} in layer {layer}"
                )
        object.__setattr__(self, "score", score)
        object.__setattr__(self, "costs", costs)
        for layer, allowed in enumerate(self.allowed):
            if not allowed.any():
                raise ValueError(
                    f"every layer must have a candidate that is allowed; layer {layer} has none"
                )
        for key, budget in self.budgets.items():
            least = self.least(key)
            if least > budget * (1 + SLACK):
                raise InfeasibleError(
                    f"budget of {key} must be at least {least:.6g}, the least that these layers "
                    f"can have; got {budget:.6g}"
                )

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.score)

    @property
    def allowed(self) -> list[np.ndarray]:
        """True where a candidate may be chosen, a row a layer."""
        rows = [np.ones(len(row), dtype=bool) for row in self.score]
        for layer, choice in self.forbidden:
            rows[layer][choice] = False
        for layer, choice in self.forced.items():
            only = np.zeros(len(rows[layer]), dtype=bool)
            only[choice] = rows[layer][choice]
            rows[layer] = only
        return rows

    def least(self, key: str) -> float:
        """The least that the layers can cost, whatever the score."""
        pairs = zip(self.costs[key], self.allowed, strict=True)
        return float(sum(np.asarray(row)[allowed].min() for row, allowed in pairs))

    def objective(self, choices: Sequence[int]) -> float:
        """Summed score."""
        return float(sum(row[c] for row, c in zip(self.score, choices, strict=True)))

    def cost(self, key: str, choices: Sequence[int]) -> float:
        """Summed cost of a kind."""
        return float(sum(row[c] for row, c in zip(self.costs[key], choices, strict=True)))

    def within(self, choices: Sequence[int]) -> bool:
        """Whether choices are allowed and within every budget."""
        pairs = zip(self.allowed, choices, strict=True)
        return all(row[c] for row, c in pairs) and all(
            self.cost(key, choices) <= budget * (1 + SLACK) for key, budget in self.budgets.items()
        )

    def selection(
        self, choices: Sequence[int], bound: float = -np.inf, status: str = "feasible"
    ) -> Selection:
        """A solution with its numbers, computed anew in float64.

        Raises:
            InfeasibleError: the choices break a constraint.
        """
        if not self.within(choices):
            raise InfeasibleError(f"choices {list(choices)} are not allowed or exceed a budget")
        costs = {key: self.cost(key, choices) for key in self.costs}
        whole = tuple(int(c) for c in choices)
        return Selection(whole, self.objective(choices), costs, bound, status)


def overlap_of(a: Sequence[int], b: Sequence[int]) -> int:
    """In how many layers two solutions choose the same, teacher layers and skips included."""
    return sum(x == y for x, y in zip(a, b, strict=True))


def _rows(name: str, rows: Sequence[Sequence[float]] | Table) -> Table:
    table = [np.asarray(row, dtype=np.float64) for row in rows]
    for layer, row in enumerate(table):
        if row.ndim != 1 or not np.isfinite(row).all():
            raise ValueError(
                f"{name} must be rows of finite numbers; got {row.tolist()} in layer {layer}"
            )
    return table
