"""LeNet-5 (LeCun et al., 1998) as distillation studies use it: rectified, with average pooling."""

from collections import OrderedDict

from torch import nn

from smallnets.checks import whole
from smallnets.models.staged import StagedNetwork


def lenet5(num_classes: int, in_channels: int = 1) -> StagedNetwork:
    """Two 5x5 convolutions with average pooling, then 120, 84 and `num_classes` units.

    The pooled maps are averaged to 5x5 where the image is not 28x28, so any size of at least 12
    pixels will do. 61,706 parameters for ten classes of grey images.

    Args:
        num_classes: length of the logits.
        in_channels: channels of the images.
    """
    first = OrderedDict(
        conv=nn.Conv2d(whole("in_channels", in_channels, 1), 6, 5, padding=2),
        relu=nn.ReLU(),
        pool=nn.AvgPool2d(2),
    )
    second = OrderedDict(conv=nn.Conv2d(6, 16, 5), relu=nn.ReLU(), pool=nn.AvgPool2d(2))
    return StagedNetwork(
        OrderedDict(
            stage1=nn.Sequential(first),
            stage2=nn.Sequential(second),
            pool=nn.AdaptiveAvgPool2d(5),
            flatten=nn.Flatten(),
            hidden1=nn.Linear(400, 120),
            relu1=nn.ReLU(),
            hidden2=nn.Linear(120, 84),
            relu2=nn.ReLU(),
            classifier=nn.Linear(84, whole("num_classes", num_classes, 1)),
        )
    )
