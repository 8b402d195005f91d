"""Small data of which every test sees the same."""

import pytest
import torch

from smallnets.synthesize import condense as dm


def made_images(classes=4, each=12, size=(8, 8), channels=3, seed=0):
    """Classes that differ in a random picture, under noise: a set of normalised images."""
    draws = torch.Generator().manual_seed(seed)
    pictures = torch.randn(classes, channels, *size, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(classes).repeat_interleave(each)
    noise = torch.randn(len(labels), channels, *size, generator=draws)
    return dm.image_set(pictures[labels] + noise, labels)


def small_net(classes=4, channels=3, size=(8, 8), **changed):
    """() -> a ConvNet of two blocks of eight channels."""
    spec = dm.ConvNetSpec(**{"depth": 2, "width": 8, **changed})
    return dm.Fresh(classes, channels, size, spec=spec)


@pytest.fixture(autouse=True)
def _one_start():
    """Networks that a test builds itself have the same weights whatever ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def made():
    return made_images


@pytest.fixture(scope="session")
def net():
    return small_net


@pytest.fixture(scope="session")
def real():
    return made_images()
