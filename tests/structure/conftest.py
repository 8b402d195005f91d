"""One small network with every kind of convolution, and images for it."""

import copy

import pytest
import torch
from torch import nn


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=2),
        nn.ReLU(),
        nn.Conv2d(16, 12, (3, 5), padding=(1, 2), padding_mode="circular"),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 30),
        nn.ReLU(),
        nn.Linear(30, 5),
    ).eval()


@pytest.fixture
def network():
    return make_network()


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def convolutions():
    """Strides, paddings, dilations, groups, and more channels on either side."""
    torch.manual_seed(0)
    wide = {"dtype": torch.float64}
    return [
        nn.Conv2d(4, 6, 3, padding="same", **wide),
        nn.Conv2d(6, 4, 3, stride=(2, 1), padding=1, bias=False, **wide),
        nn.Conv2d(4, 8, (1, 3), dilation=2, groups=2, **wide),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect", **wide),
    ]


@pytest.fixture
def untouched():
    """A check that a network is what it was when the check was made."""

    def check(network):
        before = copy.deepcopy(network.state_dict())
        modules = list(network.modules())
        modes = [one.training for one in modules]

        def is_still():
            after = network.state_dict()
            assert all(torch.equal(after[name], value) for name, value in before.items())
            assert [one.training for one in network.modules()] == modes
            assert all(a is b for a, b in zip(network.modules(), modules, strict=True))

        return is_still

    return check
