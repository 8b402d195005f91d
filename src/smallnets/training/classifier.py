"""Untrained classifiers by name, for studies that take any network."""

import re

from torch import nn

from smallnets.models import cifar_resnet
from smallnets.training.seeds import seeded


def classifier(name: str, num_classes: int, channels: int, seed: int) -> nn.Module:
    """Return an untrained network, drawn from a seed.

    Args:
        name: "resnet-DEPTH-WIDTH" (a CIFAR ResNet), or a classification network of torchvision,
            which takes images of three channels.
        num_classes: length of the logits.
        channels: of the images.

    Raises:
        ValueError: another name, or a torchvision network for images of other channels.
    """
    if match := re.fullmatch(r"resnet-(\d+)-(\d+)", name):
        depth, width = map(int, match.groups())
        with seeded(seed):
            return cifar_resnet(depth, num_classes, channels, width=width)
    from torchvision.models import get_model, list_models  # a second that few runs need

    if name not in list_models():
        raise ValueError(
            "network must be resnet-DEPTH-WIDTH or a torchvision classification network; "
            f"got {name!r}"
        )
    if channels != 3:
        raise ValueError(f"{name} takes images of 3 channels; got {channels}")
    with seeded(seed):
        network: nn.Module = get_model(name, weights=None, num_classes=num_classes)
    return network
