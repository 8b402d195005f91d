import pytest
import torch

from smallnets.data import Augmentation, Dataset
from smallnets.models import convnet
from smallnets.training import TrainSettings, seeded


@pytest.fixture
def tiny() -> Dataset:
    """96 images of 8x8 whose class is the brightest quarter: learnable in a few steps."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 4
    images = torch.randint(0, 120, (96, 3, 8, 8), generator=generator, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = divmod(label, 2)
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 120
    return Dataset("tiny", images, labels, images[:32], labels[:32], tuple("abcd"), flips=False)


@pytest.fixture
def settings() -> TrainSettings:
    return TrainSettings(
        epochs=4,
        batch_size=16,
        augmentation=Augmentation(crop=1),
        device="cpu",
        precision="32-true",
    )


@pytest.fixture
def new_model():
    def build(seed: int = 0):
        with seeded(seed):
            return convnet(4, 4, norm="batch")

    return build
