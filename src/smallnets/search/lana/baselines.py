"""Searching without an integer programme: at random, and by evolution, within the same budgets."""

from collections.abc import Callable, Sequence

import numpy as np

from smallnets import checks
from smallnets.search.lana.programme import Programme

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
    """
    checks.whole("count", count, 1)
    checks.between("low", low, 0, 1)
    return [_drawn(programme, generator, low) for _ in range(count)]


def _drawn(programme: Programme, generator: np.random.Generator, low: float) -> Choices:
    places = [np.flatnonzero(row) for row in programme.allowed]
    key = next(iter(programme.budgets))
    choices = [int(generator.choice(place)) for place in places]
    fallback: Choices | None = None
    for _ in range(400):
        if not programme.within(choices):
            choices = _repaired(programme, choices, generator)
        if programme.cost(key, choices) >= low * programme.budgets[key]:
            return tuple(choices)
        fallback = tuple(choices)
        layer = int(generator.integers(programme.layers))
        row = programme.costs[key][layer]
        dearer = [j for j in places[layer] if row[j] > row[choices[layer]]]
        if dearer:
            choices[layer] = int(generator.choice(dearer))
    return fallback or tuple(choices)


def _repaired(
    programme: Programme, choices: Sequence[int], generator: np.random.Generator
) -> list[int]:
    """Choices within the budgets: random layers get cheaper ones."""
    fixed = list(choices)
    places = [np.flatnonzero(row) for row in programme.allowed]
    while not programme.within(fixed):
        key = max(programme.budgets, key=lambda k: programme.cost(k, fixed) / programme.budgets[k])
        options = [
            (layer, int(j))
            for layer, place in enumerate(places)
            for j in place
            if programme.costs[key][layer][j] < programme.costs[key][layer][fixed[layer]]
        ]
        layer, j = options[int(generator.integers(len(options)))]
        fixed[layer] = j
    return fixed


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
    """
    for name, value in (
        ("evaluations", evaluations), ("population", population), ("tournament", tournament),
    ):  # fmt: skip
        checks.whole(name, value, 1)
    history = random_search(programme, evaluate, min(population, evaluations), generator)
    places = [np.flatnonzero(row) for row in programme.allowed]
    while len(history) < evaluations:
        living = history[-population:]
        rivals = generator.choice(len(living), min(tournament, len(living)), replace=False)
        child = list(min((living[i] for i in rivals), key=lambda one: one[1])[0])
        layer = int(generator.integers(programme.layers))
        child[layer] = int(generator.choice(places[layer]))
        fitting = tuple(_repaired(programme, child, generator))
        history.append((fitting, evaluate(fitting)))
    return history


def best_so_far(history: History) -> np.ndarray:
    """The lowest value after every evaluation."""
    return np.minimum.accumulate([value for _, value in history])
