import pytest
import torch

from smallnets.data import load
from smallnets.training import TrainSettings


@pytest.fixture(scope="session")
def digits():
    return load("digits").take(160, 60)


@pytest.fixture(scope="session")
def quick():
    """A training of a few steps in the arithmetic that every machine has."""
    return TrainSettings(
        epochs=2, batch_size=32, lr=3e-3, weight_decay=1e-4, optimizer="adamw", clip=1.0,
        across_epochs=True, warmup_epochs=0.2, device="cpu", precision="32-true",
    )  # fmt: skip


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
