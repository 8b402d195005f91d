"""The networks that get compressed, and the one way to look inside them.

Every network here is a sequence of named parts with `stage_names` (the submodules whose outputs are
the stages' feature maps) and a last linear layer called `classifier`. Constructors draw their
weights from torch's default random numbers and never seed them.
"""

from smallnets.models.bit import bit_resnet, load_published
from smallnets.models.cifar_resnet import cifar_resnet
from smallnets.models.convnet import convnet
from smallnets.models.features import FeatureTap
from smallnets.models.mobile import mobile, mobilenet_v2, mobilenet_v3
from smallnets.models.named import named
from smallnets.models.staged import StagedNetwork
from smallnets.models.wide_resnet import wide_resnet

__all__ = [
    "FeatureTap",
    "StagedNetwork",
    "bit_resnet",
    "cifar_resnet",
    "convnet",
    "load_published",
    "mobile",
    "mobilenet_v2",
    "mobilenet_v3",
    "named",
    "wide_resnet",
]
