from dataclasses import replace

import pytest

from smallnets.data import load
from smallnets.studies.fidelity import PRESETS, Options, prepare


@pytest.fixture(scope="session")
def digits():
    return load("digits").take(300, 120)


@pytest.fixture(scope="session")
def quick():
    """The smoke settings for small images, with the arithmetic that every machine has."""
    _, settings = prepare("digits", "smoke", Options(device="cpu", precision="32-true", train=300))
    assert settings.network == PRESETS["smoke"].network
    training = replace(settings.training, epochs=2, warmup_epochs=0.5)
    return replace(settings, teaching=training, training=training)
