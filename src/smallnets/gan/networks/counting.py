"""Multiply-accumulates in the published and in the true convention, and parameters.

The published numbers are those of torchprofile 0.0.1. It counts a convolution, transposed or not,
per element of its *output*,

    outputs x C_in / groups x k^2,

although a transposed convolution of stride 2 does that work per element of its *input*: four times
too many. It adds one for every element that an instance norm, a LayerNorm or a multiplication
writes, or a global pooling; BatchNorm, activations and sums are free, and linear layers are not
seen. So the published count of the full ResNet is 56.8 G, and the true one 49.6 G; of small mobile
networks it is up to two thirds above the true one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smallnets.measure import evaluating, parameters


@dataclass(frozen=True)
class Cost:
    """What one forward pass over one example costs.

    Attributes:
        published: multiply-accumulates as torchprofile 0.0.1 counts them.
        outsized: those of convolutions and linear layers alone, transposed ones per output element.
        exact: the true number of them.
        parameters: of the network.
    """

    published: int = 0
    outsized: int = 0
    exact: int = 0
    parameters: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.published + other.published,
            self.outsized + other.outsized,
            self.exact + other.exact,
            self.parameters + other.parameters,
        )

    def __mul__(self, times: int) -> "Cost":
        return Cost(
            self.published * times, self.outsized * times, self.exact * times,
            self.parameters * times,
        )  # fmt: skip


def conv_cost(
    pixels: int, into: int, out: int, kernel: int, *, bias: bool = True, up: int = 1
) -> Cost:
    """Of a convolution.

    Args:
        pixels: of its output.
        into, out: channels.
        kernel: side.
        up: how many outputs a transposed convolution writes for an input pixel, 4 with stride 2.
    """
    weights = into * out * kernel**2
    outsized = pixels * weights
    return Cost(outsized, outsized, outsized // up, weights + bias * out)


def norm_cost(pixels: int, channels: int, norm: str = "instance") -> Cost:
    """Of a norm: instance norms are counted (published convention), batch norms have parameters."""
    if norm == "instance":
        return multiply_cost(pixels * channels)
    return Cost(parameters=2 * channels)


def separable_cost(
    pixels: int, into: int, out: int, kernel: int, *, up: int = 1, norm: str = "instance",
    bias: bool = True,
) -> Cost:  # fmt: skip
    """Of a depthwise convolution, the norm behind it, and a 1x1 convolution."""
    depthwise = conv_cost(pixels, 1, into, kernel, bias=bias, up=up)
    return depthwise + norm_cost(pixels, into, norm) + conv_cost(pixels, into, out, 1, bias=bias)


def multiply_cost(elements: int) -> Cost:
    """Of an elementwise product, or a norm that is counted as one."""
    return Cost(published=elements)


def linear_cost(into: int, out: int) -> Cost:
    """Of a linear layer with bias on one vector, which the published count does not see."""
    return Cost(0, into * out, into * out, into * out + out)


def total(costs: Sequence[Cost]) -> Cost:
    """The sum."""
    return sum(costs, Cost())


def count(network: nn.Module, *inputs: Tensor | tuple[int, ...], **options: Any) -> Cost:
    """What a network costs, counted by hooks while it runs once.

    Counted are convolutions and linear layers; in the published convention also instance norms,
    LayerNorms, global pooling, and the products of modules that say so themselves
    (`published_products`, a function of their output, as SPADE has it). Other products of tensors
    inside a forward pass are not seen.

    Args:
        network: with parameters on any device, "meta" included: then nothing is computed.
        inputs: tensors of one example each, or shapes of one without its batch axis.
        options: passed on to the forward pass.

    Raises:
        ValueError: more than one example.
    """
    work = total(list(count_layers(network, *inputs, **options).values()))
    return Cost(work.published, work.outsized, work.exact, parameters(network))


def count_layers(
    network: nn.Module, *inputs: Tensor | tuple[int, ...], **options: Any
) -> dict[str, Cost]:
    """The same layer by layer: dotted name -> cost, without parameters; see `count`."""
    like = next(network.parameters(), torch.empty(0))
    given = [
        x if isinstance(x, Tensor) else torch.zeros(1, *x, dtype=like.dtype, device=like.device)
        for x in inputs
    ]
    for x in given:
        if len(x) != 1:
            raise ValueError(f"costs must be counted on one example; got {len(x)}")
    found: dict[str, Cost] = {}
    handles = []
    for name, module in network.named_modules():
        rule = _rule(module)
        if rule is not None:
            handles.append(module.register_forward_hook(_adding(found, name, rule)))
    try:
        with evaluating(network), torch.no_grad():
            network(*given, **options)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _adding(found: dict[str, Cost], name: str, rule: "Rule") -> Callable[..., None]:
    def add(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        found[name] = found.get(name, Cost()) + rule(module, given, output)

    return add


Rule = Callable[[nn.Module, tuple[Any, ...], Any], Cost]


def _rule(module: nn.Module) -> Rule | None:
    products = getattr(module, "published_products", None)
    if products is not None:
        return lambda layer, given, output: multiply_cost(products(output))
    if isinstance(module, nn.modules.conv._ConvNd):
        return _conv_rule
    if isinstance(module, nn.Linear):
        return _linear_rule
    if isinstance(module, _COUNTED_BY_ELEMENT):
        return lambda layer, given, output: multiply_cost(output.numel())
    return None


_COUNTED_BY_ELEMENT = (
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.AdaptiveAvgPool2d,
)


def _linear_rule(layer: nn.Module, given: tuple[Any, ...], output: Tensor) -> Cost:
    work = output.numel() * given[0].shape[-1]
    return Cost(0, work, work)


def _conv_rule(layer: nn.Module, given: tuple[Any, ...], output: Tensor) -> Cost:
    x = given[0]
    depthwise = layer.groups == layer.in_channels  # a slice of one has as many groups as channels
    groups = x.shape[1] if depthwise else layer.groups
    kernel = math.prod(layer.kernel_size)
    outsized = output.numel() * (x.shape[1] // groups) * kernel
    if not isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return _multiplied(outsized)
    exact = x.numel() * (output.shape[1] // groups) * kernel
    return Cost(outsized, outsized, exact)


def _multiplied(work: int) -> Cost:
    return Cost(work, work, work)
