from dataclasses import replace

import pytest

from smallnets.data import load
from smallnets.studies import single_image as study


@pytest.fixture(scope="session")
def digits():
    return load("digits").take(160, 60)


@pytest.fixture(scope="session")
def quick():
    """The smoke settings, as short as they can be, in the arithmetic that every machine has."""
    options = study.Options(device="cpu", precision="32-true", train=160, test=60, epochs=1)
    _, settings = study.prepare("digits", "smoke", options)
    return replace(
        settings, network="convnet-3", narrow="convnet-2", steps=2, asked=32, pools=(20,), many=40,
        clips=24, recordings=(30, 20), foreign="digits",
    )  # fmt: skip


@pytest.fixture(scope="session")
def voices(quick):
    return study.open_speech("synthetic", quick)
