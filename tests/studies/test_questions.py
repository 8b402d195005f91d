"""A watched training is the training, and what it logs is what it says."""

import pytest
import torch
from torch import nn

from smallnets.data import load
from smallnets.studies.networks import build_network
from smallnets.studies.questions import Questioned, Questions, thinned
from smallnets.training import Batch, Classification, TrainSettings, fit

BRIEF = TrainSettings(epochs=2, batch_size=32, device="cpu", precision="32-true")


def test_a_watched_training_is_the_same_training():
    digits = load("digits").take(160, 80)
    parts = {"test": Questions(digits.normalise(digits.x_test), digits.y_test)}
    plain, watched = (build_network("convnet-4", digits, 0) for _ in range(2))
    before = fit(plain, digits, BRIEF, seed=0)
    log = fit(watched, digits, BRIEF, seed=0, objective=Questioned(Classification(), parts))
    assert [epoch["loss"] for epoch in log] == [epoch["loss"] for epoch in before]
    for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b)


class Saying(nn.Module):
    """Says the first pixel, counted up by one in training."""

    def forward(self, images):
        return nn.functional.one_hot(images[:, 0, 0, 0].long() + self.training, 5).float()


def test_a_network_is_asked_in_evaluation_mode_about_images_of_the_batchs_number():
    images = torch.arange(4.0).view(4, 1, 1, 1)
    right = Questions(images, torch.arange(4))
    one_wrong = Questions(images, torch.tensor([0, 1, 2, 0]))
    watched = Questioned(lambda *_: {"loss": torch.zeros(())}, {"a": right, "b": one_wrong})
    network = Saying().train()
    batch = Batch(torch.zeros(4, 1, 1, 1), torch.zeros(4), torch.tensor([7, 4, 1, 2]))
    found = watched(network, batch)  # 7 and 4 are asked about as 3 and 0
    assert (found["a"], found["b"]) == (1, 0.75)
    assert network.training
    unnumbered = watched(network, batch._replace(which=None, images=torch.full((4, 1, 1, 1), 0.5)))
    assert (unnumbered["a"], unnumbered["b"]) == (1, 0.75)  # eight in a row, from 2000


def test_logs_are_thinned_to_means_of_equal_parts():
    history = [{"a": float(epoch)} for epoch in range(6)]
    assert thinned(history, "a", 3) == pytest.approx([0.5, 2.5, 4.5])
    assert thinned(history, "a", 12) == pytest.approx(range(6))
