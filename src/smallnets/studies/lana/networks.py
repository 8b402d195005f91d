"""The networks that the chapter makes faster, and which of their parts are layers."""

import re
from typing import Any

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
