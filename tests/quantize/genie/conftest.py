"""A small network and pictures for it."""

import pytest
import torch
from torch import nn

from smallnets.models import cifar_resnet
from smallnets.training import seeded


def small_resnet(width: int = 4, seed: int = 0) -> nn.Module:
    """A ResNet-8 whose norms have seen data."""
    with seeded(seed):
        network = cifar_resnet(8, 5, width=width)
        network.train()
        with torch.no_grad():
            for _ in range(3):
                network(torch.randn(32, 3, 16, 16))
    return network.eval()


@pytest.fixture
def resnet():
    return small_resnet()


@pytest.fixture
def pictures():
    return torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(3))
