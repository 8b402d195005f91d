"""Data sets at another resolution."""

import torch
from torch.nn import functional as F

from smallnets import checks
from smallnets.data.dataset import Dataset


def at_resolution(dataset: Dataset, side: int) -> Dataset:
    """The data set with images of `side` x `side`, by averaging over areas.

    Raises:
        ValueError: fewer than 8 pixels, or more than the images have.
    """
    checks.whole("resolution", side, 8)
    checks.between("resolution", side, 8, min(dataset.size))
    if dataset.size == (side, side):
        return dataset

    def shrunk(images: torch.Tensor) -> torch.Tensor:
        small = F.interpolate(images.float(), (side, side), mode="area")
        return small.round().to(torch.uint8)

    return dataset.changed(shrunk)
