"""Small networks and data for the layered room."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from smallnets.data import Dataset
from smallnets.models import cifar_resnet
from smallnets.training import TrainSettings, seeded


@pytest.fixture
def net() -> nn.Module:
    with seeded(1):
        return cifar_resnet(8, 4, 3, width=4)


@pytest.fixture
def plain() -> nn.Module:
    with seeded(2):
        return nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(3, 5, 3, padding=1),
                norm=nn.BatchNorm2d(5),
                act=nn.ReLU(),
                middle=nn.Conv2d(5, 7, 3, padding=1, bias=True),
                norm2=nn.BatchNorm2d(7),
                act2=nn.ReLU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                hidden=nn.Linear(7, 6),
                act3=nn.ReLU(),
                head=nn.Linear(6, 4),
            )
        )


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="session")
def data() -> Dataset:
    draw = np.random.default_rng(0)
    y = np.arange(96) % 4
    x = draw.integers(0, 80, (96, 3, 8, 8))
    for i, label in enumerate(y):
        x[i, :, 2 * label : 2 * label + 2] += 120
    x, y = torch.from_numpy(x.astype(np.uint8)), torch.from_numpy(y.astype(np.int64))
    return Dataset("bars", x[:64], y[:64], x[64:], y[64:], ("a", "b", "c", "d"), False)


@pytest.fixture
def quick() -> TrainSettings:
    return TrainSettings(
        epochs=1, batch_size=16, lr=0.02, weight_decay=2e-4, device="cpu", precision="32-true"
    )
