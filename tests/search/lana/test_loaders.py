"""Layer-wise search with batches of one's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets.batches import Batches
from smallnets.search import lana
from smallnets.training import TrainSettings, seeded

PLAIN = TrainSettings(epochs=2, lr=0.02, device="cpu", precision="32-true")
Y = torch.arange(40) % 3
X = torch.randn(40, 2, 16, generator=torch.Generator().manual_seed(0)) + Y.view(-1, 1, 1)
LOADER = DataLoader(TensorDataset(X, Y), 16)


@pytest.fixture
def layered():
    with seeded(0):
        network = nn.Sequential(
            nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 6, 1),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3),
        )  # fmt: skip
    return lana.ReplaceableLayers(network, ("3",), X[:2])


@pytest.fixture
def pool():
    with seeded(1):
        return lana.Pool([{"narrow": nn.Conv1d(6, 6, 1, groups=6)}])


def test_candidates_learn_from_a_loader_without_labels_and_the_teacher_stays(layered, pool):
    layered.network.train()
    losses = [lana.distil_candidates(layered, pool, DataLoader(X, 16), PLAIN, seed=0)[0][1]]
    losses.append(lana.distil_candidates(layered, pool, LOADER, PLAIN, seed=0)[0][1])
    assert losses[1] < losses[0]
    assert all(module.training for module in layered.network.modules())


@pytest.mark.parametrize("recalibrate", [False, True])
def test_scores_of_a_loader_are_those_of_its_inputs(layered, pool, recalibrate):
    whole = DataLoader(TensorDataset(X, Y), 40)
    found = lana.score_pool(layered, pool, whole, recalibrate=recalibrate)
    parts = lana.score_pool(layered, pool, LOADER)
    expected = lana.score_pool(layered, pool, X, Y, recalibrate=recalibrate)
    for kind, table in expected.items():
        np.testing.assert_allclose(found[kind][0], table[0], rtol=1e-5, atol=1e-7)
        if not recalibrate:
            np.testing.assert_allclose(parts[kind][0], table[0], rtol=1e-5, atol=1e-7)


def test_a_student_is_tuned_and_judged_on_a_loader(layered, pool):
    student = pool.stitched(layered, (1,))
    layered.network.train()
    before = lana.evaluate_network(student, LOADER)
    assert before == pytest.approx(lana.evaluate_network(student, X, Y), rel=1e-5)
    longer = replace(PLAIN, epochs=10)
    lana.fine_tune(student, layered.network, LOADER, longer, seed=0, alpha=0.0)
    assert lana.evaluate_network(student, LOADER)["loss"] < before["loss"]
    assert layered.network.training
    again = lana.evaluate_network(student, [(X, Y)], recalibrate=True)
    assert again == pytest.approx(lana.evaluate_network(student, X, Y, recalibrate=True), rel=1e-5)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def test_what_does_not_go_together_is_refused(layered, pool):
    student = pool.stitched(layered, (1,))
    for call in (
        lambda: lana.evaluate_network(student, X),
        lambda: lana.evaluate_network(student, LOADER, Y),
        lambda: lana.score_pool(layered, pool, X),
    ):
        with pytest.raises(ValueError, match=r"two tensors, or batches .* alone; got"):
            call()
    unlabelled = Batches(LOADER, labelled=False)
    for call in (
        lambda: lana.evaluate_network(student, unlabelled),
        lambda: lana.score_pool(layered, pool, unlabelled),
        lambda: lana.fine_tune(student, layered.network, unlabelled, PLAIN, seed=0),
    ):
        with pytest.raises(ValueError, match="must have labels here; got labelled=False"):
            call()
    for how in ({}, {"recalibrate": True}):
        with pytest.raises(ValueError, match="must return one tensor; got tuple"):
            lana.evaluate_network(Pair(), LOADER, **how)
    with pytest.raises(ValueError, match="must not share parameters"):
        lana.fine_tune(layered.network, layered.network, LOADER, PLAIN, seed=0)
    other = nn.Sequential(nn.Flatten(), nn.Linear(32, 4))
    with pytest.raises(ValueError, match="student has 4 classes"):
        lana.fine_tune(other, layered.network, LOADER, PLAIN, seed=0)
    with pytest.raises(ValueError, match="teacher does not take images"):
        lana.distil_candidates(layered, pool, [(X[:, :1], Y)], PLAIN, seed=0)
