"""Networks by the short names that tables use: convnet-8, resnet-20, wrn-16-2, mobile-8."""

import re
from collections.abc import Callable

from smallnets.models.bit import bit_resnet
from smallnets.models.cifar_resnet import cifar_resnet
from smallnets.models.convnet import convnet
from smallnets.models.lenet import lenet5
from smallnets.models.mobile import mobile, mobilenet_v2, mobilenet_v3
from smallnets.models.preact_resnet import preact_resnet
from smallnets.models.staged import StagedNetwork
from smallnets.models.vgg import vgg16
from smallnets.models.wide_resnet import wide_resnet

NAMES = (
    "convnet-WIDTH, mobile-WIDTH, resnet-DEPTH, resnet-DEPTH-WIDTH, preresnet-DEPTH, "
    "wrn-DEPTH-WIDTH, bit-DEPTH-WIDTH, lenet-5, vgg-16, mobilenet-2, mobilenet-3"
)
PATTERN = (
    r"(convnet|mobile|resnet|preresnet)-(\d+)|(resnet|wrn|bit)-(\d+)-(\d+)"
    r"|lenet-5|vgg-16|mobilenet-2|mobilenet-3"
)


def is_named(name: str) -> bool:
    """Whether `named` builds a network of that name."""
    return re.fullmatch(PATTERN, name) is not None


def named(
    name: str, num_classes: int, in_channels: int = 3, *, norm: str = "batch"
) -> StagedNetwork:
    """The network that a short name stands for.

    Args:
        name: "convnet-WIDTH" (three stages, a first convolution of stride 2), "mobile-WIDTH"
            (inverted residuals), "resnet-DEPTH" (CIFAR ResNet of 16 channels) or
            "resnet-DEPTH-WIDTH" (of others), "preresnet-DEPTH" (pre-activation ResNet),
            "wrn-DEPTH-WIDTH" (Wide ResNet), "bit-DEPTH-WIDTH" (BiT ResNet), "lenet-5", "vgg-16",
            "mobilenet-2" or "mobilenet-3" (the latter with GroupNorm, as in function matching).
        num_classes: length of the logits.
        in_channels: channels of the images.
        norm: of a convnet ("batch", "layer", "group", ...) or preresnet ("batch", "layer").

    Raises:
        ValueError: for a name of another form, a depth that the family does not have, or a norm
            that it cannot be built with.
    """
    match = re.fullmatch(PATTERN, name)
    if not match:
        raise ValueError(f"network must be one of {NAMES}; got {name!r}")
    family = match[1] or match[3] or name
    depth, width = int(match[2] or match[4] or 0), int(match[5] or 0)
    if norm != "batch" and family not in ("convnet", "preresnet"):
        raise ValueError(f"norm can be given for convnet and preresnet; got {norm!r} for {name!r}")
    builders: dict[str, Callable[[], StagedNetwork]] = {
        "convnet": lambda: convnet(depth, num_classes, in_channels, norm=norm, stem_stride=2),
        "mobile": lambda: mobile(depth, num_classes, in_channels),
        "resnet": lambda: cifar_resnet(
            depth, num_classes, in_channels, width=width if match[4] else 16
        ),
        "preresnet": lambda: preact_resnet(depth, num_classes, in_channels, norm=norm),
        "wrn": lambda: wide_resnet(depth, width, num_classes, in_channels),
        "bit": lambda: bit_resnet(depth, num_classes, in_channels, width=width),
        "lenet-5": lambda: lenet5(num_classes, in_channels),
        "vgg-16": lambda: vgg16(num_classes, in_channels),
        "mobilenet-2": lambda: mobilenet_v2(num_classes, in_channels),
        "mobilenet-3": lambda: mobilenet_v3(num_classes, in_channels, norm="group"),
    }
    return builders[family]()
