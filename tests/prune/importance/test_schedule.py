import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.prune.importance.schedule import Ranking, Schedule, select


def ones(scores):
    return {name: torch.ones_like(score) for name, score in scores.items()}


def test_the_whole_network_is_ranked_together():
    scores = {"a": torch.tensor([1.0, 9.0, 8.0]), "b": torch.tensor([2.0, 3.0, 7.0])}
    masks, threshold = select(scores, ones(scores), 2)
    assert (masks["a"].tolist(), masks["b"].tolist()) == ([0, 1, 1], [0, 1, 1])
    assert threshold == 2


def test_every_layer_keeps_its_best():
    scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([8.0, 9.0, 7.0])}
    masks, _ = select(scores, ones(scores), 2)
    assert (masks["a"].tolist(), masks["b"].tolist()) == ([0, 1], [1, 1, 0])
    masks, _ = select(scores, ones(scores), 2, least=0)
    assert masks["a"].tolist() == [0, 0]
    masks, _ = select(scores, ones(scores), 1, least=0.5)
    assert (masks["a"].tolist(), masks["b"].tolist()) == ([0, 1], [1, 1, 1])


def test_ties_go_together():
    scores = {"a": torch.tensor([0.0, 0.0, 0.0, 5.0])}
    assert select(scores, ones(scores), 1)[0]["a"].tolist() == [0, 0, 0, 1]


def test_nothing_to_remove_removes_nothing():
    scores = {"a": torch.tensor([0.0, 1.0])}
    assert select(scores, ones(scores), 0)[0]["a"].tolist() == [1, 1]


@given(
    st.integers(0, 99),
    st.integers(1, 2),
    st.integers(1, 3),
    st.floats(0, 0.95),
)
def test_what_is_gone_stays_gone_and_no_more_goes_than_asked(seed, every, remove, momentum):
    noise = torch.Generator().manual_seed(seed)
    schedule = Schedule(every, remove, 2, momentum=momentum)
    ranking, gone = Ranking({"a": 4, "b": 2}, schedule), 0
    for _ in range(2 * every + 1):
        flat = torch.rand(6, generator=noise, dtype=torch.float64)
        before = ranking.mask.clone()
        ranking.observe({"a": flat[:4], "b": flat[4:]})
        assert (ranking.mask <= before).all()
        assert ranking.gone - gone <= remove
        gone = ranking.gone
    assert ranking.done
    assert ranking.gone == min(2 * remove, 4)
    assert all(mask.sum() >= 1 for mask in ranking.masks.values())


def test_without_momentum_the_average_is_the_current_mean():
    ranking = Ranking({"a": 3}, Schedule(1, 1, 3, momentum=0.0))
    for step in range(3):
        ranking.observe({"a": torch.tensor([1.0, 2.0, 3.0]) * (step + 1)})
    assert ranking.average.tolist() == [3, 6, 9]


def test_a_high_loss_stops_the_pruning_for_good():
    ranking = Ranking({"a": 4}, Schedule(1, 1, 3, most_loss=1.0))
    scores = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    ranking.observe(scores, 0.5)
    assert ranking.observe(scores, 0.5)
    assert not ranking.observe(scores, 5.0)
    assert not ranking.observe(scores, 0.0)
    assert ranking.gone == 1
    assert ranking.done


def test_enough_is_asked_after_every_pruning():
    ranking = Ranking({"a": 4}, Schedule(1, 1, 3), lambda masks: masks["a"].sum() <= 3)
    for _ in range(5):
        ranking.observe({"a": torch.tensor([1.0, 2.0, 3.0, 4.0])})
    assert ranking.gone == 1


def test_the_state_goes_through_a_checkpoint():
    first, second = (Ranking({"a": 5}, Schedule(2, 1, 3)) for _ in range(2))
    steps = [torch.rand(5, generator=torch.Generator().manual_seed(i)) for i in range(7)]
    for score in steps[:4]:
        first.observe({"a": score})
    second.load_state_dict(first.state_dict())
    for score in steps[4:]:
        first.observe({"a": score})
        second.observe({"a": score})
    assert torch.equal(first.mask, second.mask)
    assert torch.equal(first.average, second.average)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, "momentum must be below 1; got 1.0"),
        ({"momentum": -0.1}, "momentum must be at least 0; got -0.1"),
        ({"group_size": 0}, "group_size must be at least 1; got 0"),
        ({"every": 0}, "every must be at least 1; got 0"),
        ({"remove": 1.5}, "remove must be a whole number of at least 1; got 1.5"),
        ({"prunings": 0}, "prunings must be at least 1"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"least": -1}, "least must be at least 0"),
        ({"most_loss": 0}, "most_loss must be greater than 0"),
    ],
)
def test_bad_schedules_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**settings)


@pytest.mark.parametrize(
    ("scores", "masks", "gone", "settings", "message"),
    [
        ([1.0, 2.0], [1.0], 1, {}, r"mask of 'a' must have shape \(2,\); got \(1,\)"),
        ([1.0, math.nan], [1.0, 1.0], 1, {}, "scores of 'a' must be finite; got nan"),
        ([1.0, 2.0], [1.0, 1.0], 2, {}, "at most 1 units can go with 1 left .*; got 2"),
        ([1.0, 2.0], [1.0, 1.0], 1, {"group_size": 0}, "group_size must be at least 1"),
    ],
)
def test_bad_selections_are_refused(scores, masks, gone, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        select({"a": torch.tensor(scores)}, {"a": torch.tensor(masks)}, gone, **settings)
    assert "\n" not in str(error.value)


def test_missing_layers_and_bad_scores_are_refused():
    ranking = Ranking({"a": 2}, Schedule())
    with pytest.raises(ValueError, match="layer with scores must be one of b; got 'a'"):
        ranking.observe({"b": torch.ones(2)})
    with pytest.raises(ValueError, match="scores must be finite; got inf"):
        ranking.observe({"a": torch.tensor([1.0, math.inf])})
