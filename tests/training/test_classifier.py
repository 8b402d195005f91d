"""Classifiers by name."""

from dataclasses import replace

import pytest
import torch

from smallnets.data import load
from smallnets.training.classifier import classifier


def test_names_fit_the_images_and_the_seed() -> None:
    digits = load("digits", train=64)
    network = classifier("resnet-8-4", digits, 3).eval()
    assert network(digits.normalise(digits.x_train[:2])).shape == (2, digits.num_classes)
    same = classifier("resnet-8-4", digits, 3).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in network.state_dict().items())
    assert not torch.equal(
        next(network.parameters()), next(classifier("resnet-8-4", digits, 4).parameters())
    )


def test_torchvision_networks_by_name() -> None:
    glyphs = load("glyphs10", train=64)
    network = classifier("squeezenet1_1", glyphs, 0).eval()
    assert network(glyphs.normalise(glyphs.x_train[:2])).shape == (2, 10)


def test_other_names_are_refused() -> None:
    glyphs = load("glyphs10", train=64)
    grey = replace(glyphs, x_train=glyphs.x_train[:, :1], x_test=glyphs.x_test[:, :1])
    for data, name, message in (
        (glyphs, "lenet", "network must be resnet-DEPTH-WIDTH or a torchvision .* got 'lenet'"),
        (grey, "resnet18", "resnet18 takes images of 3 channels; glyphs10 has 1"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            classifier(name, data, 0)
        assert "\n" not in str(error.value)
