"""Classifiers by name."""

import pytest
import torch

from smallnets.training.classifier import classifier


def test_names_fit_the_images_and_the_seed() -> None:
    network = classifier("resnet-8-4", 7, 1, 3).eval()
    assert network(torch.randn(2, 1, 16, 16)).shape == (2, 7)
    same = classifier("resnet-8-4", 7, 1, 3).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in network.state_dict().items())
    other = classifier("resnet-8-4", 7, 1, 4)
    assert not torch.equal(next(network.parameters()), next(other.parameters()))


def test_torchvision_networks_by_name() -> None:
    network = classifier("squeezenet1_1", 10, 3, 0).eval()
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "channels", "message"),
    [
        ("lenet", 3, "network must be resnet-DEPTH-WIDTH or a torchvision .* got 'lenet'"),
        ("resnet18", 1, "resnet18 takes images of 3 channels; got 1"),
    ],
)
def test_other_names_are_refused(name: str, channels: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        classifier(name, 10, channels, 0)
    assert "\n" not in str(error.value)
