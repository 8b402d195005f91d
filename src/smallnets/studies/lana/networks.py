"""The networks that the chapter makes faster, and which of their parts are layers."""

import re
from pathlib import Path

import torch
from torch import nn
from torchvision.models import efficientnet

from smallnets.data import Dataset
from smallnets.models import named
from smallnets.search.lana.layers import ReplaceableLayers
from smallnets.training import seeded

STEM_STRIDE = 2  # of residual networks here: 32x32 images become 16x16 maps


def new_network(name: str, dataset: Dataset, seed: int) -> nn.Module:
    """An untrained network for the dataset's images and classes.

    Args:
        name: "resnet-DEPTH" (a CIFAR ResNet with a first convolution of stride 2), "mobile-WIDTH",
            "mobilenet-2", or "efficientnet-b0" to "efficientnet-b7" as torchvision builds them.
        dataset: for channels and classes.
        seed: of the initial weights.

    Raises:
        ValueError: for another name.
    """
    with seeded(seed):
        if match := re.fullmatch(r"efficientnet-b([0-7])", name):
            network = getattr(efficientnet, f"efficientnet_b{match[1]}")(
                num_classes=dataset.num_classes
            )
            stem = network.features[0]
            if dataset.channels != stem[0].in_channels:
                stem[0] = nn.Conv2d(
                    dataset.channels, stem[0].out_channels, 3, 2, padding=1, bias=False
                )
            return network
        if not re.fullmatch(r"resnet-\d+|mobile-\d+|mobilenet-2", name):
            raise ValueError(
                "network must be resnet-DEPTH, mobile-WIDTH, mobilenet-2 or efficientnet-b0 to "
                f"efficientnet-b7; got {name!r}"
            )
        network = named(name, dataset.num_classes, dataset.channels)
        if name.startswith("resnet"):
            network.conv.stride = (STEM_STRIDE, STEM_STRIDE)
        return network


def layered_network(network: nn.Module, dataset: Dataset) -> ReplaceableLayers:
    """The network with all its blocks as replaceable layers; stem and head stay."""
    blocks = re.compile(r"stage\d+\.\d+|features\.[1-7]\.\d+")
    names = tuple(name for name, _ in network.named_modules() if blocks.fullmatch(name))
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
