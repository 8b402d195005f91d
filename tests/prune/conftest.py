"""A network with a skip connection, and images whose brightest colour is their class."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets.training import TrainSettings


class Residual(nn.Module):
    def __init__(self, width=6, inner=5):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv1, self.norm1 = nn.Conv2d(width, inner, 3, padding=1), nn.BatchNorm2d(inner)
        self.conv2, self.norm2 = nn.Conv2d(inner, width, 3, padding=1), nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Residual()


@pytest.fixture
def example():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="session")
def batches():
    noise = torch.Generator().manual_seed(1)
    found = []
    for _ in range(6):
        labels = torch.randint(3, (16,), generator=noise)
        images = torch.randn(16, 3, 8, 8, generator=noise)
        found.append((images + 1.5 * F.one_hot(labels, 3)[:, :, None, None], labels))
    return found


@pytest.fixture(scope="session")
def settings():
    return TrainSettings(epochs=2, lr=0.1, device="cpu", precision="32-true", weight_decay=1e-2)
