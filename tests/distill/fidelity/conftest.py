import pytest

from smallnets.data import Augmentation, load
from smallnets.training import TrainSettings


@pytest.fixture(scope="session")
def digits():
    return load("digits").take(300, 120)


@pytest.fixture(scope="session")
def quick():
    """A training of a few steps in the arithmetic that every machine has."""
    return TrainSettings(
        epochs=2, batch_size=64, lr=0.3, warmup_epochs=0.5, weight_decay=1e-4,
        augmentation=Augmentation(crop=2), device="cpu", precision="32-true",
    )  # fmt: skip
