import numpy as np
import pytest
import torch
from torch import nn

from smallnets.search.lana import (
    Pool,
    ReplaceableLayers,
    predicted_loss,
    rank_agreement,
    score_pool,
)
from smallnets.search.lana.tuning import evaluate_network
from smallnets.training import seeded


def test_one_replacement_is_predicted_exactly(layered, pool, digits):
    x, y = digits.normalise(digits.x_train[:40]), digits.y_train[:40]
    score = score_pool(layered, pool, x, y, batch_size=16)["loss"]
    base = evaluate_network(layered.network, x, y)["loss"]
    for layer, choice in pool.pairs:
        choices = [0, 0, 0]
        choices[layer] = choice
        measured = evaluate_network(pool.stitched(layered, choices), x, y)["loss"]
        assert predicted_loss(base, score, choices) == pytest.approx(measured, abs=1e-5)


def test_replaying_the_prefix_changes_nothing_and_saves_its_work(layered, pool, digits):
    """Only the layers behind a candidate run again."""
    x, y = digits.normalise(digits.x_train[:8]), digits.y_train[:8]
    runs = [0, 0, 0]

    def count(layer):
        return lambda *_: runs.__setitem__(layer, runs[layer] + 1)

    for layer, module in enumerate(layered.layers):
        module.register_forward_hook(count(layer))
    score_pool(layered, pool, x, y)
    candidates = [len(names) - 1 for names in pool.names]
    assert runs == [1, 1 + candidates[0], 1 + candidates[0] + candidates[1]]


def test_recalibrated_scores_are_those_of_recalibrated_networks(layered, pool, digits, snapshot):
    x, y = digits.normalise(digits.x_train[:40]), digits.y_train[:40]
    before = snapshot(layered.network) | snapshot(pool)
    score = score_pool(layered, pool, x, y, batch_size=7, recalibrate=True)["loss"]
    base = evaluate_network(layered.network, x, y, recalibrate=True)["loss"]
    for layer, choice in pool.pairs:
        choices = [0, 0, 0]
        choices[layer] = choice
        measured = evaluate_network(pool.stitched(layered, choices), x, y, recalibrate=True)["loss"]
        assert predicted_loss(base, score, choices) == pytest.approx(measured, abs=1e-5)
    after = layered.network.state_dict() | pool.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_scoring_leaves_everything_as_it_was(layered, pool, digits, snapshot):
    x, y = digits.normalise(digits.x_train[:8]), digits.y_train[:8]
    pool.train()
    before = snapshot(layered.network) | snapshot(pool)
    score_pool(layered, pool, x, y)
    after = layered.network.state_dict() | pool.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert pool.training
    assert not layered.network.training


def test_scores_are_not_clipped():
    with seeded(0):
        network, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 5)).eval(), torch.randn(40, 8)
    nn.init.normal_(network[0].weight, std=9.0)  # sure of itself
    layered, pool = ReplaceableLayers(network, ("0",), x[:2]), Pool([{"identity": nn.Identity()}])
    wrong = (network(x).argmax(dim=1) + 1) % 5  # labels that the teacher always misses
    table = score_pool(layered, pool, x, wrong)
    assert min(row.min() for row in table["loss"]) < 0
    assert min(row.min() for row in table["accuracy"]) < 0


def test_bad_scoring_sets_are_refused(layered, pool):
    x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match="at least one; got 0 and 0"):
        score_pool(layered, pool, x[:0], y[:0])
    with pytest.raises(ValueError, match="equally many and at least one; got 4 and 3"):
        score_pool(layered, pool, x, y[:3])
    with pytest.raises(ValueError, match="labels must be between 0 and 9; got 0 to 10"):
        score_pool(layered, pool, x, torch.tensor([0, 1, 2, 10]))
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        score_pool(layered, pool, x, y, batch_size=0)


def test_a_candidate_that_says_not_a_number_is_refused():
    with seeded(0):
        network, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 5)).eval(), torch.randn(6, 8)
        broken = nn.Linear(8, 8)
    nn.init.constant_(broken.bias, torch.nan)
    layered, pool = ReplaceableLayers(network, ("0",), x[:2]), Pool([{"broken": broken}])
    with pytest.raises(ValueError, match="logits of the teacher and of every candidate must be f"):
        score_pool(layered, pool, x, torch.zeros(6, dtype=torch.long))


def test_bad_predictions_are_refused():
    with pytest.raises(ValueError, match="one for each of 2 layers; got 1"):
        predicted_loss(1.0, [np.zeros(2), np.zeros(2)], [0])
    with pytest.raises(ValueError, match="at least two; got 1 and 1"):
        rank_agreement([1.0], [1.0])
