"""In what order a network and its images lie in memory while weights are trained.

Channels-last is the faster order and, with one exception, a sound one. Without AVX-512, oneDNN 3.12
(in torch 2.14) writes past its workspace when it computes the float32 weight gradient of a 1x1
convolution with a stride and fewer than eight input channels, or of a transposed one with fewer
than eight output channels: a crash, a hang or a wrong gradient. Reported upstream as
uxlfoundation/oneDNN issue 6035. Such networks are trained in contiguous memory, which is sound.
"""

import os
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

NARROW = 8  # channels that fill a vector register of AVX2


def memory_format(network: nn.Module) -> torch.memory_format:
    """The fastest sound order for training a network: channels-last, or contiguous where the fault
    of this module's docstring would be met.
    """
    faulty = without_avx512() and bool(narrow_strided(network))
    return torch.contiguous_format if faulty or volumes(network) else torch.channels_last


def volumes(network: nn.Module) -> bool:
    """Whether a network has weights of five dimensions, for which there is no channels-last."""
    return any(one.dim() == 5 for one in chain(network.parameters(), network.buffers()))


def sound(network: nn.Module, images: Tensor) -> Tensor:
    """The images in an order in which the network's weight gradients are right.

    Both stay as they are unless they would meet the fault; then the network's weights, and the
    images that are returned, are contiguous. Values are the same.
    """
    if memory_format(network) is torch.channels_last:
        return images
    network.to(memory_format=torch.contiguous_format)
    return images.contiguous()


def narrow_strided(network: nn.Module) -> list[str]:
    """Names of the layers that can meet the fault, on whatever processor.

    These are 1x1 convolutions in one group, with a stride, whose weight (outputs, inputs, 1, 1),
    or (inputs, outputs, 1, 1) of a transposed one, has fewer than eight channels in second place.
    A layer that computes its weight names its `stride` and the `weight_shape`. Of a module that
    names no stride, any parameter of such a shape counts.
    """
    return [name for name, module in network.named_modules() if _meets(module)]


def _meets(module: nn.Module) -> bool:
    if isinstance(module, ParametrizationList):
        return False  # its layer has the weight that is computed
    stride = getattr(module, "stride", None)
    if not isinstance(stride, tuple | list):
        own = chain(module.parameters(recurse=False), module.buffers(recurse=False))
        return any(_narrow(one.shape) for one in own)
    weight = getattr(module, "weight", None)
    shape = weight.shape if isinstance(weight, Tensor) else getattr(module, "weight_shape", ())
    one_group = getattr(module, "groups", 1) == 1
    return any(step > 1 for step in stride) and one_group and _narrow(shape)


def _narrow(shape: Sequence[int]) -> bool:
    return len(shape) == 4 and shape[1] < NARROW and tuple(shape[2:]) == (1, 1)


def without_avx512() -> bool:
    """Whether torch's convolutions run without AVX-512 here: the processor lacks it, or one of the
    variables that limit torch and oneDNN is set.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "ALL")).upper()
    wide = limit.startswith(("AVX512", "AVX10", "ALL", "DEFAULT"))
    return not (wide and torch.backends.cpu.get_cpu_capability() == "AVX512")
