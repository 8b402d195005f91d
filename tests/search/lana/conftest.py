from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from smallnets.data import load
from smallnets.models import cifar_resnet
from smallnets.search.lana import ReplaceableLayers, build_pool
from smallnets.training import TrainSettings, seeded

LAYERS = ("stage1.0", "stage2.0", "stage3.0")
NAMES = ("skip", "ir_e1_k3", "bottleneck_r0.25_k3", "mhsa2")


@pytest.fixture(scope="session")
def digits():
    return load("digits").take(128, 64)


@pytest.fixture
def layered(digits) -> ReplaceableLayers:
    """A residual network of three layers in evaluation mode, with statistics of its own."""
    with seeded(0):
        network = cifar_resnet(8, 10, 1, width=4)
        network.train()(torch.rand(16, 1, 8, 8))
    return ReplaceableLayers(network.eval(), LAYERS, digits.normalise(digits.x_train[:2]))


@pytest.fixture
def pool(layered):
    with seeded(1):
        return build_pool(layered, NAMES)


@pytest.fixture
def quick() -> TrainSettings:
    return TrainSettings(
        epochs=1, batch_size=32, lr=3e-3, weight_decay=0.0, optimizer="adam", device="cpu",
        precision="32-true",
    )  # fmt: skip


@pytest.fixture
def random_problem() -> Callable[..., tuple[list[np.ndarray], list[np.ndarray]]]:
    """random_problem(generator, lengths) -> score and whole-number cost, the teacher's first."""

    def draw(generator, lengths):
        score = [np.r_[0.0, generator.normal(0.3, 0.5, n - 1)] for n in lengths]
        cost = [generator.integers(0, 30, n).astype(float) for n in lengths]
        for row in cost:
            row[0] = 30
        return score, cost

    return draw


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="session")
def snapshot():
    return state
