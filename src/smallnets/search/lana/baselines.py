"""Searching without an integer programme: at random, and by evolution, within the same budgets."""

from collections.abc import Callable, Sequence

import numpy as np

from smallnets import checks
from smallnets.search.lana.programme import SLACK, Programme
from smallnets.search.lana.solve import cannot_be_met_together, solve

Choices = tuple[int, ...]
History = list[tuple[Choices, float]]


def random_choices(
    programme: Programme, count: int, generator: np.random.Generator, *, low: float = 0.8
) -> list[Choices]:
    """Random networks within the budgets that use at least a share of the first one.

    A network is drawn uniformly, then single layers are drawn anew, cheaper where it is above a
    budget and dearer where it is below the share, until it fits. Where nothing that dear is found
    in a few hundred draws, it may be cheaper.

    Args:
        programme: its scores are not used.
        count: how many.
        generator: random numbers.
        low: share of the first budget, in [0, 1].

    Raises:
        ValueError: a number is out of range.
        InfeasibleError: the budgets cannot be met together; the message says what would do.
    """
    checks.whole("count", count, 1)
    checks.between("low", low, 0, 1)
    repair = Repair(programme)
    return [_drawn(programme, repair, generator, low) for _ in range(count)]


def _drawn(
    programme: Programme, repair: "Repair", generator: np.random.Generator, low: float
) -> Choices:
    places = [np.flatnonzero(row) for row in programme.allowed]
    key = next(iter(programme.budgets))
    choices = [int(generator.choice(place)) for place in places]
    fallback: Choices | None = None
    for _ in range(400):
        choices = repair(choices, generator)
        if programme.cost(key, choices) >= low * programme.budgets[key]:
            return tuple(choices)
        fallback = tuple(choices)
        layer = int(generator.integers(programme.layers))
        row = programme.costs[key][layer]
        dearer = [j for j in places[layer] if row[j] > row[choices[layer]]]
        if dearer:
            choices[layer] = int(generator.choice(dearer))
    return fallback or tuple(choices)


class Repair:
    """Brings choices within the budgets: random layers get cheaper ones.

    Under one budget every step leads down, and the cheapest network is within it. Under several a
    step down in one cost may lead up in another; after some steps the layers then take, in random
    order, what a network has that keeps all budgets.

    Args:
        programme: its scores are not used.

    Raises:
        InfeasibleError: the budgets cannot be met together.
    """

    def __init__(self, programme: Programme) -> None:
        self.programme = programme
        lengths = [len(row) for row in programme.score]
        self.starts = np.cumsum(lengths) - lengths
        self.layer_of = np.repeat(np.arange(len(lengths)), lengths)
        self.allowed = np.concatenate(programme.allowed)
        self.costs = {key: np.concatenate(rows) for key, rows in programme.costs.items()}
        alone = len(programme.budgets) == 1
        self.steps = len(self.allowed) if alone else 4 * len(lengths)
        self.meeting = None if alone else _one_within(programme)

    def __call__(self, choices: Sequence[int], generator: np.random.Generator) -> list[int]:
        """Choices within the budgets, made from allowed ones that may be above them."""
        budgets, cost = self.programme.budgets, self.programme.cost
        fixed = list(choices)
        for _ in range(self.steps):
            if self.within(fixed):
                return fixed
            key = max(budgets, key=lambda k: cost(k, fixed) / budgets[k])
            now = self.costs[key][self.starts + fixed][self.layer_of]
            options = np.flatnonzero(self.allowed & (self.costs[key] < now))
            if not len(options):
                break
            place = int(options[int(generator.integers(len(options)))])
            layer = int(self.layer_of[place])
            fixed[layer] = place - int(self.starts[layer])
        if self.meeting is not None:
            for layer in generator.permutation(len(fixed)):
                if self.within(fixed):
                    break
                fixed[layer] = self.meeting[layer]
        return fixed

    def within(self, choices: Sequence[int]) -> bool:
        """Whether choices that are allowed keep all budgets."""
        budgets = self.programme.budgets.items()
        return all(self.programme.cost(k, choices) <= most * (1 + SLACK) for k, most in budgets)


def _one_within(programme: Programme) -> Choices:
    key, *others = programme.budgets
    rest = {other: programme.budgets[other] for other in others}
    costs = {other: programme.costs[other] for other in others}
    cheapest = solve(
        Programme(programme.costs[key], costs, rest, programme.forced, programme.forbidden)
    )
    if not programme.within(cheapest.choices):
        raise cannot_be_met_together(programme, cheapest)
    return cheapest.choices


def random_search(
    programme: Programme,
    evaluate: Callable[[Choices], float],
    evaluations: int,
    generator: np.random.Generator,
) -> History:
    """Every random network with its value, in order."""
    return [(one, evaluate(one)) for one in random_choices(programme, evaluations, generator)]


def evolve(
    programme: Programme,
    evaluate: Callable[[Choices], float],
    evaluations: int,
    generator: np.random.Generator,
    *,
    population: int = 16,
    tournament: int = 4,
) -> History:
    """Ageing evolution (Real et al., 2019): the best of a few random members gets a child with one
    layer drawn anew, and the oldest member dies.

    Args:
        programme: its budgets are kept, its scores not used.
        evaluate: choices -> value, lower is better.
        evaluations: how often it may be called.
        generator: random numbers.
        population: members; the first ones are random.
        tournament: members that compete for a child.

    Returns:
        Choices and value of every evaluation, in order.

    Raises:
        ValueError: a number is below 1.
        InfeasibleError: the budgets cannot be met together.
    """
    for name, value in (
        ("evaluations", evaluations), ("population", population), ("tournament", tournament),
    ):  # fmt: skip
        checks.whole(name, value, 1)
    history = random_search(programme, evaluate, min(population, evaluations), generator)
    places = [np.flatnonzero(row) for row in programme.allowed]
    repair = Repair(programme)
    while len(history) < evaluations:
        living = history[-population:]
        rivals = generator.choice(len(living), min(tournament, len(living)), replace=False)
        child = list(min((living[i] for i in rivals), key=lambda one: one[1])[0])
        layer = int(generator.integers(programme.layers))
        child[layer] = int(generator.choice(places[layer]))
        fitting = tuple(repair(child, generator))
        history.append((fitting, evaluate(fitting)))
    return history


def best_so_far(history: History) -> np.ndarray:
    """The lowest value after every evaluation."""
    return np.minimum.accumulate([value for _, value in history])
