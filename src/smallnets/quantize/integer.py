"""A quantised network in whole numbers alone: 8-bit codes, 32-bit sums, a multiplication, a shift.

Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference, CVPR 2018. A number is r = S (q - Z). A layer adds (q_x - Z_x)(q_w - Z_w) up in 32 bits,
with a bias in the same unit S_x S_w, and moves the sum to the grid of the next layer's input:
q_y = clip(round(M sum) + Z_y) with M = S_x S_w / S_y = 2^-n M_0 and a whole M_0 of 31 bits.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.batches import Batches, Source
from smallnets.measure import evaluating
from smallnets.quantize.modules.base import Grid
from smallnets.quantize.modules.layers import QUANTIZED, QuantConv2d, QuantLinear
from smallnets.quantize.rounding import integer_range
from smallnets.quantize.uniform import affine_grid

INT32 = 2**31
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)


def fixed_point(multiplier: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole M_0 in [2^30, 2^31) and n with multiplier = 2^-n M_0, int64, as near as 31 bits
    come.

    Raises:
        ValueError: a multiplier that is not above 0 and below 2^30.
    """
    values = multiplier.double()
    if not bool(((values > 0) & (values < 2.0**30)).all()):
        raise ValueError(
            "multipliers must be above 0 and below 2^30; got "
            f"{float(values.min()):g} to {float(values.max()):g}"
        )
    mantissa, exponent = torch.frexp(values)
    whole = torch.round(mantissa * INT32).long()
    over = whole == INT32  # a mantissa that was rounded up to 1
    whole = torch.where(over, whole // 2, whole)
    return whole, 31 - (exponent.long() + over.long())


def rescale(sums: Tensor, multiplier: Tensor, shift: Tensor) -> Tensor:
    """Return round(sums * multiplier * 2^-shift), halves upwards, in whole numbers only, int64.

    Args:
        sums: whole numbers of at most 32 bits.
        multiplier, shift: from `fixed_point`; broadcast against the sums.
    """
    excess = (shift - 62).clamp(min=0)
    multiplier, shift = multiplier >> excess.clamp(max=62), shift.clamp(max=62)
    half = torch.ones_like(shift) << (shift - 1)
    return (sums.long() * multiplier + half) >> shift


@dataclass(frozen=True, eq=False)
class Pooling:
    """What follows a layer's sums before they go to the next grid.

    Attributes:
        kind: "relu", "relu6", "max", "average" or "flatten".
        options: of the pooling.
    """

    kind: str
    options: dict[str, Any]


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """One convolution or linear layer in whole numbers.

    Attributes:
        name: of the layer.
        weight: int32, codes less their zero point, of the weight's shape.
        bias: int32 (out,), in units of the sums.
        given: grid of its input codes.
        unit: float64 (out,), the real size of 1 in the sums: S_x S_w.
        after: what is done with the sums.
        taken: grid of its output codes: the next layer's, or the network's own at the end.
        geometry: stride, padding, dilation and groups of a convolution; None for a linear layer.
    """

    name: str
    weight: Tensor
    bias: Tensor
    given: Grid
    unit: Tensor
    after: tuple[Pooling, ...]
    taken: Grid
    geometry: dict[str, Any] | None

    def sums(self, codes: Tensor) -> Tensor:
        """The 32-bit sums of a batch of codes, int64 (batch, out, ...).

        Raises:
            ValueError: one does not fit into 32 bits.
        """
        centred = codes.double() - float(self.given.zero)
        weight, bias = self.weight.double(), self.bias.double()  # exact: all is below 2^53
        if self.geometry is None:
            found = F.linear(centred, weight, bias)
        else:
            found = F.conv2d(centred, weight, bias, **self.geometry)
        return _in_32_bits(self.name, found)

    def __call__(self, codes: Tensor) -> Tensor:
        """Codes of the input to codes of the output, int32."""
        sums = self.sums(codes)
        unit = self.unit.view(-1, *[1] * (sums.dim() - 2))
        for step in self.after:
            sums, unit = _pooled(self.name, step, sums, unit)
        multiplier, shift = fixed_point(unit / self.taken.scale.double())
        moved = rescale(sums, multiplier, shift) + int(self.taken.zero)
        return moved.clamp(self.taken.low, self.taken.high).int()


def _in_32_bits(name: str, sums: Tensor) -> Tensor:
    most = float(sums.abs().max()) if sums.numel() else 0.0
    if most >= INT32:
        raise ValueError(f"sums of layer {name!r} must fit into 32 bits; got one of size {most:g}")
    return sums.long()


def _pooled(name: str, step: Pooling, sums: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """One step on sums, and their unit after it. All of them are exact."""
    if step.kind == "flatten":
        wide = unit.expand(1, *sums.shape[1:]) if unit.dim() < sums.dim() else unit
        return sums.flatten(1), wide.flatten()
    if step.kind in ("relu", "relu6"):
        sums = sums.clamp(min=0)
        if step.kind == "relu6":
            sums = torch.minimum(sums, torch.round(6 / unit).long())
        return sums, unit
    if step.kind == "max":
        return F.max_pool2d(sums.double(), **step.options).long(), unit
    if step.options:
        sides = step.options["kernel_size"]
        count = sides**2 if isinstance(sides, int) else sides[0] * sides[1]
        added = F.avg_pool2d(sums.double(), **step.options, divisor_override=1)
    else:
        count = sums.shape[-1] * sums.shape[-2]
        added = sums.double().sum((-2, -1), keepdim=True)
    return _in_32_bits(name, added), unit / count


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A chain of layers in whole numbers; made by `to_integer`.

    Attributes:
        layers: in order.
    """

    layers: tuple[IntegerLayer, ...]

    def quantize(self, x: Tensor) -> Tensor:
        """Codes of a batch of real inputs (n, ...), int32."""
        return _to_grid(x, self.layers[0].given)

    def codes(self, x: Tensor) -> dict[str, Tensor]:
        """Input codes of every layer by its name, and "output", of real inputs (n, ...)."""
        codes = self.quantize(x)
        found = {}
        for layer in self.layers:
            found[layer.name] = codes
            codes = layer(codes)
        return {**found, "output": codes}

    def __call__(self, x: Tensor) -> Tensor:
        """Real inputs (n, ...) to real outputs on the network's own grid."""
        grid = self.layers[-1].taken
        return grid.scale * (self.codes(x)["output"].to(grid.scale.dtype) - grid.zero)


def _to_grid(x: Tensor, grid: Grid) -> Tensor:
    return (torch.round(x / grid.scale) + grid.zero).clamp(grid.low, grid.high).int()


def to_integer(
    network: nn.Module, images: Tensor | Batches | Source, output_bits: int = 8
) -> IntegerNetwork:
    """A quantised chain of layers in whole numbers.

    Args:
        network: of `quantize_model` or `quantize_after_training`, all of whose layers have
            quantised weights and inputs of at most 8 bits on even grids with 0 among their levels,
            one after the other. Between them: ReLU, ReLU6, max and average pooling, flattening,
            dropout. Fold BatchNorm first.
        images: (n, ...) that say which grid the outputs need; of batches the first.
        output_bits: of that grid, 1 to 16.

    Raises:
        ValueError: anything else in the network, a quantiser without a start, codes that do not
            fit, a bias beyond 32 bits.
    """
    checks.between("output_bits", checks.whole("output_bits", output_bits, 1), 1, 16)
    if not isinstance(images, Tensor):
        given = images if isinstance(images, Batches) else Batches(images)
        images = given.without_labels().on(network).first()[0]
    steps = _chain(network)
    with evaluating(network), torch.no_grad():
        outputs = network(images)
    step, zero = affine_grid(outputs, output_bits)
    last = Grid(step, *integer_range(output_bits, signed=False), zero)
    names = [name for name, one in steps if isinstance(one, QUANTIZED)]
    if not names or not isinstance(steps[0][1], QUANTIZED):
        first = type(steps[0][1]).__name__ if steps else "nothing"
        raise ValueError(f"the network must begin with a quantised layer; got {first}")
    grids = [_input_grid(name, one) for name, one in steps if isinstance(one, QUANTIZED)] + [last]
    layers = []
    for place, name in enumerate(names):
        start = [one for one, _ in steps].index(name)
        end = next(
            (i for i in range(start + 1, len(steps)) if isinstance(steps[i][1], QUANTIZED)),
            len(steps),
        )
        after = tuple(one for _, one in steps[start + 1 : end] if isinstance(one, Pooling))
        layers.append(_layer(name, steps[start][1], grids[place], grids[place + 1], after))
    return IntegerNetwork(tuple(layers))


def _layer(
    name: str, layer: Any, given: Grid, taken: Grid, after: tuple[Pooling, ...]
) -> IntegerLayer:
    codes = layer.weight_codes()
    if codes.table is not None:
        raise ValueError(f"weights of layer {name!r} must lie on an even grid; they have a table")
    whole, zero, scale = codes.codes, codes.zero, codes.scale
    if bool((zero != zero.round()).any()):  # levels on both sides of 0 and not on it
        whole, zero, scale = 2 * whole, 2 * zero, scale / 2
    centred = (whole - zero).int()
    if int(centred.abs().max()) > 255:
        raise ValueError(f"weights of layer {name!r} must have at most 8 bits; got {codes.bits}")
    unit = (given.scale.double() * scale.double().flatten()).expand(len(centred)).contiguous()
    bias = torch.zeros(len(centred)) if layer.bias is None else layer.bias.detach()
    whole_bias = torch.round(bias.double() / unit)
    if not bool((whole_bias.abs() < INT32).all()):
        raise ValueError(f"the bias of layer {name!r} must fit into 32 bits of its sums' unit")
    geometry = None
    if isinstance(layer, QuantConv2d):
        if layer.padding_mode != "zeros":
            raise ValueError(
                f"padding_mode of layer {name!r} must be zeros; got {layer.padding_mode!r}"
            )
        geometry = {
            "stride": layer.stride,
            "padding": layer.padding,
            "dilation": layer.dilation,
            "groups": layer.groups,
        }
    return IntegerLayer(name, centred, whole_bias.int(), given, unit, after, taken, geometry)


def _input_grid(name: str, layer: QuantConv2d | QuantLinear) -> Grid:
    act, weight = layer.a_quant, layer.w_quant
    if act is None or weight is None or act.bits > 8 or weight.bits > 8:
        raise ValueError(
            f"weights and inputs of layer {name!r} must be quantised to at most 8 bits; got "
            f"{32 if weight is None else weight.bits} and {32 if act is None else act.bits}"
        )
    if not bool(act.started):
        raise ValueError(f"the input of layer {name!r} has no grid yet: calibrate the network")
    try:
        return act.grid()
    except NotImplementedError:
        raise ValueError(
            f"the input of layer {name!r} must have a grid with 0 on it; {type(act).__name__} has "
            "none"
        ) from None


def whole_biases(network: nn.Module) -> nn.Module:
    """A copy whose biases lie where whole numbers can follow: on multiples of their sums' unit.

    They move by half of S_x S_w at most. At 8 bits that is nothing; at 2 to 4 bits, where sums are
    small numbers, it decides now and then how a value is rounded, and the copy is what a network in
    whole numbers equals.

    Args:
        network: calibrated, with quantised weights and inputs.

    Raises:
        ValueError: as `to_integer` for a layer.
    """
    copied = copy.deepcopy(network)
    for name, layer in copied.named_modules():
        if isinstance(layer, QUANTIZED) and layer.bias is not None:
            grid = _input_grid(name, layer)
            made = _layer(name, layer, grid, grid, ())
            layer.bias.data = (made.bias.double() * made.unit).to(layer.bias.dtype)
    return copied


class _Tracer(fx.Tracer):
    """Takes quantised layers as single steps."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Also those."""
        return isinstance(m, QUANTIZED) or super().is_leaf_module(m, module_qualified_name)


def _chain(network: nn.Module) -> list[tuple[str, Any]]:
    """The steps of a network, each reading the one before: quantised layers and `Pooling`."""
    try:
        graph = _Tracer().trace(network)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the network must be traceable by torch.fx: {reason}") from None
    modules = dict(network.named_modules())
    found: list[tuple[str, Any]] = []
    before: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "output":
            break
        if node.op != "placeholder":
            if node.all_input_nodes != [before]:
                raise ValueError(
                    "the network must be a chain in which each step reads the one before; "
                    f"{node.name} reads {', '.join(map(str, node.all_input_nodes)) or 'nothing'}"
                )
            target = str(node.target) if node.op == "call_module" else node.name
            step = _module_step if node.op == "call_module" else _function_step
            one = step(modules[target], target) if node.op == "call_module" else step(node, target)
            if one is not None:
                found.append((target, one))
        before = node
    return found


def _module_step(module: nn.Module, name: str) -> Any:
    if isinstance(module, QUANTIZED):
        return module
    if isinstance(module, NOTHING):
        return None
    if isinstance(module, nn.ReLU | nn.ReLU6):
        return Pooling(type(module).__name__.lower(), {})
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
        return Pooling("flatten", {})
    if isinstance(module, nn.MaxPool2d) and not module.return_indices:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return Pooling("max", {one: getattr(module, one) for one in names})
    if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
        return Pooling("average", {})
    if (
        isinstance(module, nn.AvgPool2d)
        and module.padding in (0, (0, 0))
        and not module.ceil_mode
        and module.divisor_override is None
    ):
        return Pooling("average", {"kernel_size": module.kernel_size, "stride": module.stride})
    raise ValueError(
        "a network in whole numbers has quantised Conv2d and Linear layers, ReLU, ReLU6, "
        "MaxPool2d, AvgPool2d without padding, AdaptiveAvgPool2d(1), Flatten and dropout; layer "
        f"{name!r} is {type(module).__name__}"
    )


RELU: tuple[Callable[..., Any], ...] = (torch.relu, F.relu)


def _function_step(node: fx.Node, name: str) -> Any:
    if node.target in RELU or node.target == "relu":
        return Pooling("relu", {})
    if (node.target is torch.flatten or node.target == "flatten") and node.args[1:] == (1,):
        return Pooling("flatten", {})
    shown = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
    raise ValueError(
        "a network in whole numbers has relu and flatten(1) as functions between its layers; "
        f"{name} is {shown}"
    )


def largest_differences(integer: IntegerNetwork, network: nn.Module, x: Tensor) -> dict[str, int]:
    """In steps of the grid: how far whole numbers are from the fake-quantised float path.

    Args:
        integer: made from `network`.
        x: real inputs (n, ...).

    Returns:
        Of the input codes of every layer by its name, and of "output", the largest difference.
    """
    codes = integer.codes(x)
    seen: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(layer.name).register_forward_pre_hook(
            lambda _, args, layer=layer: seen.__setitem__(
                layer.name, _to_grid(args[0], layer.given)
            )
        )
        for layer in integer.layers
    ]
    try:
        with evaluating(network), torch.no_grad():
            seen["output"] = _to_grid(network(x), integer.layers[-1].taken)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: int((codes[name] - seen[name]).abs().max()) for name in codes}
