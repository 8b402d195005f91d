"""Taking channels out: masks, a network that is really smaller, and what that saves.

Zeroing a gate leaves a network as large as it was. `remove` makes the smaller one, whose logits are
those of the masked one.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from smallnets import checks
from smallnets.measure import evaluating
from smallnets.models.hooks import uncompiled
from smallnets.prune.importance.gates import gated
from smallnets.prune.importance.groups import (
    ChannelGroup,
    group_sites,
    width_of,
)
from smallnets.prune.importance.tracing import WEIGHTED, dependency_graphs
from smallnets.surgery import check_plain, check_untied

Masks = Mapping[str, Tensor]  # name of a group -> (units,), 1 stays and 0 goes


def checked_masks(masks: Masks, groups: Mapping[str, ChannelGroup]) -> dict[str, Tensor]:
    """The masks as booleans.

    Raises:
        ValueError: an unknown group, a mask of another size, or one that keeps nothing.
    """
    for name, mask in masks.items():
        checks.one_of("group", name, groups)
        if mask.shape != (groups[name].size,):
            raise ValueError(
                f"mask of {name!r} must have shape ({groups[name].size},); got {tuple(mask.shape)}"
            )
        if not mask.bool().any():
            raise ValueError(f"mask of {name!r} must keep at least one channel; it keeps none")
    return {name: mask.bool() for name, mask in masks.items()}


def masks_keeping(
    keep: Mapping[str, Sequence[int]], groups: Mapping[str, ChannelGroup]
) -> dict[str, Tensor]:
    """Masks from lists of the units that stay.

    Raises:
        ValueError: an unknown group, an empty list, or a unit that is out of range or named twice.
    """
    masks = {}
    for name, units in keep.items():
        checks.one_of("group", name, groups)
        size = groups[name].size
        if not units:
            raise ValueError(f"{name!r} must keep at least one channel; got an empty list")
        for place, unit in enumerate(units):
            if not 0 <= unit < size or unit in units[:place]:
                raise ValueError(
                    f"channels of {name!r} must be different numbers from 0 to {size - 1}; "
                    f"got {unit}"
                )
        masks[name] = torch.zeros(size).index_fill(0, torch.tensor(list(units)), 1)
    return masks


@contextmanager
def masked(
    model: nn.Module, groups: Mapping[str, ChannelGroup], masks: Masks
) -> Iterator[nn.Module]:
    """The network with the channels of masks closed, inside the block."""
    values = {name: mask.float() for name, mask in checked_masks(masks, groups).items()}
    with gated(model, group_sites(groups), values):
        yield model


def remove(
    model: nn.Module,
    groups: Mapping[str, ChannelGroup],
    masks: Masks,
    example: Tensor,
    *,
    tolerance: float = 1e-3,
) -> nn.Module:
    """A smaller copy of a network, without the channels whose mask is zero.

    The copy is run once, and must say what the masked network says. Optimisers have to be made
    anew.

    Args:
        model: left as it is.
        groups: of this network, from `channel_groups`.
        masks: for some or all of the groups.
        example: (batch, ...) input for the trace and for the comparison.
        tolerance: how far logits may be from the masked network's, as a share of the largest.

    Raises:
        ValueError: masks that do not fit, layers whose weights are not plain parameters of
            their own, or channels whose removal does something else than zeroing them.
    """
    closed = checked_masks(masks, groups)
    changed = {
        member.module
        for name, mask in closed.items()
        if not mask.all()
        for member in groups[name].members
    }
    for name in sorted(changed):
        layer = model.get_submodule(name)
        if not isinstance(layer, _BatchNorm) or layer.affine:
            check_plain(name, layer)
    check_untied(model, sorted(changed))
    smaller = copy.deepcopy(model)
    modules = dict(smaller.named_modules())
    graphs = dependency_graphs(smaller, example)
    for name, mask in closed.items():
        gone = groups[name].channels((~mask).nonzero().flatten().tolist())
        if gone:
            root = modules[name]
            graph = next(one for one in graphs if root in one.module2node)
            pruner = graph.get_pruner_of_module(root)
            graph.get_pruning_group(root, pruner.prune_out_channels, gone).prune()
    for parameter in smaller.parameters():
        parameter.grad = None
    with evaluating(model), evaluating(smaller), torch.no_grad():
        with masked(model, groups, masks):
            expected = model(example)
        try:
            difference = (smaller(example) - expected).abs().max()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"what reads the removed channels must be known; {reason}") from None
    if not difference <= tolerance * expected.abs().max():
        raise ValueError(
            f"removing channels must be the same as zeroing them; logits differ by {difference:.2g}"
        )
    return smaller


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer as a cost.

    Attributes:
        macs, parameters: of its weights, as it is.
        out, into: group -> share of a unit in the layer's outputs and inputs.
    """

    macs: int
    parameters: int
    out: Mapping[str, float]
    into: Mapping[str, float]

    def left(self, kept: Mapping[str, float], sizes: Mapping[str, int]) -> float:
        """Share of the layer's weights that is left when groups keep so many units."""
        shares = 1.0
        for side in (self.out, self.into):
            shares *= 1 - sum(
                share * (sizes[g] - kept.get(g, sizes[g])) for g, share in side.items()
            )
        return shares


@dataclass(frozen=True)
class Costs:
    """Multiply-accumulates and parameters of a network as functions of what groups keep.

    Attributes:
        layers: convolutions and linear layers by name.
        vectors: group -> entries of biases and norms that go with one unit.
        fixed: parameters in biases, norms and elsewhere, of the whole network.
        sizes: units of each group.
        elsewhere: multiply-accumulates that no layer makes, such as products of attention.
    """

    layers: Mapping[str, Layer]
    vectors: Mapping[str, float]
    fixed: int
    sizes: Mapping[str, int]
    elsewhere: int = 0

    def macs(self, kept: Mapping[str, float] | None = None) -> int:
        """Of one example, with `kept` units in the groups named (others keep all)."""
        kept = kept or {}
        layers = sum(layer.macs * layer.left(kept, self.sizes) for layer in self.layers.values())
        return round(layers + self.elsewhere)

    def parameters(self, kept: Mapping[str, float] | None = None) -> int:
        """Of the network, with `kept` units in the groups named."""
        kept = kept or {}
        weights = sum(
            layer.parameters * layer.left(kept, self.sizes) for layer in self.layers.values()
        )
        gone = sum(
            count * (self.sizes[name] - kept.get(name, self.sizes[name]))
            for name, count in self.vectors.items()
        )
        return round(weights + self.fixed - gone)


def costs(model: nn.Module, groups: Mapping[str, ChannelGroup], example: Tensor) -> Costs:
    """What the layers of a network cost for one example, and on which groups it depends.

    Args:
        model: not changed; run once.
        groups: from `channel_groups`.
        example: (batch, ...) input of the size that counts.

    Raises:
        ValueError: a layer whose weight is no plain parameter.
    """
    work, elsewhere = _layer_macs(model, example)
    modules = dict(model.named_modules())
    for name in work:
        check_plain(name, modules[name])
    shares: dict[str, dict[str, dict[str, float]]] = {n: {"out": {}, "in": {}} for n in work}
    vectors = dict.fromkeys(groups, 0.0)
    for group in groups.values():
        for member in group.members:
            module = modules[member.module]
            if member.module in work:
                shares[member.module][member.side][group.name] = (
                    len(member.places) / group.size / member.width
                )
            per_channel = 0
            if isinstance(module, _BatchNorm):
                per_channel = 2 if module.affine else 0
            elif member.side == "out" and module.bias is not None:
                per_channel = 1
            vectors[group.name] += per_channel * len(member.places) / group.size
    layers = {
        name: Layer(macs, modules[name].weight.numel(), shares[name]["out"], shares[name]["in"])
        for name, macs in work.items()
    }
    everything = sum(parameter.numel() for parameter in model.parameters())
    fixed = everything - sum(layer.parameters for layer in layers.values())
    sizes = {name: group.size for name, group in groups.items()}
    return Costs(layers, vectors, fixed, sizes, elsewhere)


def _layer_macs(model: nn.Module, example: Tensor) -> tuple[dict[str, int], int]:
    """Multiply-accumulates of every convolution and linear layer for one example, and the rest."""
    found: dict[str, int] = {}
    handles, weighted = [], []
    for name, module in model.named_modules():
        if isinstance(module, WEIGHTED):
            weighted.append(name)

            def count(layer: nn.Module, _: object, output: Tensor, name: str = name) -> None:
                uses = output[0].numel() // width_of(layer, "out")
                found[name] = found.get(name, 0) + uses * layer.weight.numel()

            handles.append(module.register_forward_hook(count))
    counter = FlopCounterMode(display=False)  # counts a multiply-accumulate as two operations
    try:
        with evaluating(model), torch.no_grad(), uncompiled(model, weighted), counter:
            model(example[:1])
    finally:
        for handle in handles:
            handle.remove()
    return found, counter.get_total_flops() // 2 - sum(found.values())
