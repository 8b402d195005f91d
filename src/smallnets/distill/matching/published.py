"""Teachers from the published checkpoints."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smallnets.data import Dataset
from smallnets.models import StagedNetwork, load_published, named


class SignedRange(nn.Module):
    """Images that a dataset has normalised, brought to the range [-1, 1] of the published networks.

    Args:
        dataset: whose normalisation is undone.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.register_buffer("mean", dataset.mean.view(-1, 1, 1).clone())
        self.register_buffer("std", dataset.std.view(-1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (n, channels, h, w) -> the same in [-1, 1]."""
        return 2 * (x * self.std + self.mean) - 1


def published_teacher(name: str, path: Path | str, dataset: Dataset) -> StagedNetwork:
    """A teacher from a published checkpoint, for images as the dataset normalises them.

    Args:
        name: of the network, such as "bit-152-2".
        path: npz file of arrays under their published names, with or without "params" before them.
        dataset: whose classes it knows.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the arrays do not fit the network; the message names one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"published must be an npz file; got {str(path)!r}")
    with torch.device("meta"):
        network = named(name, dataset.num_classes, dataset.channels)
    network = network.to_empty(device="cpu")
    with np.load(path, allow_pickle=False) as arrays:
        load_published(
            network, {key.removeprefix("params").lstrip("./"): arrays[key] for key in arrays.files}
        )
    parts: OrderedDict[str, nn.Module] = OrderedDict(range=SignedRange(dataset))
    return StagedNetwork(parts | OrderedDict(network.named_children())).eval()
