"""Networks by the short names that tables use: convnet-8, resnet-20, wrn-16-2."""

import re

from smallnets.models.cifar_resnet import cifar_resnet
from smallnets.models.convnet import convnet
from smallnets.models.staged import StagedNetwork
from smallnets.models.wide_resnet import wide_resnet


def named(name: str, num_classes: int, in_channels: int = 3) -> StagedNetwork:
    """The network that a short name stands for.

    Args:
        name: "convnet-WIDTH" (three stages, BatchNorm, a first convolution of stride 2),
            "resnet-DEPTH" (CIFAR ResNet) or "wrn-DEPTH-WIDTH" (Wide ResNet).
        num_classes: length of the logits.
        in_channels: channels of the images.

    Raises:
        ValueError: for a name of another form, or a depth that the family does not have.
    """
    match = re.fullmatch(r"(convnet|resnet)-(\d+)|(wrn)-(\d+)-(\d+)", name)
    if not match:
        raise ValueError(
            f"network must be convnet-WIDTH, resnet-DEPTH or wrn-DEPTH-WIDTH; got {name!r}"
        )
    if match[1] == "convnet":
        return convnet(int(match[2]), num_classes, in_channels, stem_stride=2)
    if match[1] == "resnet":
        return cifar_resnet(int(match[2]), num_classes, in_channels)
    return wide_resnet(int(match[4]), int(match[5]), num_classes, in_channels)
