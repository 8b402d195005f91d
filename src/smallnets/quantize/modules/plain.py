"""A quantised network in plain layers and operations, which exporters know."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from smallnets.quantize.modules.activations import ActQuantizer, SignAct, XNORAct
from smallnets.quantize.modules.layers import Layer, arguments, quantized_layers
from smallnets.surgery import replace_module


class _OnGrid(nn.Module):
    """A grid of activations in plain operations, which exporters know."""

    scale: Tensor
    zero: Tensor

    def __init__(self, quantizer: ActQuantizer) -> None:
        super().__init__()
        grid = quantizer.grid()
        self.low, self.high = grid.low, grid.high
        self.register_buffer("scale", grid.scale.detach().clone())
        self.register_buffer("zero", torch.as_tensor(grid.zero).detach().clone().to(grid.scale))

    def forward(self, x: Tensor) -> Tensor:
        codes = (torch.round(x / self.scale) + self.zero).clamp(self.low, self.high)
        return self.scale * (codes - self.zero)


class _Signs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x >= 0, 1.0, -1.0)


class _Scaled(nn.Module):
    """XNOR-Net's layer in plain operations."""

    def __init__(self, layer: nn.Module, size: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.layer, self.size = layer, size
        bias, layer.bias = layer.bias, None
        self.bias = None
        if bias is not None:
            shape = (-1, 1, 1) if isinstance(layer, nn.Conv2d) else (-1,)
            self.bias = nn.Parameter(bias.detach().view(shape), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        sums = self.layer(torch.where(x >= 0, 1.0, -1.0)) * self.size(x, self.layer)
        return sums if self.bias is None else sums + self.bias


def as_plain(network: nn.Module) -> nn.Module:
    """A copy that computes the same with plain layers and operations, in evaluation mode.

    Weights are rounded once and for all. It is what exporters take; bytes and speed are those of
    floating point.

    Raises:
        ValueError: a quantiser has no start yet.
    """
    plain = copy.deepcopy(network).eval()
    for name, layer in quantized_layers(plain).items():
        with torch.no_grad():
            weight = layer.quantized_weight().detach().clone()
        bare = _bare(layer, weight)
        act = layer.a_quant
        if act is None or act.bits == 32:
            replace_module(plain, name, bare)
            continue
        if not bool(act.started):
            raise ValueError(f"input of layer {name!r}: {type(act).__name__} has no start yet")
        if isinstance(act, XNORAct):
            replace_module(plain, name, _Scaled(bare, act.size))
        else:
            first = _Signs() if isinstance(act, SignAct) else _OnGrid(act)
            replace_module(plain, name, nn.Sequential(first, bare))
    return plain.requires_grad_(False)


def _bare(layer: Layer, weight: Tensor) -> nn.Module:
    """The plain layer with a weight, and the bias of a quantised one."""
    made = (nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear)(**arguments(layer))
    made.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        made.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    return made.eval()
