"""Classifiers by name."""

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


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        ("digits", "lenet", "network must be resnet-DEPTH-WIDTH or a torchvision .* got 'lenet'"),
        ("digits", "resnet18", "resnet18 takes images of 3 channels; got 1"),
    ],
)
def test_other_names_are_refused(data: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        classifier(name, load(data, train=64), 0)
    assert "\n" not in str(error.value)
