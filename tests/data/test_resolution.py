"""Data sets at another resolution."""

import pytest
import torch

from smallnets.data import Dataset
from smallnets.data.resolution import at_resolution


@pytest.fixture
def data():
    x = torch.arange(2 * 3 * 16 * 16).remainder(251).reshape(2, 3, 16, 16).to(torch.uint8)
    return Dataset("ramp", x, torch.tensor([0, 1]), x, torch.tensor([0, 1]), ("a", "b"), False)


def test_pixels_are_means_of_areas(data):
    small = at_resolution(data, 8)
    assert small.size == (8, 8)
    mean = data.x_train[0, 0, :2, :2].float().mean().round()
    assert small.x_train[0, 0, 0, 0] == mean
    assert at_resolution(data, 16) is data


@pytest.mark.parametrize(("side", "message"), [(17, "between 8 and 16; got 17"), (4, "at least 8")])
def test_what_is_refused(data, side, message):
    with pytest.raises(ValueError, match=message):
        at_resolution(data, side)
