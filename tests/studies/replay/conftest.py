from dataclasses import replace

import pytest

from smallnets.data import load
from smallnets.studies import replay as study


@pytest.fixture(scope="session")
def digits():
    return load("digits").take(260, 120)


@pytest.fixture(scope="session")
def quick():
    """The smoke settings for small images, with the arithmetic that every machine has."""
    options = study.Options(device="cpu", precision="32-true", train=260, test=120)
    _, settings = study.prepare("digits", "smoke", options)
    making = replace(settings.generator, widths=(8, 8, 8), latent=8, epochs=1, batch=16, pairs=8)
    return replace(
        settings, network="resnet-8-2", generator=making, images=32,
        training=replace(settings.training, batch_size=16),
        first=replace(settings.first, batch_size=16),
    )  # fmt: skip
