"""What layered networks are compared with.

- One network of many widths by others: Any-Precision networks (Yu et al., AAAI 2021), which share
  float weights and quantise them by DoReFa at every width, and AdaBits (Jin et al., CVPR 2020),
  whose floor schemes nest. Both take the place of a `WeightRule` in `to_layered`.
- A network trained at one width only and cut: `truncated`, and `recalibrate_width` for its
  BatchNorm.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.batches import Batches, Source
from smallnets.quantize.dorefa import dorefa_activations, dorefa_weights
from smallnets.quantize.layered.codes import NESTED, check_widths
from smallnets.quantize.layered.fake import CascadeQuantizer
from smallnets.quantize.layered.network import (
    LayeredNetwork,
    SwitchBatchNorm,
)
from smallnets.quantize.layered.steps import SMALLEST
from smallnets.quantize.rounding import floor_through, round_through
from smallnets.surgery import batch_norms, recalibrate

SCHEMES = ("original", "modified", "centered")
FLOAT = 32


class DorefaWeights(nn.Module):
    """Any-Precision weights: DoReFa at every width, with the mean of |w| as scale; 32 is float."""

    def forward(self, weight: Tensor, bits: int) -> Tensor:
        """The weight at a width."""
        return dorefa_weights(weight, bits, scale="mean")


class DorefaInputs(nn.Module):
    """Any-Precision activations: clipped to [0, 1] and rounded; at 32 bits a ReLU."""

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """x (batch, ...) at a width."""
        return x.relu() if bits == FLOAT else dorefa_activations(x.float(), bits)

    def start(self, x: Tensor) -> None:
        """Nothing is learned."""


@dataclass(frozen=True)
class AnyPrecision:
    """Shared float weights, quantised by DoReFa at each width; 32 may be one of the widths."""

    most: int = FLOAT

    def weights(self, weight: Tensor, widths: Sequence[int]) -> nn.Module:
        """The quantiser of one weight."""
        return DorefaWeights()

    def inputs(self, widths: Sequence[int], count: str) -> nn.Module:
        """The quantiser of a layer's input."""
        return DorefaInputs()


def adabits_unit(v: Tensor, bits: int, scheme: str = "modified") -> Tensor:
    """AdaBits' quantisers on [0, 1], straight through.

    "original" rounds to 2^b - 1 equal parts; "modified" is min(floor(2^b v), 2^b - 1) / 2^b, which
    nests; "centered" adds half a part to that.
    """
    checks.one_of("scheme", scheme, SCHEMES)
    if scheme == "original":
        return round_through(v * (2**bits - 1)) / (2**bits - 1)
    code = floor_through(v * 2**bits)
    code = code + (code.clamp(max=2**bits - 1) - code).detach()
    return (code + (0.5 if scheme == "centered" else 0.0)) / 2**bits


def adabits_weights(
    weight: Tensor, bits: int, scheme: str = "modified", rescale: bool = False
) -> Tensor:
    """AdaBits weights, 2 Q((t + 1) / 2) - 1 with t = tanh(w) / max|tanh(w)|.

    Args:
        weight: (c_out, ...).
        bits: the width.
        scheme: see `adabits_unit`.
        rescale: scale to a standard deviation of 1 / sqrt(c_out * kernel size), the factor held
            constant.

    Raises:
        ValueError: a weight that is 0 throughout or not finite.
    """
    squashed = weight.tanh()
    largest = squashed.abs().max()
    if not bool((largest > 0) & weight.detach().isfinite().all()):
        raise ValueError(
            f"AdaBits needs finite weights, and one that is not 0; got shape {tuple(weight.shape)}"
        )
    unit = squashed / largest
    value = 2 * adabits_unit((unit + 1) / 2, bits, scheme) - 1
    if not rescale:
        return value
    fan_out = len(weight) * weight[0, 0].numel()
    return value / (fan_out**0.5 * value.detach().std())


class AdaBitsWeights(nn.Module):
    """`adabits_weights` at the width that is asked for."""

    def __init__(self, scheme: str, rescale: bool) -> None:
        super().__init__()
        self.scheme, self.rescale = checks.one_of("scheme", scheme, SCHEMES), rescale

    def forward(self, weight: Tensor, bits: int) -> Tensor:
        """The weight at a width."""
        return adabits_weights(weight, bits, self.scheme, self.rescale)


class AdaBitsInputs(nn.Module):
    """AdaBits activations: clipped at a learned level a width (PACT), then rounded."""

    def __init__(self, widths: Sequence[int], start: float = 8.0) -> None:
        super().__init__()
        levels = {str(bits): nn.Parameter(torch.tensor(start)) for bits in check_widths(widths)}
        self.levels = nn.ParameterDict(levels)

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """x (batch, ...) at a width."""
        level = self.levels[str(bits)].abs().clamp(min=SMALLEST)
        x = torch.minimum(x.float().relu(), level)
        return level * adabits_unit(x / level, bits, "original")

    def start(self, x: Tensor) -> None:
        """Levels start at a constant."""


@dataclass(frozen=True)
class AdaBits:
    """AdaBits' quantisers.

    Attributes:
        scheme: of the weights.
        rescale: see `adabits_weights`.
        level: where clipping levels start (8 in the official settings).
    """

    scheme: str = "modified"
    rescale: bool = True
    level: float = 8.0

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.one_of("scheme", self.scheme, SCHEMES)
        checks.above("level", self.level, 0)

    def weights(self, weight: Tensor, widths: Sequence[int]) -> nn.Module:
        """The quantiser of one weight."""
        return AdaBitsWeights(self.scheme, self.rescale)

    def inputs(self, widths: Sequence[int], count: str) -> nn.Module:
        """The quantiser of a layer's input."""
        return AdaBitsInputs(widths, self.level)


def truncated(network: LayeredNetwork, widths: Sequence[int]) -> LayeredNetwork:
    """A network that was trained at one width, cut to lower ones without any training.

    Weight codes are cut, s_b = s_H 2^d with the "mid" offset; activations keep the range that was
    learned, with fewer levels, and the BatchNorm is the one it has.

    Args:
        network: layered, with a single trained width.
        widths: lower ones, of which it shall be capable, too.

    Raises:
        ValueError: more than one trained width, or a width above it.
    """
    if len(network.widths) != 1:
        raise ValueError(f"truncation starts from one trained width; got {network.widths}")
    (high,) = network.widths
    chosen = check_widths((*widths, high)) if high not in widths else check_widths(widths)
    if chosen[0] > high:
        raise ValueError(f"widths must be at most the trained {high}; got {chosen[0]}")
    cut = copy.deepcopy(network)
    for _, layer in cut.layers():
        weights, inputs = layer.weights, layer.inputs
        if not isinstance(weights, CascadeQuantizer) or weights.how.rule not in NESTED:
            raise ValueError("truncation needs codes of the rule mid or plain; got others")
        top = weights.step.detach()
        weights.widths, weights.low = chosen, chosen[-1]
        weights.steps = nn.ParameterDict(
            {str(b): nn.Parameter(top * 2 ** (high - b)) for b in chosen[1:]}
        )
        if inputs is not None:
            old = inputs.steps[str(high)].detach()
            largest = inputs.limits(high)[1]
            for bits in chosen[1:]:
                step = old * largest / max(inputs.limits(bits)[1], 1)
                inputs.steps[str(bits)] = nn.Parameter(step.clone())
                inputs.register_buffer(f"least_{bits}", torch.zeros(()), persistent=False)
            inputs.widths = chosen
    for module in cut.network.modules():
        if isinstance(module, SwitchBatchNorm):
            for bits in chosen[1:]:
                module.norms[str(bits)] = copy.deepcopy(module.norms[str(high)])
            module.widths = chosen
    cut.widths, cut.lowest = chosen, chosen[-1]
    return cut


def recalibrate_width(
    network: LayeredNetwork, batches: Batches | Source, bits: int | None = None
) -> LayeredNetwork:
    """Give the BatchNorm of a width the statistics of some images, in place.

    Args:
        network: layered, or read from a file.
        batches: inputs (n, ...), prepared as for training, or pairs of them and labels, see
            `smallnets.surgery.recalibrate`.
        bits: the width; that of the moment by default. An untrained width borrows the BatchNorm of
            the next higher trained one, which then changes.
    """
    if bits is not None:
        network.set_width(bits)
    switched = [m for m in network.modules() if isinstance(m, SwitchBatchNorm)]
    own = {id(norm) for module in switched for norm in module.norms.values()}
    norms = [norm for norm in batch_norms(network) if id(norm) not in own]
    recalibrate(network, batches, [*norms, *(module.current for module in switched)])
    return network
