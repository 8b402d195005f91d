"""The networks that the chapter makes faster, and which of their parts are layers."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smallnets.data import Dataset
from smallnets.search.lana.layers import ReplaceableLayers
from smallnets.studies.networks import build_network


def build_arguments(name: str) -> dict[str, Any]:
    """How a network is built here: CIFAR ResNets halve 32x32 images in their first convolution."""
    return {"stem_stride": 2} if re.fullmatch(r"resnet-\d+", name) else {}


def replaceable(name: str, dataset: Dataset) -> ReplaceableLayers:
    """An untrained network by its layers, to ask for shapes and names."""
    return layered_network(build_network(name, dataset, 0, **build_arguments(name)).eval(), dataset)


def layered_network(network: nn.Module, dataset: Dataset) -> ReplaceableLayers:
    """The network with all its blocks as replaceable layers; stem and head stay."""
    blocks = re.compile(r"stage\d+\.\d+|features\.[1-7]\.\d+")
    names = tuple(name for name, _ in network.named_modules() if blocks.fullmatch(name))
    if not names:
        raise ValueError(
            "network must have blocks, as resnet-DEPTH, mobile-WIDTH, mobilenet-2 and "
            f"efficientnet_b0 have them; got {type(network).__name__}"
        )
    return ReplaceableLayers(network, names, dataset.normalise(dataset.x_train[:2]))


def read_weights(network: nn.Module, path: str) -> nn.Module:
    """The network with weights that `torch.save(network.state_dict(), path)` wrote.

    Raises:
        ValueError: the file's weights are not those of the network.
    """
    try:
        network.load_state_dict(torch.load(path, weights_only=True))
    except (RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{Path(path).name} must hold the teacher's weights; {str(error).splitlines()[0]}"
        ) from error
    return network.eval()
