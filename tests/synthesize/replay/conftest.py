"""Small tasks on which a step takes a fraction of a second."""

from dataclasses import replace

import pytest
import torch

from smallnets.data import Augmentation, Dataset
from smallnets.models import cifar_resnet
from smallnets.synthesize import replay as r
from smallnets.training import TrainSettings, seeded

SIZE = 8
TRAINING = TrainSettings(
    epochs=3, batch_size=32, lr=0.05, augmentation=Augmentation(crop=1), precision="32-true",
    device="cpu",
)  # fmt: skip
GENERATOR = r.GeneratorSettings(
    latent=16, widths=(16, 16, 8), epochs=2, steps=10, batch=32, pairs=8, device="cpu"
)
SETTINGS = r.IncrementalSettings(
    training=TRAINING, first=replace(TRAINING, epochs=6), generator=GENERATOR, importance_images=64
)


def drawn_patterns(classes=6, each=40, test=12, seed=0, noise=45.0):
    """Every class is a coloured pattern of its own, under noise."""
    g = torch.Generator().manual_seed(seed)
    patterns = 255 * torch.rand(classes, 3, 4, 4, generator=g)
    patterns = torch.nn.functional.interpolate(patterns, size=SIZE, mode="bilinear")

    def part(count):
        labels = torch.arange(classes).repeat(count)
        images = patterns[labels] + noise * torch.randn(len(labels), 3, SIZE, SIZE, generator=g)
        return images.clamp(0, 255).to(torch.uint8), labels

    (x, y), (x_test, y_test) = part(each), part(test)
    return Dataset("patterns", x, y, x_test, y_test, tuple("abcdefghij"[:classes]), flips=False)


@pytest.fixture(scope="session")
def patterns():
    return drawn_patterns()


@pytest.fixture(scope="session")
def tasks(patterns):
    return r.task_split(patterns, [2, 2, 2])


def new_classifier(classes, width=4):
    with seeded(0):
        return cifar_resnet(8, classes, width=width)


@pytest.fixture
def fresh():
    return new_classifier(2)


@pytest.fixture(scope="session")
def known(tasks):
    """A classifier that has learned the first task."""
    return r.learn_task(new_classifier(2), tasks[0], settings=SETTINGS, step=0).model


@pytest.fixture(scope="session")
def settings():
    return SETTINGS


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    """Trainings that several tests have in common."""
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="module")
def noisy():
    """Tasks that are learned well, and not without error."""
    return r.task_split(drawn_patterns(noise=80.0), [2, 2, 2])


@pytest.fixture(scope="module")
def fresh_of_two():
    return new_classifier(2, width=8)


@pytest.fixture(scope="session")
def longer():
    """Long enough for a method to show what it does."""
    training = replace(TRAINING, epochs=12, lr=0.1)
    generator = replace(GENERATOR, epochs=3, steps=20, widths=(24, 24, 12), batch=64)
    return replace(SETTINGS, training=training, first=training, generator=generator)
