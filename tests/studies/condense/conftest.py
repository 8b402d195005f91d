import pytest

from smallnets.data import load
from smallnets.studies.condense import Options, prepare


@pytest.fixture(scope="session")
def digits():
    return load("digits").take(120, 60)


@pytest.fixture(scope="session")
def quick():
    """The smoke settings, with the arithmetic that every machine has."""
    return prepare("digits", "smoke", Options(device="cpu", precision="32-true"))[1]
