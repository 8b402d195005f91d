"""A data set of eight seconds' drawing: four classes of bars."""

import numpy as np
import pytest
import torch

from smallnets.data import Dataset


@pytest.fixture(scope="session")
def data() -> Dataset:
    draw = np.random.default_rng(0)
    y = np.arange(96) % 4
    x = draw.integers(0, 80, (96, 3, 8, 8))
    for i, label in enumerate(y):
        x[i, :, 2 * label : 2 * label + 2] += 120
    x, y = torch.from_numpy(x.astype(np.uint8)), torch.from_numpy(y.astype(np.int64))
    return Dataset("bars", x[:64], y[:64], x[64:], y[64:], ("a", "b", "c", "d"), False)
