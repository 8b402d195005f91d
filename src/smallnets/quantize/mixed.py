"""How many bits each layer needs: a greedy choice under a budget, and width in place of bits.

The simplest of the methods that HAQ (Wang et al., CVPR 2019) and others search with: lower the
width of the layer whose loss grows the least for what it saves, until the budget is met. WRPN
(Mishra et al., ICLR 2018) goes the other way: wider layers of fewer bits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.batches import Batches, Source, check_labelled
from smallnets.measure import evaluating
from smallnets.measure.layers import layer_sizes
from smallnets.quantize.modules import (
    AffineAct,
    AffineWeight,
    layer_inputs,
    quantize_model,
    quantized_layers,
)

COSTS = ("bits", "bit_operations")
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class MixedPrecision:
    """A choice of widths.

    Attributes:
        bits: layer -> (bits of its weight, bits of its input), as `quantize_model` takes it; an
            input keeps None where activations are exact.
        cost: of the choice, in the unit of the budget.
        increase: of the loss that was predicted: the sum over layers of what each adds alone.
        sensitivity: layer -> width -> how much the loss grows if that layer alone has this width.
        steps: layer and new width of every step that was taken, in order.
    """

    bits: Mapping[str, tuple[int, int | None]]
    cost: int
    increase: float
    sensitivity: Mapping[str, Mapping[int, float]]
    steps: tuple[tuple[str, int], ...]


def choose_bits(
    model: nn.Module,
    batches: Batches | Source,
    budget: float,
    *,
    cost: str = "bits",
    candidates: Sequence[int] = (8, 6, 4, 3, 2),
    activations: bool = True,
    loss: Loss = F.cross_entropy,
    keep: Sequence[str] = (),
) -> MixedPrecision:
    """Choose a width for every layer, so that a budget is met and the loss grows little.

    Each layer is tried alone at each width, with all others at the highest one; a step lowers the
    layer whose loss grows the least per unit of cost saved. Weights are rounded to the nearest of
    symmetric grids, a filter each; inputs have ranges from all of `batches`, and the same width.

    Args:
        model: in floating point; not changed.
        batches: pairs (inputs, labels), read once for every layer and width: a list, a loader; of
            images that test nothing.
        budget: of "bits" of all weights, or of "bit_operations": multiply-adds times both widths.
        cost: which of them.
        candidates: widths from 2 to 16.
        activations: quantise inputs, too; otherwise they count as 32 bits.
        loss: (outputs, labels) -> mean loss of a batch.
        keep: names of layers that stay at the highest width.

    Raises:
        ValueError: nothing meets the budget (the line says what the least cost is), an unknown cost
            or layer, candidates out of range, batches that can be read once, a loss that is not
            finite.
    """
    checks.one_of("cost", cost, COSTS)
    checks.above("budget", budget, 0)
    widths = sorted({int(checks.whole("candidates", one, 2)) for one in candidates}, reverse=True)
    checks.each("candidates", widths, checks.between, 2, 16)
    check_labelled(batches)
    keep = list(keep)
    given = batches if isinstance(batches, Batches) else Batches(batches)
    if given.once:
        raise ValueError("batches must start anew with every loop; got what can be read once")
    network, set_width = _at_widths(model, given, widths[0], activations)
    layers = list(quantized_layers(network))
    unknown = [one for one in keep if one not in layers]
    if unknown:
        raise ValueError(f"keep must name layers ({', '.join(layers)}); got {unknown[0]!r}")
    shape = tuple(given.without_labels().first()[0].shape[1:])
    prices = _prices(network, shape, cost, activations)
    free = [name for name in layers if name not in keep]
    chosen = dict.fromkeys(layers, widths[0])

    def total(choice: Mapping[str, int]) -> int:
        return sum(prices[name](width) for name, width in choice.items())

    least = total({name: widths[0] if name in keep else widths[-1] for name in layers})
    if least > budget:
        raise ValueError(
            f"budget must be at least {least} {cost.replace('_', ' ')}, which the lowest widths "
            f"cost; got {budget}"
        )
    before = _mean_loss(network, given, loss)
    sensitivity: dict[str, dict[int, float]] = {name: {widths[0]: 0.0} for name in layers}
    for name in free:
        for width in widths[1:]:
            set_width(name, width)
            sensitivity[name][width] = _mean_loss(network, given, loss) - before
        set_width(name, widths[0])
    steps = []
    while total(chosen) > budget:
        slopes = {
            (name, width): _slope(name, width, chosen, sensitivity, prices)
            for name, width in _moves(chosen, free, widths)
        }
        name, width = min(slopes, key=lambda move: slopes[move])
        chosen[name] = width
        steps.append((name, width))
    return MixedPrecision(
        {name: (width, width if activations else None) for name, width in chosen.items()},
        total(chosen),
        sum(sensitivity[name][width] for name, width in chosen.items()),
        sensitivity,
        tuple(steps),
    )


def _moves(
    chosen: Mapping[str, int], free: Sequence[str], widths: Sequence[int]
) -> list[tuple[str, int]]:
    """Every layer that can still be lowered, to each lower width."""
    return [(name, width) for name in free for width in widths if width < chosen[name]]


def _slope(
    name: str,
    width: int,
    chosen: Mapping[str, int],
    sensitivity: Mapping[str, Mapping[int, float]],
    prices: Mapping[str, Callable[[int], int]],
) -> tuple[float, float]:
    """Loss added per unit saved; of two equals the one that saves more."""
    saved = prices[name](chosen[name]) - prices[name](width)
    added = sensitivity[name][width] - sensitivity[name][chosen[name]]
    return added / saved if saved else float("inf"), -saved


def _at_widths(
    model: nn.Module, batches: Batches, highest: int, activations: bool
) -> tuple[nn.Module, Callable[[str, int], None]]:
    """The network at its highest width, and what sets one layer to another."""
    network = quantize_model(
        model,
        _weights,
        AffineAct if activations else None,
        weight_bits=highest,
        activation_bits=highest if activations else None,
        skip=(),
    ).eval()
    layers = quantized_layers(network)
    values = layer_inputs(network, batches) if activations else {}

    def set_width(name: str, width: int) -> None:
        layer = layers[name]
        layer.w_quant = _weights(width).eval()
        if activations and name in values:
            act = AffineAct(width).to(layer.weight.device).eval()
            act.start(values[name])
            layer.a_quant = act

    for name in layers:
        set_width(name, highest)
    return network, set_width


def _weights(bits: int) -> AffineWeight:
    return AffineWeight(bits, symmetric=True)


def _prices(
    network: nn.Module, shape: tuple[int, ...], cost: str, activations: bool
) -> dict[str, Callable[[int], int]]:
    """What each layer costs at a width."""
    sizes = {size.name: size for size in layer_sizes(network, shape)}

    def price(weights: int, macs: int) -> Callable[[int], int]:
        if cost == "bits":
            return lambda width: weights * width
        return lambda width: macs * width * (width if activations else 32)

    layers = quantized_layers(network)
    return {name: price(layer.weight.numel(), sizes[name].macs) for name, layer in layers.items()}


@torch.no_grad()
def _mean_loss(network: nn.Module, batches: Batches, loss: Loss) -> float:
    total, count = 0.0, 0
    with evaluating(network):
        for inputs, labels in batches.on(network):
            total += float(loss(network(inputs), labels)) * len(inputs)
            count += len(inputs)
    mean = total / count
    if mean != mean or abs(mean) == float("inf"):
        raise ValueError(f"the loss must be finite; got {mean}")
    return mean


def width_factor(bits: tuple[int, int], instead_of: tuple[int, int] = (32, 32)) -> float:
    """How much wider layers may be at the same bit operations (WRPN): sqrt of the ratio of the
    products of both widths, since multiply-adds grow with the square of the number of channels.

    Args:
        bits: of weights and activations, each from 1 to 32.
        instead_of: those of the network that is replaced.
    """
    pairs = []
    for name, pair in (("bits", bits), ("instead_of", instead_of)):
        if isinstance(pair, int) or len(pair) != 2:
            raise ValueError(f"{name} must be two widths, of weights and activations; got {pair!r}")
        for one in pair:
            checks.between(f"every one of {name}", checks.whole(name, one, 1), 1, 32)
        pairs.append(pair[0] * pair[1])
    return float((pairs[1] / pairs[0]) ** 0.5)
