"""The networks that get compressed, and the one way to look inside them.

Every image network is a sequence of named parts with `stage_names` (the submodules whose outputs
are the stages' feature maps); every network ends in a linear layer called `classifier`.
Constructors draw their weights from torch's default random numbers and never seed them.
"""

from smallnets.models.bit import bit_resnet, load_published
from smallnets.models.cifar_resnet import cifar_resnet
from smallnets.models.convnet import convnet
from smallnets.models.features import FeatureTap
from smallnets.models.layout import memory_format, sound
from smallnets.models.lenet import lenet5
from smallnets.models.mobile import mobile, mobilenet_v2, mobilenet_v3
from smallnets.models.named import NAMES, is_named, named
from smallnets.models.preact_resnet import preact_resnet
from smallnets.models.row_reader import RowReader
from smallnets.models.staged import StagedNetwork
from smallnets.models.vgg import vgg16
from smallnets.models.weights import read_weights
from smallnets.models.wide_resnet import wide_resnet

__all__ = [
    "NAMES",
    "FeatureTap",
    "RowReader",
    "StagedNetwork",
    "bit_resnet",
    "cifar_resnet",
    "convnet",
    "is_named",
    "lenet5",
    "load_published",
    "memory_format",
    "mobile",
    "mobilenet_v2",
    "mobilenet_v3",
    "named",
    "preact_resnet",
    "read_weights",
    "sound",
    "vgg16",
    "wide_resnet",
]
