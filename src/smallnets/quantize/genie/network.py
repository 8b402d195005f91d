"""A quantised network: which widths go where, one quantiser for each tensor, and the whole of it.

Any network that torch.fx can trace is taken apart into steps. Every convolution and linear layer
gets a weight quantiser, every tensor that layers read gets one activation quantiser, however many
layers read it, and identity shortcuts read through the same quantiser as the layer beside them.
"""

import copy
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from smallnets import checks
from smallnets.batches import Batches, Source
from smallnets.quantize.genie.quantizers import (
    MODES,
    ActivationQuantizer,
    QuantizedLayer,
    WeightQuantizer,
    check_bits,
    quantizers_in,
)
from smallnets.quantize.genie.synthesis import frozen_copy
from smallnets.quantize.genie.units import (
    Unit,
    check_trace,
    compiled,
    find_units,
    layer_nodes,
    traced,
)
from smallnets.surgery import check_plain, replace_module

QUANTIZERS = "activation_quantizers"
ADDITIONS = (operator.add, operator.iadd, torch.add)


@dataclass(frozen=True)
class BitPolicy:
    """Which tensors keep more bits than the rest. None is as many bits as all others have.

    Attributes:
        first: of the first layer's weights. Its input, the images, has 8 bits anyway and is not
            quantised unless `images` says so.
        second_input: of the second layer's input (BRECQ's convention).
        last: of the last layer's weights and input.
        images: of the network's input; None leaves it as it is.
        additions: of both operands of every addition; None quantises identity shortcuts alone, with
            the quantiser of the layer beside them. Integer hardware needs it.

    Raises:
        ValueError: bits that are not from 2 to 16.
    """

    first: int | None = 8
    second_input: int | None = 8
    last: int | None = 8
    images: int | None = None
    additions: int | None = None

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in ("first", "second_input", "last", "images", "additions"):
            if getattr(self, name) is not None:
                check_bits(name, getattr(self, name))


@dataclass(frozen=True)
class Allocated:
    """One layer's widths: its name, bits of its weights and of its input (None: not quantised),
    and the name of the quantiser that its input goes through.
    """

    layer: str
    weight_bits: int
    input_bits: int | None
    quantizer: str | None


class QuantizedNetwork(nn.Module):
    """A network whose weights and activations are quantised; made by `quantize`.

    Attributes:
        root: holds the quantised layers and the activation quantisers.
        original: the network in floating point as it was traced, frozen.
        table: the widths of every layer.
    """

    def __init__(
        self,
        root: nn.Module,
        original: fx.GraphModule,
        sites: dict[fx.Node, dict[fx.Node, str]],
        table: tuple[Allocated, ...],
    ) -> None:
        super().__init__()
        self.root = root
        self.table = table
        self._plain = (original, sites)  # out of sight: not part of the state
        self._untraced: list[nn.Module] = []  # until it has been compared with its trace
        (entry,) = (n for n in original.graph.nodes if n.op == "placeholder" and n.users)
        (last,) = (n.args[0] for n in original.graph.nodes if n.op == "output")
        self.entry, self.last = entry, last
        self._whole = [self.rebuilt(root)]
        self.eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> "QuantizedNetwork":
        original, sites = self._plain  # never changed, so shared
        copied = QuantizedNetwork(copy.deepcopy(self.root, memo), original, sites, self.table)
        copied._untraced = list(self._untraced)
        return copied

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "QuantizedNetwork":
        """Device and type, of the original too: of one of its own, since copies share it."""
        super()._apply(fn, recurse)
        original, sites = self._plain
        own = fx.GraphModule(copy.deepcopy(original), original.graph)  # the steps stay the same
        own.meta = original.meta
        self._plain = (own._apply(fn), sites)  # type: ignore[assignment]
        self._untraced = [copy.deepcopy(one)._apply(fn) for one in self._untraced]
        self._whole = [self.rebuilt(self.root)]
        return self

    def rebuilt(self, root: nn.Module) -> fx.GraphModule:
        """The whole network over other modules of the same names; it returns a tuple of one."""
        original, sites = self._plain
        steps = ("placeholder", "output", "get_attr")
        nodes = [node for node in original.graph.nodes if node.op not in steps]
        return compiled(root, nodes, (self.entry,), (self.last,), sites)

    @property
    def original(self) -> fx.GraphModule:
        """The network in floating point, frozen."""
        return self._plain[0]

    @property
    def activations(self) -> list[ActivationQuantizer]:
        """Activation quantisers, one for each tensor that is quantised."""
        return quantizers_in(self.root)[1]

    @property
    def weights(self) -> dict[str, WeightQuantizer]:
        """Weight quantisers by the name of their layer."""
        return {
            name: module.weights
            for name, module in self.root.named_modules()
            if isinstance(module, QuantizedLayer)
        }

    def units(self, kind: str = "block") -> list[Unit]:
        """The parts that can be reconstructed, see `find_units`."""
        return find_units(self.original, kind)

    def pair(self, unit: Unit) -> tuple[fx.GraphModule, fx.GraphModule]:
        """A unit of the original and of the quantised network.

        Both take the unit's entries and return its exits and then its target.
        """
        original, sites = self._plain
        results = (*unit.exits, unit.target)
        return (
            compiled(original, unit.nodes, unit.entries, results),
            compiled(self.root, unit.nodes, unit.entries, results, sites),
        )

    def check_trace(self, images: Tensor) -> None:
        """Compare the trace with the network that it was made from, on the first images that come.

        Raises:
            ValueError: they differ.
        """
        for network in self._untraced:
            check_trace(network, self.original, images)
        self._untraced.clear()

    def forward(self, x: Tensor) -> Tensor:
        """As the network's: images to logits."""
        self.check_trace(x)
        return self._whole[0](x)[0]


def quantize(
    model: nn.Module,
    weight_bits: int,
    activation_bits: int,
    *,
    mode: str = "genie",
    policy: BitPolicy = BitPolicy(),
    fold: bool = False,
    symmetric: bool = False,
    zero_in_range: bool = False,
    gradient: str = "plain",
    power: float = 2.4,
    ratios: int = 100,
    sample: int | None = None,
) -> QuantizedNetwork:
    """A quantised copy of a network, with the steps of activations still to be found.

    Run `calibrate` or `reconstruct` on it next.

    Args:
        model: in evaluation mode; not changed.
        weight_bits, activation_bits: where the policy says nothing else; 2 to 16.
        mode: of the weights, see `smallnets.quantize.genie.quantizers`.
        policy: widths of the first, second and last layer, of images and additions.
        fold: put BatchNorm into the weights before them first. The official code does not.
        symmetric, zero_in_range: of the weights, see `WeightQuantizer`.
        gradient, sample: of the activations, see `ActivationQuantizer`.
        power, ratios: of the search for all grids.

    Raises:
        ValueError: bits out of range, a network in training mode, one that cannot be traced or has
            nothing to quantise, a rule for the second layer of a network of one.
    """
    check_bits("weight_bits", weight_bits)
    check_bits("activation_bits", activation_bits)
    checks.one_of("mode", mode, MODES)
    if any(module.training for module in model.modules()):
        raise ValueError("the network must be in evaluation mode; call eval() first")
    original = traced(model, fold)
    layers = layer_nodes(original)
    for node in layers:
        check_plain(str(node.target), original.get_submodule(str(node.target)))
    if len(layers) < 2 and policy.second_input is not None:
        raise ValueError(
            "second_input must be None for a network with a single layer; "
            f"got {policy.second_input!r}"
        )
    sites, widths, read = _sites(original, layers, activation_bits, policy)
    root = frozen_copy(original)
    table = []
    for i, node in enumerate(layers):
        bits = weight_bits
        if i == 0 and policy.first is not None:
            bits = policy.first
        if i == len(layers) - 1 and policy.last is not None:
            bits = policy.last
        name = str(node.target)
        layer = root.get_submodule(name)
        if not isinstance(layer, QuantizedLayer):
            make = partial(WeightQuantizer, layer.weight, bits, mode, power=power, ratios=ratios)
            weights = _named(name, partial(make, symmetric=symmetric, zero_in_range=zero_in_range))
            replace_module(root, name, QuantizedLayer(layer, weights))
        quantizer = read.get(node)
        table.append(Allocated(name, bits, widths.get(quantizer or ""), quantizer))
    like = next(root.parameters())
    options = {"gradient": gradient, "power": power, "ratios": ratios, "sample": sample}
    modules = {
        key: ActivationQuantizer(bits, **options).to(like)  # type: ignore[arg-type]
        for key, bits in widths.items()
    }
    root.add_module(QUANTIZERS, nn.ModuleDict(modules))
    paths = {
        reader: {source: f"{QUANTIZERS}.{key}" for source, key in found.items()}
        for reader, found in sites.items()
    }
    quantized = QuantizedNetwork(root, original, paths, tuple(table))
    quantized._untraced.append(frozen_copy(model))
    return quantized


def _named(name: str, make: Callable[[], WeightQuantizer]) -> WeightQuantizer:
    """Warnings of the search, with the layer's name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = make()
    for one in caught:
        warnings.warn(f"{name}: {one.message}", stacklevel=3)
    return made


def _sites(
    graph: fx.GraphModule, layers: list[fx.Node], bits: int, policy: BitPolicy
) -> tuple[dict[fx.Node, dict[fx.Node, str]], dict[str, int], dict[fx.Node, str]]:
    """Where tensors are quantised as they are read, how wide, and by which quantiser each layer
    reads.
    """
    modules = dict(graph.named_modules())

    def real(node: fx.Node) -> fx.Node:
        """The tensor itself, behind modules that pass it on."""
        while node.op == "call_module" and isinstance(
            modules[str(node.target)], nn.Identity | nn.Dropout | nn.Dropout2d
        ):
            node = node.args[0]  # type: ignore[assignment]
        return node

    sites: dict[fx.Node, dict[fx.Node, str]] = {}
    widths: dict[str, int] = {}
    keys: dict[fx.Node, str] = {}
    read: dict[fx.Node, str] = {}

    def quantised(reader: fx.Node, source: fx.Node, wide: int) -> str:
        name = real(source).name
        key = keys.setdefault(real(source), f"{name}_" if hasattr(nn.ModuleDict, name) else name)
        widths[key] = max(wide, widths.get(key, 0))
        sites.setdefault(reader, {})[source] = key
        return key

    raw = real(layers[0].args[0])  # type: ignore[arg-type]
    for i, node in enumerate(layers):
        source = node.args[0]
        if not isinstance(source, fx.Node):
            raise ValueError(f"layer {node.target} must take its input as its first argument")
        wide = bits
        if i == 1 and policy.second_input is not None:
            wide = policy.second_input
        if i == len(layers) - 1 and i > 0 and policy.last is not None:
            wide = policy.last
        if real(source) is raw:
            if policy.images is None:
                continue
            wide = policy.images
        read[node] = quantised(node, source, wide)
    for node in graph.graph.nodes:
        if not _adds(node):
            continue
        for source in node.all_input_nodes:
            known = real(source) in keys
            if known or policy.additions is not None:
                quantised(node, source, 0 if known else int(policy.additions or bits))
    return sites, widths, read


def _adds(node: fx.Node) -> bool:
    called = node.op == "call_function" and node.target in ADDITIONS
    return (called or (node.op == "call_method" and node.target in ("add", "add_"))) and len(
        [arg for arg in node.args if isinstance(arg, fx.Node)]
    ) == 2


def calibrate(network: QuantizedNetwork, images: Tensor | Batches | Source) -> QuantizedNetwork:
    """Find the steps of all activations that have none yet on a batch of images, and return the
    network.

    With mode "nearest" that is all there is to do: round to nearest.

    Args:
        network: made by `quantize`.
        images: one batch, as the network takes it; or batches of your own, with or without labels,
            of which the first is taken.

    Raises:
        ValueError: images that the network does not take, or that are not finite; or a network
            whose trace gives something else than itself.
    """
    images = taken(network, images)
    check_images(network, images)
    with torch.no_grad():
        network(images)
    return network


def taken(
    network: QuantizedNetwork, images: Tensor | Batches | Source, count: int | None = None
) -> Tensor:
    """A tensor as it is; of batches the inputs of the first `count` examples, or the first batch.

    Raises:
        ValueError: it is neither a tensor nor batches of tensors.
    """
    if isinstance(images, Tensor):
        return images
    batches = images if isinstance(images, Batches) else Batches(images)
    batches = batches.without_labels().on(network.original)
    return batches.first()[0] if count is None else batches.take(count)


def check_images(network: QuantizedNetwork, images: Any, batch_size: int = 1) -> None:
    """Raise ValueError unless `images` is a float batch (n, ...) that suits."""
    like = next(network.original.parameters())
    first = network.original.get_submodule(network.table[0].layer)
    of_images = isinstance(first, nn.Conv2d)
    suits = isinstance(images, Tensor) and (images.dim() == 4 if of_images else images.dim() > 1)
    if not suits or not images.is_floating_point():
        given = (
            f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images)
        )
        raise ValueError(
            "calibration images must be a float tensor (n, channels, height, width), normalised as "
            f"the network takes them, or (n, ...) of a network of other inputs; got {given}"
        )
    if of_images and images.shape[1] != first.in_channels:
        raise ValueError(
            f"calibration images must have {first.in_channels} channels; got {images.shape[1]}"
        )
    if images.dtype != like.dtype:
        raise ValueError(f"calibration images must be {like.dtype}; got {images.dtype}")
    if not bool(images.isfinite().all()):
        raise ValueError("calibration images must be finite; got some that are not")
    if len(images) < batch_size:
        raise ValueError(
            f"calibration needs at least one batch of {batch_size} images; got {len(images)}"
        )
    network.check_trace(images)
