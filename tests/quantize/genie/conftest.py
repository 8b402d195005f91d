"""The golden values, and the small networks that they were computed with."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smallnets.models import cifar_resnet
from smallnets.training import seeded


@pytest.fixture(scope="session")
def values(golden):
    return {name: torch.from_numpy(a) for name, a in golden("09-genie").items()}


def load(network: nn.Module, values: dict[str, Tensor], prefix: str, renamed=()) -> nn.Module:
    state = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    for old, new in renamed:
        state = {key.replace(old, new): value for key, value in state.items()}
    missing, unexpected = network.double().load_state_dict(state, strict=False)
    assert not unexpected
    assert all("num_batches" in name or "running" in name for name in missing)
    return network


class Block(nn.Module):
    """conv, norm, ReLU, conv, norm, plus what came in, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.identity = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (out + self.identity(x)).relu()


@pytest.fixture
def block(values):
    return load(Block(values["blk_x"].shape[1]), values, "blk.").eval()


@pytest.fixture
def chain(values):
    """Three convolutions with norms, two of them strided."""
    parts = OrderedDict(
        c1=nn.Conv2d(3, 6, 3, padding=1, bias=False),
        b1=nn.BatchNorm2d(6),
        r1=nn.ReLU(),
        c2=nn.Conv2d(6, 8, 3, 2, 1, bias=False),
        b2=nn.BatchNorm2d(8),
        r2=nn.ReLU(),
        c3=nn.Conv2d(8, 5, 1, 2, bias=False),
        b3=nn.BatchNorm2d(5),
    )
    return load(nn.Sequential(parts), values, "net.").eval()


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


@pytest.fixture
def rng():
    return np.random.default_rng(0)
