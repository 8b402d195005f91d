"""Networks by the short names that tables use: convnet-8, resnet-20, wrn-16-2, mobile-8."""

import re

from smallnets.models.bit import bit_resnet
from smallnets.models.cifar_resnet import cifar_resnet
from smallnets.models.convnet import convnet
from smallnets.models.mobile import mobile, mobilenet_v2, mobilenet_v3
from smallnets.models.staged import StagedNetwork
from smallnets.models.wide_resnet import wide_resnet


def named(name: str, num_classes: int, in_channels: int = 3) -> StagedNetwork:
    """The network that a short name stands for.

    Args:
        name: "convnet-WIDTH" (three stages, BatchNorm, a first convolution of stride 2),
            "mobile-WIDTH" (inverted residuals), "resnet-DEPTH" (CIFAR ResNet), "wrn-DEPTH-WIDTH"
            (Wide ResNet), "bit-DEPTH-WIDTH" (BiT ResNet), "mobilenet-2" or "mobilenet-3" (the
            latter with GroupNorm, as in function matching).
        num_classes: length of the logits.
        in_channels: channels of the images.

    Raises:
        ValueError: for a name of another form, or a depth that the family does not have.
    """
    match = re.fullmatch(r"(convnet|mobile|mobilenet|resnet)-(\d+)|(wrn|bit)-(\d+)-(\d+)", name)
    if not match or (match[1] == "mobilenet" and match[2] not in "23"):
        raise ValueError(
            "network must be convnet-WIDTH, mobile-WIDTH, mobilenet-2, mobilenet-3, resnet-DEPTH, "
            f"wrn-DEPTH-WIDTH or bit-DEPTH-WIDTH; got {name!r}"
        )
    if match[1] == "convnet":
        return convnet(int(match[2]), num_classes, in_channels, stem_stride=2)
    if match[1] == "mobile":
        return mobile(int(match[2]), num_classes, in_channels)
    if match[1] == "mobilenet":
        if match[2] == "2":
            return mobilenet_v2(num_classes, in_channels)
        return mobilenet_v3(num_classes, in_channels, norm="group")
    if match[1] == "resnet":
        return cifar_resnet(int(match[2]), num_classes, in_channels)
    if match[3] == "bit":
        return bit_resnet(int(match[4]), num_classes, in_channels, width=int(match[5]))
    return wide_resnet(int(match[4]), int(match[5]), num_classes, in_channels)
