"""A small network, loaders that are not ours, and plans of a second or two."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets.remedies import Plan
from smallnets.training import TrainSettings, seeded


class Small(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.one = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.BatchNorm2d(width)
        self.last = nn.Linear(width, 4)

    def forward(self, x):
        x = self.norm(self.one(x)).relu()
        return self.last(self.second(self.two(x)).relu().mean((2, 3)))


def images(count, size=8, seed=0):
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    inputs = torch.randn(count, 3, size, size, generator=draws)
    inputs[:, :, 0, 0] += 3 * labels[:, None]
    return TensorDataset(inputs + 0.4 * labels[:, None, None, None], labels)


@pytest.fixture
def small():
    with seeded(0):
        return Small()


@pytest.fixture
def test():
    return DataLoader(images(48), 16)


@pytest.fixture
def train():
    return DataLoader(images(64, seed=1), 16, shuffle=True)


@pytest.fixture
def plan():
    """plan(...) -> nothing but what is named."""

    def make(**fields):
        none = {
            "int8": False, "int8_weights": False, "sparse": (), "channels": (), "low_rank": (),
            "books": (), "bits": (), "calibration": 32,
            "training": TrainSettings(epochs=1, lr=0.05, precision="32-true"),
        }  # fmt: skip
        return Plan(**none | fields)

    return make
