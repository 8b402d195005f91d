"""VGG-16 for small images (Simonyan & Zisserman, 2015): plain convolutions, no normalisation."""

from collections import OrderedDict

from torch import nn

from smallnets.checks import whole
from smallnets.models.staged import StagedNetwork

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions


def vgg16(num_classes: int, in_channels: int = 3) -> StagedNetwork:
    """Thirteen 3x3 convolutions in five stages that end in a max-pool, then 512, 512 and
    `num_classes` units with dropout.

    Pools round up, so any size of image will do; what is left is averaged to one position (there is
    one for 32x32).

    Args:
        num_classes: length of the logits.
        in_channels: channels of the images.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = whole("in_channels", in_channels, 1)
    for i, (width, count) in enumerate(STAGES):
        stage: list[nn.Module] = []
        for _ in range(count):
            stage += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        parts[f"stage{i + 1}"] = nn.Sequential(*stage, nn.MaxPool2d(2, ceil_mode=True))
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    for i in (1, 2):
        parts[f"dropout{i}"] = nn.Dropout()
        parts[f"hidden{i}"] = nn.Linear(512, 512)
        parts[f"relu{i}"] = nn.ReLU()
    parts["classifier"] = nn.Linear(512, whole("num_classes", num_classes, 1))
    return StagedNetwork(parts)
