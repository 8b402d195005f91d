"""The integer programme against brute force, and what must be so."""

import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult

from smallnets.search.lana import (
    InfeasibleError,
    Programme,
    relax,
    solve,
    solve_all,
    solve_diverse,
    solve_dynamic,
    solve_greedy,
    solve_lagrangian,
)
from smallnets.search.lana.fronts import solve_fronts


def test_a_hundred_layers_of_197_are_solved_in_seconds_with_cuts():
    programme = of_fractions(100, 197, 0.5)
    began = time.process_time()
    found = solve_diverse(programme, 4, overlap=70)
    assert time.process_time() - began < 20
    assert [one.status for one in found] == ["optimal"] * 4
    assert all(one.costs["latency"] <= 50 * (1 + 1e-9) for one in found)
    assert relax(programme)[0] <= found[0].objective <= solve_lagrangian(programme).objective


lengths = st.lists(st.integers(1, 5), min_size=1, max_size=5)


@given(lengths, st.integers(0, 10**6), st.floats(0.05, 1.0))
def test_all_solvers_agree_with_trying_everything(lengths, seed, share):
    score, cost = drawn(lengths, seed)
    least = sum(row.min() for row in cost)
    budget = float(np.floor(least + share * (30 * len(lengths) - least))) or 1.0
    programme = Programme(score, {"latency": cost}, {"latency": budget})
    best = solve_all(programme)[0]
    exact, dynamic = solve(programme), solve_dynamic(programme)
    assert exact.objective == pytest.approx(best.objective, abs=1e-9)
    assert dynamic.objective == pytest.approx(best.objective, abs=1e-9)
    bound = relax(programme)[0]
    for other in (solve_lagrangian(programme), solve_greedy(programme), exact, dynamic):
        assert bound - 1e-8 <= best.objective <= other.objective + 1e-9
        assert other.costs["latency"] <= budget * (1 + 1e-9)
        assert programme.within(other.choices)


@given(lengths, st.integers(0, 10**6), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_two_budgets_agree_with_trying_everything(lengths, seed, first, second):
    score, cost = drawn(lengths, seed)
    _, other = drawn(lengths, seed + 1)
    costs, budgets = {"a": cost, "b": other}, {}
    for (key, rows), share in zip(costs.items(), (first, second), strict=True):
        low, high = (sum(f(row) for row in rows) for f in (np.min, np.max))
        budgets[key] = float(low + share * (high - low)) + 1e-3
    programme = Programme(score, costs, budgets)
    try:
        best = solve_all(programme)[0]
    except InfeasibleError:
        with pytest.raises(InfeasibleError, match=r"that of a must be at least [\d.e+]+; got"):
            solve(programme)
        return
    found = solve(programme)
    assert found.objective == pytest.approx(best.objective, abs=1e-9)
    assert all(found.costs[key] <= budgets[key] * (1 + 1e-9) for key in budgets)


def tied(layers, candidates, above=1e-8):
    """Latencies that are all but equal, and a budget that the best ones exceed by a rounding."""
    generator = np.random.default_rng(0)
    cost = 1 + above * generator.integers(1, 9, (layers, candidates))
    cost[:, -1] = 0.5
    score = np.zeros((layers, candidates))
    score[:, -1] = 1
    return Programme(score, {"t": cost}, {"t": float(layers)})


@pytest.mark.parametrize("layers", [3, 12, 45])
def test_ties_and_roundings_do_not_keep_the_solver_from_its_end(layers):
    programme = tied(layers, 20)
    found = solve(programme)
    assert found.objective == 1  # one layer must be the quick one
    assert found.status == "optimal"


def test_only_the_cheapest_is_within_where_all_others_exceed_by_a_rounding():
    cost = np.ones((30, 4)) + 2e-7 * np.arange(4)
    programme = Programme(-np.tile(np.arange(4.0), (30, 1)), {"t": cost}, {"t": 30.0})
    assert solve(programme, time_limit=60).choices == (0,) * 30


def test_the_time_limit_is_for_all_that_is_tried(monkeypatch):
    waits = []

    def slow(programme, cuts, options, *, integer):
        """A solver that takes half a second and proposes what exceeds the budget."""
        waits.append(options["time_limit"])
        time.sleep(0.5)
        x = np.concatenate([np.eye(len(row))[0] for row in programme.score])
        return OptimizeResult(x=x, status=0, mip_dual_bound=0.0), 0.0, 1.0

    programme = Programme([[0.0, 1.0]] * 3, {"t": [[2.0, 1.0]] * 3}, {"t": 4.0})
    monkeypatch.setattr(sys.modules["smallnets.search.lana.solve"], "_highs", slow)
    found = solve(programme, time_limit=1.2)
    assert programme.within(found.choices)
    assert len(waits) <= 3
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] < 1


@given(lengths, st.integers(0, 10**6), st.floats(0, 1), st.booleans())
def test_fronts_agree_with_trying_everything(lengths, seed, share, cut):
    score, cost = drawn(lengths, seed)
    budget = sum(row.min() for row in cost) + 20 * share + 1.0
    programme = Programme(score, {"t": cost}, {"t": budget})
    cuts = [(solve(programme).choices, len(lengths) - 1)] if cut else []
    try:
        best = solve_all(programme, exclude=[one for one, _ in cuts])[0]
    except InfeasibleError:
        with pytest.raises(InfeasibleError, match="no choice differs enough"):
            solve_fronts(programme, cuts)
        return
    found = solve_fronts(programme, cuts)
    assert found.objective == pytest.approx(best.objective, abs=1e-9)
    assert found.status == "optimal"
    assert found.bound == pytest.approx(best.objective, abs=1e-9)


def test_thinned_fronts_and_those_without_time_say_what_they_are():
    programme = of_fractions(12, 9, 0.5)
    thin = solve_fronts(programme, widest=3)
    assert programme.within(thin.choices)
    assert thin.status == "feasible"
    late = solve_fronts(programme, end=time.monotonic() - 1)
    assert programme.within(late.choices)
    assert late.status == "time limit"


@given(st.integers(0, 10**6), st.floats(1e-7, 1e7))
def test_units_and_constants_do_not_matter(seed, unit):
    score, cost = drawn([4, 3, 5, 4], seed)
    budget = sum(row.min() for row in cost) + 20.0
    one = solve(Programme(score, {"t": cost}, {"t": budget}))
    scaled = solve(Programme(score, {"t": [unit * row for row in cost]}, {"t": unit * budget}))
    assert scaled.objective == pytest.approx(one.objective, abs=1e-9)
    assert scaled.costs["t"] <= unit * budget * (1 + 1e-9)
    shifted = [score[0] + 7.5, *score[1:]]
    moved = solve(Programme(shifted, {"t": cost}, {"t": budget}))
    assert moved.objective == pytest.approx(one.objective + 7.5, abs=1e-9)


@given(st.integers(0, 10**6))
def test_more_budget_is_never_worse(seed):
    score, cost = drawn([4, 3, 5, 4], seed)
    least = sum(row.min() for row in cost)
    budgets = [max(least, 1e-6), 50.0 + least, 90.0 + least, 120.0 + least]
    values = [solve(Programme(score, {"t": cost}, {"t": b})).objective for b in budgets]
    assert np.diff(values).max() <= 1e-9
    cheapest = solve(Programme(score, {"t": cost}, {"t": budgets[0]}))
    assert cheapest.costs["t"] == pytest.approx(least, abs=1e-6)
    assert values[-1] <= 1e-9  # the teacher is feasible and has score 0


def test_overlap_of_all_but_one_enumerates_in_order(random_problem):
    score, cost = random_problem(np.random.default_rng(3), [3, 3, 3, 3])
    programme = Programme(score, {"t": cost}, {"t": 70.0})
    ranked = [one.objective for one in solve_all(programme)]
    found = solve_diverse(programme, 12, overlap=3)
    np.testing.assert_allclose([one.objective for one in found], ranked[:12], atol=1e-9)


def test_cuts_agree_with_trying_everything(random_problem):
    for seed in range(8):
        score, cost = random_problem(np.random.default_rng(seed), [3, 4, 2, 3, 4])
        programme = Programme(score, {"t": cost}, {"t": 80.0})
        earlier = [solve(programme).choices]
        for _ in range(3):
            try:
                best = solve_all(programme, exclude=earlier, overlap=2)[0]
            except InfeasibleError:
                with pytest.raises(InfeasibleError, match="raise the overlap"):
                    solve(programme, exclude=earlier, overlap=2)
                break
            found = solve(programme, exclude=earlier, overlap=2)
            assert found.objective == pytest.approx(best.objective, abs=1e-9)
            earlier.append(found.choices)


def test_full_overlap_repeats_the_solution(random_problem):
    score, cost = random_problem(np.random.default_rng(0), [3, 3, 3])
    programme = Programme(score, {"t": cost}, {"t": 60.0})
    first, second = solve_diverse(programme, 2, overlap=3)
    assert first.choices == second.choices


def test_cuts_that_run_out_leave_fewer_solutions():
    programme = Programme([[0.0, 1.0], [0.0, 1.0]], {"t": [[1, 1], [1, 1]]}, {"t": 2.0})
    assert len(solve_diverse(programme, 9, overlap=0)) == 2
    assert len(solve_diverse(programme, 9, overlap=1)) == 4
    with pytest.raises(InfeasibleError, match="differs enough from the 2 earlier ones"):
        solve(programme, exclude=[(0, 0), (1, 1)], overlap=0)


def test_forced_and_forbidden_candidates():
    score, cost = [[0.0, 1.0, 0.1]] * 3, [[3.0, 1.0, 2.0]] * 3
    free = Programme(score, {"t": cost}, {"t": 6.0})
    assert solve(free).objective == pytest.approx(0.3)
    bound = Programme(score, {"t": cost}, {"t": 6.0}, forced={1: 1}, forbidden=[(0, 2), (2, 2)])
    for solver in (solve, solve_dynamic, solve_greedy, solve_lagrangian):
        found = solver(bound)
        assert found.choices[1] == 1, solver
        assert 2 not in (found.choices[0], found.choices[2])
        assert bound.within(found.choices)
    assert bound.least("t") == 3.0
    assert {one.choices[1] for one in solve_all(bound)} == {1}


def test_skip_only_pools_are_a_matter_of_forbidding(pool):
    from smallnets.search.lana import restricted

    score = [np.arange(len(names)) * 1.0 for names in pool.names]
    cost = [np.linspace(5, 1, len(names)) for names in pool.names]
    only = Programme(score, {"t": cost}, {"t": 13.0}, forbidden=restricted(pool.names, ("skip",)))
    assert set(solve(only).choices) <= {0, 1}


def test_rounded_bins_keep_the_budget():
    programme = of_fractions(16, 12, 0.5)
    rough, fine = (solve_dynamic(programme, bins=bins).objective for bins in (60, 20000))
    best = solve(programme).objective
    assert best - 1e-9 <= fine <= rough
    assert fine == pytest.approx(best, abs=1e-2)


def test_a_looser_gap_and_a_time_limit_still_keep_the_budget():
    programme = of_fractions(100, 197, 0.5)
    rough = solve(programme, rel_gap=0.05, time_limit=20.0)
    assert programme.within(rough.choices)
    assert rough.objective >= solve(programme).objective - 1e-9
    with pytest.raises(InfeasibleError, match="within the time limit"):
        solve(programme, time_limit=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"score": [[0, np.nan], [0, 1]]},
            "score must be rows of finite numbers; got .*nan.* layer 0",
        ),
        ({"score": [[0, np.inf], [0, 1]]}, "score must be rows of finite numbers"),
        ({"score": [[0, 1]]}, r"t must have rows of the score's lengths \[2\]; got \[2, 2\]"),
        ({"score": [[0, 1], []]}, "every layer must have a candidate; layer 1 has none"),
        ({"score": []}, "every layer must have a candidate; there are no layers"),
        ({"costs": {"t": [[1, -2], [1, 1]]}}, "t must not be negative; got -2"),
        ({"costs": {"t": [[1, np.nan], [1, 1]]}}, "t must be rows of finite numbers"),
        ({"costs": {"u": [[1, 2], [1, 1]]}}, r"name the same kinds, .*; got \['u'\] and \['t'\]"),
        ({"budgets": {"t": 0.0}}, "budget of t must be greater than 0; got 0"),
        ({"budgets": {"t": -3.0}}, "budget of t must be greater than 0; got -3"),
        ({"forced": {5: 0}}, "must be in the pool; got 0 in layer 5"),
        ({"forced": {0: 7}}, "must be in the pool; got 7 in layer 0"),
        ({"forbidden": [(0, 0), (0, 1)]}, "candidate that is allowed; layer 0 has none"),
        ({"forbidden": [(1, 9)]}, "must be in the pool; got 9 in layer 1"),
    ],
)
def test_bad_programmes_are_refused_in_one_line(change, message):
    fine = {
        "score": [[0, 1], [0, 1]],
        "costs": {"t": [[3, 1], [3, 1]]},
        "budgets": {"t": 5.0},
    }
    with pytest.raises(ValueError, match=message) as error:
        Programme(**{**fine, **change})
    assert "\n" not in str(error.value)


def test_a_budget_that_is_too_small_says_what_is_possible():
    with pytest.raises(InfeasibleError, match=r"budget of t must be at least 2.5, .*; got 2$"):
        Programme([[0, 1], [0, 1]], {"t": [[3, 1.5], [3, 1]]}, {"t": 2.0})


def test_budgets_that_cannot_be_met_together_say_what_could():
    costs = {"t": [[1.0, 5.0], [1.0, 5.0]], "p": [[5.0, 1.0], [5.0, 1.0]]}
    programme = Programme([[0, 0], [0, 0]], costs, {"t": 3.0, "p": 3.0})
    with pytest.raises(
        InfeasibleError, match="with the others kept, that of t must be at least 10; got 3"
    ):
        solve(programme)
    third = {**costs, "q": [[5.0, 1.0], [5.0, 1.0]]}
    programme = Programme(
        [[0, 0], [0, 0]], {"q2": third["q"], **costs}, {"q2": 9.0, "t": 3.0, "p": 3.0}
    )
    with pytest.raises(InfeasibleError, match="the budgets of t, p cannot be met together"):
        solve(programme)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: solve(p, overlap=3), "overlap must be between 0 and 2; got 3"),
        (lambda p: solve(p, overlap=-1), "overlap must be at least 0; got -1"),
        (lambda p: solve(p, overlap=0.7), "overlap must be a whole number of at least 0; got 0.7"),
        (lambda p: solve(p, rel_gap=-1), "rel_gap must be at least 0; got -1"),
        (lambda p: solve(p, time_limit=0), "time_limit must be greater than 0; got 0"),
        (lambda p: solve_diverse(p, 0, overlap=1), "count must be at least 1; got 0"),
        (lambda p: solve_dynamic(p, bins=0), "bins must be at least 1; got 0"),
        (lambda p: solve_dynamic(p), "t must be whole numbers, or bins be given; got 1.5"),
        (lambda p: solve_lagrangian(p, steps=0), "steps must be at least 1; got 0"),
    ],
)
def test_bad_arguments_of_solvers_are_refused(call, message):
    programme = Programme([[0, 1], [0, 1]], {"t": [[3, 1.5], [3, 1]]}, {"t": 5.0})
    with pytest.raises(ValueError, match=message):
        call(programme)


def test_solvers_for_one_budget_say_so():
    programme = Programme([[0, 1]], {"t": [[3, 1]], "p": [[3, 1]]}, {"t": 5.0, "p": 5.0})
    for solver in (solve_dynamic, solve_lagrangian, solve_greedy):
        with pytest.raises(ValueError, match="takes one budget; got t, p"):
            solver(programme)


def test_too_much_to_try_or_to_tabulate_is_refused():
    wide = Programme(np.zeros((9, 9)), {"t": np.ones((9, 9))}, {"t": 9.0})
    with pytest.raises(ValueError, match="choices that can be tried must be at least"):
        solve_all(wide)
    dear = Programme([[0, 0]], {"t": [[1, 1e9 + 1]]}, {"t": 2e9})
    with pytest.raises(ValueError, match="bins that fit into memory"):
        solve_dynamic(dear)
    tight = Programme([[0], [0]], {"t": [[1.1], [1.1]]}, {"t": 2.2})
    with pytest.raises(InfeasibleError, match="rounded up to 3 bins no choice is left"):
        solve_dynamic(tight, bins=3)


def test_solving_prints_nothing_and_leaves_the_output_alone(capfd):
    print("before")
    for share in (0.2, 0.35, 0.5, 0.65, 0.8):
        solve(of_fractions(16, 12, share))
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"


def test_selections_are_checked():
    programme = Programme([[0, 1]], {"t": [[3, 1]]}, {"t": 2.0})
    with pytest.raises(InfeasibleError, match=r"choices \[0\] are not allowed or exceed a budget"):
        programme.selection((0,))
    with pytest.raises(InfeasibleError, match="no choice meets the budgets and cuts"):
        solve_all(programme, exclude=[(1,)], overlap=0)


def drawn(lengths, seed):
    """Scores and whole-number costs; the teacher's, first, are 0 and 30."""
    generator = np.random.default_rng(seed)
    score = [np.r_[0.0, generator.normal(0.3, 0.5, n - 1)] for n in lengths]
    cost = [np.r_[30.0, generator.integers(0, 30, n - 1)].astype(float) for n in lengths]
    return score, cost


def of_fractions(layers, candidates, share):
    """Scores that fall with costs that are no whole numbers; a share of the teacher's as budget."""
    generator = np.random.default_rng(0)
    cost = generator.uniform(0.05, 1.3, (layers, candidates))
    score = np.maximum(0, 1.2 - cost) * generator.uniform(0, 0.4, cost.shape)
    score += generator.normal(0, 0.01, score.shape)
    cost[:, 0], score[:, 0] = 1.0, 0.0
    return Programme(score, {"latency": cost}, {"latency": share * layers})
