"""Networks by the short names that tables use: convnet-8, resnet-20, preresnet-20, wrn-16-2."""

import re
from collections.abc import Callable

from smallnets.models.cifar_resnet import cifar_resnet
from smallnets.models.convnet import convnet
from smallnets.models.lenet import lenet5
from smallnets.models.preact_resnet import preact_resnet
from smallnets.models.staged import StagedNetwork
from smallnets.models.vgg import vgg16
from smallnets.models.wide_resnet import wide_resnet

NAMES = "convnet-WIDTH, resnet-DEPTH, preresnet-DEPTH, wrn-DEPTH-WIDTH, lenet-5 or vgg-16"


def named(
    name: str, num_classes: int, in_channels: int = 3, *, norm: str = "batch"
) -> StagedNetwork:
    """The network that a short name stands for.

    Args:
        name: "convnet-WIDTH" (three stages, a first convolution of stride 2), "resnet-DEPTH"
            (CIFAR ResNet), "preresnet-DEPTH" (pre-activation ResNet), "wrn-DEPTH-WIDTH" (Wide
            ResNet), "lenet-5" or "vgg-16".
        num_classes: length of the logits.
        in_channels: channels of the images.
        norm: of a convnet ("batch", "layer", "group", ...) or preresnet ("batch", "layer").

    Raises:
        ValueError: for a name of another form, a depth that the family does not have, or a norm
            that it cannot be built with.
    """
    match = re.fullmatch(r"(convnet|resnet|preresnet|lenet|vgg)-(\d+)|(wrn)-(\d+)-(\d+)", name)
    whole_names = {"lenet": "lenet-5", "vgg": "vgg-16"}
    if not match or whole_names.get(match[1], name) != name:
        raise ValueError(f"network must be {NAMES}; got {name!r}")
    if match[1] == "convnet":
        return convnet(int(match[2]), num_classes, in_channels, norm=norm, stem_stride=2)
    if match[1] == "preresnet":
        return preact_resnet(int(match[2]), num_classes, in_channels, norm=norm)
    if norm != "batch":
        raise ValueError(f"norm can be given for convnet and preresnet; got {norm!r} for {name!r}")
    if match[1] == "resnet":
        return cifar_resnet(int(match[2]), num_classes, in_channels)
    if match[1]:
        family: Callable[[int, int], StagedNetwork] = lenet5 if match[1] == "lenet" else vgg16
        return family(num_classes, in_channels)
    return wide_resnet(int(match[4]), int(match[5]), num_classes, in_channels)
