from dataclasses import replace

import pytest

from smallnets.data import load
from smallnets.studies.similarity import PRESETS


@pytest.fixture(scope="session")
def digits():
    return load("digits").take(160, 120)


@pytest.fixture(scope="session")
def quick():
    """The smoke settings with the arithmetic that every machine has."""
    preset = PRESETS["smoke"]
    training = replace(preset.training, precision="32-true", device="cpu")
    tuning = replace(preset.fine_tuning, precision="32-true", device="cpu")
    return replace(preset, training=training, fine_tuning=tuning)
