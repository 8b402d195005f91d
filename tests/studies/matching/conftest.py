from dataclasses import replace

import pytest

from smallnets.data import load
from smallnets.distill.matching import Matching
from smallnets.studies.matching import PRESETS
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


@pytest.fixture(scope="session")
def small_study(quick):
    """The smoke settings for 160 images."""
    preset = PRESETS["smoke"]
    return replace(
        preset,
        teaching=replace(quick, epochs=3),
        training=quick,
        matching=Matching(resolution=8, area=(0.3, 1.0), crops=2),
        transfer=64,
    )
