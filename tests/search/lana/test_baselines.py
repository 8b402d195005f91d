import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallnets.search.lana import (
    InfeasibleError,
    Programme,
    best_so_far,
    evolve,
    random_choices,
    random_search,
    solve,
)


def problem(seed, share):
    generator = np.random.default_rng(seed)
    cost = generator.integers(1, 30, (5, 4)).astype(float)
    low, high = cost.min(axis=1).sum(), cost.max(axis=1).sum()
    budget = float(low + share * (high - low))
    return Programme(generator.normal(size=(5, 4)), {"t": cost}, {"t": budget})


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_random_networks_keep_the_budget(seed, share):
    programme = problem(seed, share)
    for choices in random_choices(programme, 5, np.random.default_rng(seed)):
        assert programme.within(choices)


def test_random_networks_use_the_budget_and_differ():
    programme = problem(0, 0.5)
    found = random_choices(programme, 50, np.random.default_rng(0))
    spent = [programme.cost("t", choices) / programme.budgets["t"] for choices in found]
    assert np.mean(np.array(spent) >= 0.8) > 0.9
    assert len(set(found)) > 20
    again = random_choices(programme, 50, np.random.default_rng(0))
    assert found == again


@given(st.integers(0, 10**6))
def test_evolution_keeps_the_budget_and_counts_its_evaluations(seed):
    programme = problem(seed, 0.4)
    calls = []
    history = evolve(
        programme,
        lambda choices: calls.append(choices) or programme.objective(choices),
        30,
        np.random.default_rng(seed),
        population=8,
    )
    assert len(history) == len(calls) == 30
    assert all(programme.within(choices) for choices, _ in history)
    assert solve(programme).objective <= best_so_far(history)[-1] + 1e-9


def test_evolution_finds_more_than_chance():
    better = []
    for seed in range(8):
        programme = problem(seed, 0.4)
        value = programme.objective
        evolved = evolve(programme, value, 60, np.random.default_rng(seed), population=8)
        drawn = random_search(programme, value, 60, np.random.default_rng(seed))
        better.append(best_so_far(drawn)[-1] - best_so_far(evolved)[-1])
    assert np.mean(better) > 0


def test_best_so_far_never_rises():
    history = [((0,), 3.0), ((1,), 5.0), ((2,), 1.0)]
    assert best_so_far(history).tolist() == [3.0, 3.0, 1.0]


def test_budgets_that_cannot_be_met_together_are_refused():
    costs = {"a": [[1.0, 9.0]] * 3, "b": [[9.0, 1.0]] * 3}
    programme = Programme([[0.0, 0.0]] * 3, costs, {"a": 10.0, "b": 10.0})
    generator = np.random.default_rng(0)
    message = "the budgets cannot be met together: with the others kept, that of a must be at least"
    with pytest.raises(InfeasibleError, match=message):
        random_choices(programme, 2, generator)
    with pytest.raises(InfeasibleError, match=message):
        evolve(programme, programme.objective, 4, generator)


def test_budgets_that_can_barely_be_met_together_are_met_soon():
    draw = np.random.default_rng(0)
    costs = {key: draw.uniform(0.1, 1, (40, 50)) for key in "ab"}
    meeting = (costs["a"] + costs["b"]).argmin(axis=1)
    budgets = {key: 1.001 * float(rows[range(40), meeting].sum()) for key, rows in costs.items()}
    programme = Programme(np.zeros((40, 50)), costs, budgets)
    began = time.process_time()
    found = random_choices(programme, 5, np.random.default_rng(1))
    history = evolve(programme, lambda c: float(sum(c)), 40, np.random.default_rng(1))
    assert time.process_time() - began < 20
    assert all(programme.within(choices) for choices in found)
    assert all(programme.within(choices) for choices, _ in history)


def test_a_budget_of_the_least_there_is_can_be_met():
    cost = [[0.1, 0.2], [0.3, 0.7], [0.6, 0.9]]
    programme = Programme([[0.0, 0.0]] * 3, {"t": cost}, {"t": 1.0 * (1 - 9e-10)})
    assert random_choices(programme, 3, np.random.default_rng(0)) == [(0, 0, 0)] * 3


def test_bad_numbers_are_refused():
    programme = problem(0, 0.5)
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="count must be at least 1; got 0"):
        random_choices(programme, 0, generator)
    with pytest.raises(ValueError, match="low must be between 0 and 1; got 2"):
        random_choices(programme, 1, generator, low=2)
    with pytest.raises(ValueError, match="population must be at least 1; got 0"):
        evolve(programme, programme.objective, 5, generator, population=0)
