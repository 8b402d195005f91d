"""Four classes of bars, and the smoke settings for them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets.data import Dataset
from smallnets.studies import landscape as study


@pytest.fixture(scope="session")
def bars() -> Dataset:
    draw = np.random.default_rng(0)
    y = np.arange(120) % 4
    x = draw.integers(0, 80, (120, 1, 8, 8))
    for i, label in enumerate(y):
        x[i, :, 2 * label : 2 * label + 2] += 120
    x, y = torch.from_numpy(x.astype(np.uint8)), torch.from_numpy(y.astype(np.int64))
    return Dataset("bars", x[:80], y[:80], x[80:], y[80:], ("a", "b", "c", "d"), False)


@pytest.fixture(scope="session")
def quick() -> study.Settings:
    """One epoch of ten steps, with the arithmetic that every machine has."""
    settings = replace(study.PRESETS["smoke"], table=True)
    how = replace(settings.training, batch_size=8, device="cpu")
    return replace(
        settings, network="resnet-8-4", resolution=8, train=80, test=40, calibration=24,
        training=how, tuning=replace(how, lr=0.02), short=replace(how, lr=0.02), passes=2,
    )  # fmt: skip


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="session")
def bench(bars, quick, kept) -> study.Bench:
    return study.Bench(bars, quick, 0, kept)
