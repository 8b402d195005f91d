"""Any network in layers: its convolutions and linear layers quantised, its BatchNorm switchable.

Widths share the float weights. Steps and BatchNorm, affine part and running statistics, are each
width's own (as in Any-Precision networks and AdaBits; Wu et al. leave it open).
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from smallnets import checks
from smallnets.measure.evaluation import evaluating
from smallnets.quantize.layered.activations import COUNTS, LsqActivation
from smallnets.quantize.layered.codes import check_widths
from smallnets.quantize.layered.fake import CascadeQuantizer, WeightRule
from smallnets.surgery import check_plain, replace_module

NORMS = ("own", "shared")
LAYERED = WeightRule()
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class QuantizedLayer(nn.Module):
    """A convolution or linear layer whose weight and input have the width of the moment.

    Attributes:
        bits: the width; None computes in float.
    """

    def __init__(self, layer: nn.Module, weights: nn.Module, inputs: nn.Module | None) -> None:
        super().__init__()
        self.layer, self.weights, self.inputs = layer, weights, inputs
        self.bits: int | None = None
        self.starting = False
        self.uses = 0  # of the layer, in the pass that started it

    def forward(self, x: Tensor) -> Tensor:
        """As the layer that it wraps."""
        if self.starting and self.inputs is not None:
            self.uses += 1
            if self.uses == 1:
                self.inputs.start(x)
        if self.bits is None:
            return self.layer(x)
        if self.inputs is not None:
            x = self.inputs(x, self.bits)
        weight, bias = self.weights(self.layer.weight, self.bits), self.layer.bias
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, bias)
        return self.layer._conv_forward(x, weight, bias)  # type: ignore[union-attr, operator]


class SwitchBatchNorm(nn.Module):
    """One BatchNorm a trained width, all starting as copies of one.

    An untrained width takes that of the next higher trained one.
    """

    def __init__(self, norm: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = check_widths(widths, most=32)
        self.norms = nn.ModuleDict({str(bits): copy.deepcopy(norm) for bits in self.widths})
        self.bits: int | None = None

    @property
    def current(self) -> nn.Module:
        """The BatchNorm of the width of the moment."""
        wanted = self.widths[0] if self.bits is None else self.bits
        return self.norms[str(min(bits for bits in self.widths if bits >= wanted))]

    def forward(self, x: Tensor) -> Tensor:
        """As BatchNorm."""
        return self.current(x)


class LayeredNetwork(nn.Module):
    """A network of many widths, and the width that it has at the moment.

    Attributes:
        widths: trained ones, from high to low.
        highest, lowest: what `set_width` allows; of a network read from the beginning of a file the
            highest is what has arrived.
    """

    def __init__(self, network: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        self.network, self.widths = network, tuple(widths)
        modules = list(network.named_modules())
        self._layers = [(name, one) for name, one in modules if isinstance(one, QuantizedLayer)]
        self._switches = [m for _, m in modules if isinstance(m, QuantizedLayer | SwitchBatchNorm)]
        self.highest, self.lowest = self.widths[0], self.widths[-1]
        self.any_width = all(isinstance(q.weights, CascadeQuantizer) for _, q in self.layers())
        self.bits: int | None = None
        self.set_width(self.highest)

    def layers(self) -> list[tuple[str, QuantizedLayer]]:
        """Names, as in the wrapped network, and quantised layers."""
        return self._layers

    def switches(self) -> list[nn.Module]:
        """All parts that have a width."""
        return self._switches

    @property
    def stored(self) -> bool:
        """Whether weights are codes from a file, so that there is nothing to compute in float."""
        return any(getattr(layer.weights, "stored", None) is not None for _, layer in self.layers())

    def set_width(self, bits: int | None) -> "LayeredNetwork":
        """Switch all layers, activation steps and BatchNorms; None computes in float.

        Raises:
            ValueError: a width that the network does not have.
        """
        widths = [one for one in self.widths if one <= self.highest]
        inside = bits in widths or (bits is None and not self.stored)
        if self.any_width and isinstance(bits, int):
            inside = inside or self.lowest <= bits <= self.highest
        if not inside:
            also = f", and {self.lowest} to {self.highest} untrained" if self.any_width else ""
            raise ValueError(
                f"width must be one of {', '.join(map(str, widths))} (trained){also}; got {bits!r}"
            )
        self.bits = bits
        for module in self.switches():
            module.bits = bits  # type: ignore[assignment]
        return self

    def forward(self, x: Tensor, bits: int | None = None) -> Tensor:
        """What the network says at its width, or at `bits` (which then stays)."""
        if bits is not None and bits != self.bits:
            self.set_width(bits)
        return self.network(x)

    @torch.no_grad()
    def start(self, x: Tensor) -> "LayeredNetwork":
        """Start all activation steps from one batch of images, computed in float.

        A layer that runs more than once starts from all that it is given.

        Raises:
            ValueError: the network reads the weight of a layer itself, instead of calling it.
        """
        x = x.to(next(self.parameters()).device)
        before = self.bits
        self.set_width(None)
        layers = [layer for _, layer in self.layers()]
        signs = [getattr(layer.inputs, "signed", None) for layer in layers]
        for layer in layers:
            layer.starting, layer.uses = True, 0
        try:
            with evaluating(self):
                self.network(x)
                for layer in layers:
                    layer.starting = False
                for layer, signed in zip(layers, signs, strict=True):
                    if layer.uses > 1:
                        self._start_again(layer, signed, x)
        except AttributeError as error:
            raise ValueError(
                f"the network must call its layers, and not read their weights itself: {error}"
            ) from error
        finally:
            for layer in layers:
                layer.starting = False
            self.set_width(before)
        return self

    def _start_again(self, layer: QuantizedLayer, signed: bool | None, x: Tensor) -> None:
        given: list[Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _, args: given.append(args[0].flatten()))
        try:
            self.network(x)
        finally:
            handle.remove()
        inputs: Any = layer.inputs
        if hasattr(inputs, "signed"):
            inputs.signed = signed
        inputs.start(torch.cat(given))

    def own_parameters(self) -> set[str]:
        """Names of parameters that belong to widths: of quantisers and switchable BatchNorms."""
        parts = {
            id(part)
            for module in self.switches()
            for part in (
                (module.weights, module.inputs) if isinstance(module, QuantizedLayer) else (module,)
            )
        }
        return {
            f"{name}.{inner}"
            for name, module in self.named_modules()
            if id(module) in parts
            for inner, _ in module.named_parameters()
        }

    def clamp_steps(self) -> None:
        """Keep all learned steps above their least values, see `CascadeQuantizer.clamp_steps`."""
        for _, layer in self.layers():
            for part in (layer.inputs, layer.weights):
                if isinstance(part, LsqActivation | CascadeQuantizer):
                    part.clamp_steps()

    @contextmanager
    def same_weights(self) -> Iterator[None]:
        """Inside the block no weight changes: codes are computed once for all widths.

        To be entered once a training step; steps are held above their least values here, too.
        """
        self.clamp_steps()
        with ExitStack() as stack:
            for _, layer in self.layers():
                if isinstance(layer.weights, CascadeQuantizer):
                    stack.enter_context(layer.weights.same_codes())
            yield


def to_layered(
    model: nn.Module,
    widths: Sequence[int],
    *,
    weights: WeightRule | object = LAYERED,
    keep_float: Sequence[str] | None = None,
    norms: str = "own",
    activations: bool = True,
    count: str = "batch",
) -> LayeredNetwork:
    """A copy of a network with quantised layers and switchable BatchNorm.

    Args:
        model: any network of Conv1d/2d/3d and Linear layers; left as it is. The linear layers of
            nn.MultiheadAttention, which reads their weights itself, stay in float.
        widths: to be trained, such as (8, 6, 4, 2).
        weights: how; a `WeightRule`, or one of `smallnets.quantize.layered.baselines`.
        keep_float: names of layers that stay in float; by default the first and the last.
        norms: one BatchNorm a width ("own"), or one for all ("shared").
        activations: whether the layers' inputs are quantised, too.
        count: see `LsqActivation`.

    Raises:
        ValueError: an unknown name, no layer that could be quantised, a weight of zeros or one that
            is no plain parameter, or a layer with a forward pass of its own; one line names what
            was given.

    Warns if there is no BatchNorm to switch.
    """
    most = getattr(weights, "most", 16)
    chosen = check_widths(widths, most)
    checks.one_of("norms", norms, NORMS)
    checks.one_of("count", count, COUNTS)
    network = copy.deepcopy(model)
    names = [name for name, module in network.named_modules() if isinstance(module, LAYERS)]
    if keep_float is None:
        keep_float = (names[0], names[-1]) if len(names) > 2 else ()
    for name in keep_float:
        if name not in names:
            raise ValueError(f"keep_float must name layers among {', '.join(names)}; got {name!r}")
    attention = [n for n, m in network.named_modules() if isinstance(m, nn.MultiheadAttention)]
    quantised = [
        name
        for name in names
        if name not in keep_float and name.rpartition(".")[0] not in attention
    ]
    if not quantised:
        raise ValueError("the network has no convolution or linear layer left to quantise")
    for name in quantised:
        layer = network.get_submodule(name)
        check_plain(name, layer, kind=next(kind for kind in LAYERS if isinstance(layer, kind)))
        try:
            quantizer = weights.weights(layer.weight, chosen)  # type: ignore[union-attr]
        except ValueError as error:
            raise ValueError(f"layer {name}: {error}") from error
        inputs = weights.inputs(chosen, count) if activations else None  # type: ignore[union-attr]
        replace_module(network, name, QuantizedLayer(layer, quantizer, inputs))
    batch_norms = [n for n, m in network.named_modules() if isinstance(m, _BatchNorm)]
    if not batch_norms:
        warnings.warn("the network has no BatchNorm to switch with the width", stacklevel=2)
    if norms == "own":
        for name in batch_norms:
            replace_module(network, name, SwitchBatchNorm(network.get_submodule(name), chosen))
    layered = LayeredNetwork(network, chosen)
    layered.train(model.training)
    return layered
