"""The small networks of the golden values, with the weights that they were computed with."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smallnets.prune.importance.gates import Site


@pytest.fixture(scope="session")
def values(golden):
    return golden("05-taylor-pruning")


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


def load(network: nn.Module, values: dict[str, np.ndarray], prefix: str) -> nn.Module:
    state = {
        key.removeprefix(prefix): tensor(value)
        for key, value in values.items()
        if key.startswith(prefix)
    }
    missing, unexpected = network.double().load_state_dict(state, strict=False)
    assert not unexpected
    assert all("num_batches" in name for name in missing)
    return network.eval()


@pytest.fixture
def plain(values):
    """conv-BN-ReLU three times; gates go behind the norms."""
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 6, 3, padding=1),
            bn1=nn.BatchNorm2d(6),
            relu1=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 8, 3, padding=1, bias=False),
            bn2=nn.BatchNorm2d(8),
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(8, 7, 1, bias=False),
            bn3=nn.BatchNorm2d(7),
            relu3=nn.ReLU(),
            mean=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(7, 5),
        )
    )
    return load(network, values, "plain/state/")


class Block(nn.Module):
    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or into != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(out)) + shortcut).relu()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.layer1 = nn.Sequential(Block(6, 6, 1), Block(6, 6, 1))
        self.layer2 = nn.Sequential(Block(6, 8, 2), Block(8, 8, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.bn1(self.conv1(x)).relu()))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def residual(values):
    """Basic blocks in two stages."""
    return load(Residual(), values, "res/state/")


@pytest.fixture
def residual_sites():
    """The official gates: one shared by the blocks' outputs of a stage, two within each block."""
    sites = {
        f"gate_skip{stage}": (Site(f"layer{stage}.0"), Site(f"layer{stage}.1")) for stage in (1, 2)
    }
    for stage in (1, 2):
        for block in (0, 1):
            for place in (1, 2):
                name = f"layer{stage}.{block}"
                sites[f"{name}.gate{place}"] = (Site(f"{name}.bn{place}"),)
    return sites


@pytest.fixture
def batches(values):
    return [(tensor(x), tensor(y)) for x, y in zip(values["x"], values["y"], strict=True)]
