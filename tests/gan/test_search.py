"""Searches under a budget."""

import pytest

from smallnets import gan
from smallnets.gan.networks import ConfigSpace

SPACE = ConfigSpace(((4, 3, 2, 1),) * 4)
LARGE = gan.Evolution(population=60, generations=12, mutation=0.4)
SMALL = gan.Evolution(population=12, generations=15, mutation=0.3)


def cost(config):
    return sum((i + 1) * width for i, width in enumerate(config))


def score(config):
    return sum((width - 2.4) ** 2 * (i + 1) for i, width in enumerate(config))


class Asked:
    """A score that counts how often it is asked."""

    def __init__(self):
        self.times = {}

    def __call__(self, config):
        self.times[config] = self.times.get(config, 0) + 1
        return score(config)


def searches(budget, asked, seed=0):
    return {
        "brute": gan.brute_force(SPACE, asked, cost, budget, seed=seed),
        "random": gan.random_search(SPACE, asked, cost, budget, evaluations=30, seed=seed),
        "evolution": gan.evolution(SPACE, asked, cost, budget, SMALL, seed=seed),
    }


def test_all_stay_within_the_budget_and_never_get_worse():
    for name, found in searches(17, score).items():
        assert all(value <= 17 for value in found.costs.values()), name
        assert found.history == sorted(found.history, reverse=True), name
        assert found.score == min(found.scores.values()) == found.history[-1], name
        assert found.cost == cost(found.best)
        assert set(found.costs) == set(found.scores)


def test_evolution_finds_what_brute_force_finds_in_a_small_space():
    found = searches(17, score)
    evolved = gan.evolution(SPACE, score, cost, 17, LARGE)
    assert evolved.score == found["brute"].score
    fits = [config for config in SPACE if cost(config) <= 17]
    assert sorted(found["brute"].scores) == sorted(fits)
    assert len(found["random"].scores) == 30


def test_the_same_seed_gives_the_same_search_and_another_seed_another():
    once, again, other = (searches(20, score, seed) for seed in (1, 1, 2))
    assert once == again
    assert any(list(once[k].scores) != list(other[k].scores) for k in once)


def test_nothing_is_asked_twice():
    for name in ("brute", "random", "evolution"):
        asked = Asked()
        {
            "brute": lambda a: gan.brute_force(SPACE, a, cost, 25),
            "random": lambda a: gan.random_search(SPACE, a, cost, 25, evaluations=40),
            "evolution": lambda a: gan.evolution(SPACE, a, cost, 25, SMALL),
        }[name](asked)
        assert set(asked.times.values()) == {1}, name


def test_more_can_be_better():
    found = gan.evolution(SPACE, lambda c: -score(c), cost, 17, LARGE, maximise=True)
    assert -found.score == gan.brute_force(SPACE, score, cost, 17).score
    assert found.history == sorted(found.history)


def test_a_budget_that_only_the_smallest_fits_ends_all_the_same():
    for found in searches(cost(SPACE.smallest()), score).values():
        assert found.best == SPACE.smallest()


def test_a_budget_below_the_smallest_is_refused_before_anything_is_asked():
    asked = Asked()
    for search in (
        gan.brute_force,
        gan.evolution,
        lambda *a: gan.random_search(*a, evaluations=3),
    ):
        with pytest.raises(ValueError, match=r"^budget must be at least 10, .*; got 9$"):
            search(SPACE, asked, cost, 9)
    assert not asked.times


def test_a_first_generation_can_be_biased_to_small_widths():
    bias = SPACE.probabilities("geometric", 50)
    found = gan.evolution(
        SPACE, score, cost, 100, gan.Evolution(population=20, generations=1), probabilities=bias
    )
    widths = [w for config in list(found.scores)[:5] for w in config]
    assert sum(widths) / len(widths) < 2


def test_brute_force_stops_when_told_and_refuses_a_huge_space():
    assert len(gan.brute_force(SPACE, score, cost, 40, most=7).scores) == 7
    huge = ConfigSpace(((9, 8, 7, 6, 5, 4, 3, 2, 1),) * 8)
    with pytest.raises(ValueError, match=r"^brute force needs a space of at most"):
        gan.brute_force(huge, score, cost, 1000)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match=r"^every score must be finite; got nan for \(.*\)$"):
        gan.evolution(SPACE, lambda config: float("nan"), cost, 40, SMALL)


@pytest.mark.parametrize(
    "fields",
    [{"population": 1}, {"generations": 0}, {"parents": 0.0}, {"mutation": 1.5}, {"mutants": -1}],
)
def test_bad_settings_are_refused(fields):
    with pytest.raises(ValueError, match=rf"^{next(iter(fields))} must be"):
        gan.Evolution(**fields)


def test_kept_scores_are_not_asked_again(tmp_path):
    file = tmp_path / "scores.json"
    asked = Asked()
    once = gan.evolution(SPACE, gan.KeptScores(asked, file), cost, 20, SMALL)
    count = len(asked.times)
    again = gan.evolution(SPACE, gan.KeptScores(asked, file), cost, 20, SMALL)
    assert once == again
    assert set(asked.times.values()) == {1}
    assert len(asked.times) == count
    file.write_text("{damaged", encoding="utf-8")
    assert gan.evolution(SPACE, gan.KeptScores(asked, file), cost, 20, SMALL) == once
