import pytest
import torch

from smallnets.distill import single_image as si


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def picture():
    """A photograph of 96 x 128 pixels."""
    return si.source_image("astronaut", at_most=128)[:, :96]
