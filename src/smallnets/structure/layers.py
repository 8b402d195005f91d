"""What all structured layers share: what they are made from, and what they cost."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.losses import check_finite, to_float32
from smallnets.surgery import check_plain

Layer: TypeAlias = nn.Module  # an nn.Linear or nn.Conv2d
Made = TypeVar("Made", bound=nn.Module)


class Cost(NamedTuple):
    """What a layer holds and does, without its bias."""

    weights: int  # numbers that are stored
    macs: int  # multiply-adds for one position of its output (for one example, if it is linear)


def dense_cost(layer: Layer) -> Cost:
    """The cost of a linear layer or a convolution as it is: both are its number of weights."""
    return Cost(layer.weight.numel(), layer.weight.numel())


def steps_of(layer: nn.Conv2d) -> int:
    """Positions of a convolution's input for one of its output."""
    return layer.stride[0] * layer.stride[1]


def check_layer(layer: nn.Module, kind: type[nn.Module], name: str = "given") -> None:
    """Refuse what no structured layer can be made from.

    Args:
        layer: the layer.
        kind: `nn.Linear` or `nn.Conv2d`.
        name: of the layer in its network.

    Raises:
        ValueError: a module of another kind, also one that computes or stores its weight in its own
            way (see `smallnets.surgery.check_plain`), or weights that are not finite.
    """
    if not isinstance(layer, kind):
        raise ValueError(f"layer {name!r} must be a {kind.__name__}; got {type(layer).__name__}")
    check_plain(name, layer, kind=kind)
    check_finite(f"the weight of layer {name!r}", wide_weight(layer))


def check_tensor(name: str, tensor: Tensor, least: int, most: int | None = None) -> None:
    """Refuse what cannot be decomposed.

    Args:
        name: what it is called in errors.
        tensor: of finite numbers, float32 or float64.
        least, most: numbers of dimensions; None is any from `least` on.

    Raises:
        ValueError: it is something else.
    """
    fits = least <= tensor.dim() <= (tensor.dim() if most is None else most) and tensor.numel()
    if not fits or tensor.dtype not in (torch.float32, torch.float64):
        count = f"{least}" if most == least else f"{least} or more"
        raise ValueError(
            f"{name} must be float32 or float64 with {count} dimensions, and not empty; "
            f"got {tensor.dtype} {tuple(tensor.shape)}"
        )
    check_finite(name, tensor)


def wide_weight(layer: nn.Module) -> Tensor:
    """The weight without its graph, in float32 or wider: what a decomposition computes with."""
    return to_float32(layer.weight.detach())


def conv_options(layer: nn.Conv2d) -> dict[str, Any]:
    """How a convolution moves over its input, as arguments of `nn.Conv2d`."""
    return {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "padding_mode": layer.padding_mode,
    }


@dataclass(frozen=True)
class Movement:
    """How a convolution moves over its input, for a weight that is computed.

    Attributes:
        options: see `conv_options`.
        around: by how much each side is padded, as `torch.nn.functional.pad` takes it.
    """

    options: dict[str, Any]
    around: tuple[int, ...]

    @classmethod
    def of(cls, layer: nn.Conv2d) -> "Movement":
        """That of a convolution."""
        return cls(conv_options(layer), tuple(layer._reversed_padding_repeated_twice))

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, h', w')."""
        options = dict(self.options)
        mode = options.pop("padding_mode")
        if mode != "zeros":
            x, options["padding"] = F.pad(x, self.around, mode), 0
        return F.conv2d(x, weight, bias, groups=groups, **options)


def with_bias(layer: Layer, name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name, and the layer's bias under another one, if it has a bias."""
    return {**weights, **({} if layer.bias is None else {name: layer.bias})}


def filled(make: Callable[[], Made], layer: Layer, weights: Mapping[str, Tensor]) -> Made:
    """A module with given weights in the type, place and mode of the layer that it stands in for.

    Args:
        make: builds the module; its own start is not drawn.
        layer: whose weight says type, device and whether it is trained.
        weights: all parameters by name.
    """
    with torch.device("meta"):
        module = make()
    like = layer.weight
    state = {
        name: value.detach().to(like.device, like.dtype, copy=True).contiguous()
        for name, value in weights.items()
    }
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(like.requires_grad).train(layer.training)


def dense_linear(weight: Tensor, bias: Tensor | None, like: nn.Module) -> nn.Linear:
    """A linear layer with a copy of some weights (outputs, inputs) and of a bias, or none."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return _dense(layer, weight, bias, like)


def dense_conv(
    weight: Tensor, bias: Tensor | None, like: nn.Module, groups: int, options: Mapping[str, Any]
) -> nn.Conv2d:
    """A convolution with a copy of some weights (outputs, inputs / groups, height, width)."""
    outputs, inputs, *kernel = weight.shape
    with torch.device("meta"):
        layer = nn.Conv2d(
            inputs * groups, outputs, tuple(kernel), groups=groups, bias=bias is not None, **options
        )
    return _dense(layer, weight, bias, like)


def _dense(layer: Made, weight: Tensor, bias: Tensor | None, like: nn.Module) -> Made:
    parts = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    layer.load_state_dict({k: v.detach().clone() for k, v in parts.items()}, assign=True)
    trained = any(one.requires_grad for one in like.parameters())
    return layer.requires_grad_(trained).train(like.training)


def copied(network: nn.Module) -> nn.Module:
    """A deep copy, which shares nothing with the network.

    Raises:
        ValueError: something else than a module, or one that holds what cannot be copied.
    """
    if not isinstance(network, nn.Module):
        raise ValueError(f"the network must be a torch.nn.Module; got {type(network).__name__}")
    try:
        return copy.deepcopy(network)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"the network must be one that copy.deepcopy copies; {str(error).splitlines()[0]}"
        ) from error
