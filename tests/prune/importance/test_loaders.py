"""Scores and masks from batches of one's own."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets.batches import Batches
from smallnets.prune import importance as ie
from smallnets.training import seeded

Y = torch.arange(36) % 3
X = torch.randn(36, 2, 12, generator=torch.Generator().manual_seed(0))
NAMES = ("oracle", "Taylor SO", "Taylor FO", "Taylor FG", "OBD", "Taylor output", "Taylor weights",
         "weights as a group", "Taylor scale", "magnitude")  # fmt: skip


@pytest.fixture
def network():
    with seeded(0):
        return nn.Sequential(
            nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 5, 3), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(5, 3),
        ).eval()  # fmt: skip


@pytest.fixture
def groups(network):
    return ie.channel_groups(network, X[:2])


def close(found, expected):
    for name, scores in expected.items():
        for group, score in scores.items():
            torch.testing.assert_close(found[name][group], score, rtol=1e-4, atol=1e-7)


def test_all_scores_come_from_one_pass_whatever_the_order(network, groups):
    """Criteria that are combined or compared see the same batches, also of a loader that shuffles
    and of an iterator that can be read once.
    """
    pairs = [(X[:16], Y[:16]), (X[16:32], Y[16:32]), (X[32:], Y[32:])]
    expected = ie.scores(network, groups, pairs, NAMES)
    close(ie.scores(network, groups, iter(pairs), NAMES), expected)
    made = []

    def once():
        made.append(1)
        return iter(pairs)

    close(ie.scores(network, groups, once, NAMES), expected)
    assert len(made) == 1
    shuffled = DataLoader(TensorDataset(X[:32], Y[:32]), 1, shuffle=True)
    in_order = DataLoader(TensorDataset(X[:32], Y[:32]), 1)
    close(
        ie.scores(network, groups, shuffled, ("oracle", "Taylor SO")),
        ie.scores(network, groups, in_order, ("oracle", "Taylor SO")),
    )


def test_scores_by_labels_refuse_batches_without(network, groups):
    with pytest.raises(ValueError, match="must have labels here; got labelled=False"):
        ie.scores(network, groups, Batches([(X, Y)], labelled=False), ("Taylor FO",))


def test_one_batch_is_in_memory_at_a_time(network, groups):
    made, opened = [], ie.open_gates(network, ie.group_sites(groups), X)

    def source():
        for number in range(3):
            made.append(number)
            yield X[:4], Y[:4]

    def loss(logits, labels):
        assert made == list(range(len(made)))
        seen.append(len(made))
        return nn.functional.cross_entropy(logits, labels)

    seen = []
    ie.gate_gradients(network, ie.group_sites(groups), source, loss, opened=opened)
    assert seen == [1, 2, 3]


def test_labels_are_the_business_of_the_loss(network, groups):
    wishes = [(X, torch.rand(36, 3))]
    found = ie.scores(network, groups, wishes, loss=nn.functional.mse_loss)["Taylor FO"]
    assert all(bool((score >= 0).all()) for score in found.values())


def test_rounds_need_batches_that_start_anew(network, groups):
    costs = ie.costs(network, groups, X[:2])
    loader = DataLoader(TensorDataset(X, Y), 16, shuffle=True)
    masks = ie.iterative_masks(network, groups, loader, costs, 0.7, rounds=2)
    assert costs.macs(ie.kept_units(masks)) <= 0.7 * costs.macs()
    with pytest.raises(ValueError, match=r"start anew in each of 2 rounds; got .*Iter"):
        ie.iterative_masks(network, groups, iter(loader), costs, 0.7, rounds=2)


def test_weights_need_no_data(network, groups):
    def never():
        raise AssertionError("read")

    assert ie.scores(network, groups, never, ("magnitude",))
