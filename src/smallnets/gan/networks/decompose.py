"""The mobile version of any generator: chosen convolutions become separable ones."""

import copy
from collections.abc import Sequence

from torch import nn

from smallnets import checks
from smallnets.gan.networks.layers import SeparableConv2d
from smallnets.surgery import replace_module


def decompose(generator: nn.Module, layers: Sequence[str], norm: str = "instance") -> nn.Module:
    """A copy of a generator in which convolutions are depthwise, norm, and 1 x 1.

    In the paper's networks these are the convolutions of the residual blocks, and no others: they
    hold most of the cost, and suffer least. New layers have weights drawn anew, and have to be
    trained.

    Args:
        generator: left as it is.
        layers: dotted names of convolutions with kernels of more than one pixel.
        norm: "instance" or "batch", between the two new convolutions.

    Raises:
        ValueError: a layer that is not there, or is no such convolution.
    """
    checks.one_of("norm", norm, ("instance", "batch"))
    mobile = copy.deepcopy(generator)
    modules = dict(mobile.named_modules())
    if not layers or isinstance(layers, str):
        raise ValueError(f"layers must be names of convolutions; got {layers!r}")
    for name in layers:
        if name not in modules:
            raise ValueError(f"layer {name!r} must be a convolution; there is none of that name")
        layer = modules[name]
        if type(layer) is not nn.Conv2d or layer.groups != 1 or layer.kernel_size == (1, 1):
            raise ValueError(
                f"layer {name!r} must be a plain convolution of more than one pixel; it is "
                f"{type(layer).__name__} {layer.extra_repr()}"
            )
        bias = layer.bias is not None
        thin = SeparableConv2d(layer.in_channels, layer.out_channels, bias=bias, norm=norm)
        thin.conv[0] = nn.Conv2d(
            layer.in_channels, layer.in_channels, layer.kernel_size, layer.stride, layer.padding,
            layer.dilation, layer.in_channels, bias, layer.padding_mode,
        )  # fmt: skip
        replace_module(mobile, name, thin.to(layer.weight.device, layer.weight.dtype))
    return mobile.train(generator.training)
