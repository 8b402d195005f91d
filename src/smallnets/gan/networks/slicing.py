"""Slices of ordinary layers: the weights that some of their channels need, and what is left."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from smallnets.gan.networks.grouping import (
    NORMS,
    WEIGHTED,
    WidthGroup,
    is_depthwise,
    sides_of,
)

# The first channels of a side, or others where inputs are concatenated.
Kept: TypeAlias = slice | Tensor
# A number of a configuration, channels of a side that follow it, and their units.
Reading = tuple[int, Tensor, Tensor]
SIDES = ("out", "in")


def counts_of(module: nn.Module) -> tuple[str, ...]:
    """Names of the attributes in which a layer keeps its numbers of channels."""
    if isinstance(module, _ConvNd):
        return ("in_channels", "out_channels", "groups")
    return ("in_features", "out_features") if isinstance(module, nn.Linear) else ("num_features",)


def resize(module: nn.Module, out: int, into: int) -> None:
    """Tell a layer other numbers of channels; its weights stay as they are."""
    if is_depthwise(module):
        values = (out, out, out)
    elif isinstance(module, _ConvNd):
        values = (into, out, module.groups)
    elif isinstance(module, nn.Linear):
        values = (into, out)  # type: ignore[assignment]
    else:
        values = (out,)  # type: ignore[assignment]
    module.__dict__.update(zip(counts_of(module), values, strict=True))


def kept_of(size: int, readings: Sequence[Reading], config: Sequence[int]) -> Kept:
    """Which channels of a side, of `size` in all, are kept at a configuration."""
    if not readings:
        return slice(0, size)
    mask = torch.ones(size, dtype=torch.bool)
    for gene, places, units in readings:
        mask[places] &= units < config[gene]
    number = int(mask.sum())
    return slice(0, number) if bool(mask[:number].all()) else mask.nonzero().flatten()


def number_of(kept: Kept) -> int:
    """How many channels are kept."""
    return int(kept.stop) if isinstance(kept, slice) else len(kept)


def share_left(module: nn.Module, out: int, into: int) -> tuple[int, int]:
    """What is left of a layer's work, as a fraction."""
    full_out, full_in = sides_of(module)
    if isinstance(module, NORMS) or is_depthwise(module):
        return out, full_out
    return out * into, full_out * full_in


def parameters_left(module: nn.Module, out: int, into: int) -> int:
    """Parameters of a layer with other numbers of channels."""
    part, whole = share_left(module, out, into)
    full = sides_of(module)[0]
    return sum(
        value.numel() * part // whole if value.dim() > 1 else value.numel() * out // full
        for value in module.parameters(recurse=False)
    )


Parts = dict[str, Tensor | None]


def slices_of(module: nn.Module, out: Kept, into: Kept) -> tuple[Parts, Parts]:
    """A layer's parameters and its buffers at some output and input channels."""
    parameters: Parts = {
        part: None if value is None else sliced(module, part, value, out, into)
        for part, value in module._parameters.items()
    }
    buffers: Parts = {
        part: value if value is None or not value.dim() else sliced(module, part, value, out, into)
        for part, value in module._buffers.items()
    }
    return parameters, buffers


def sliced(module: nn.Module, part: str, value: Tensor, out: Kept, into: Kept) -> Tensor:
    """A layer's parameter or buffer at some output and input channels."""
    out, into = (k if isinstance(k, slice) else k.to(value.device) for k in (out, into))
    if part != "weight" or isinstance(module, NORMS) or is_depthwise(module):
        return value[out]
    first, second = (into, out) if isinstance(module, _ConvTransposeNd) else (out, into)
    if isinstance(first, slice) and isinstance(second, slice):
        return value[first, second]
    return value[first][:, second]


@torch.no_grad()
def keep_statistics(full: Parts, narrow: Parts, kept: Kept) -> None:
    """Running statistics of channels that are no slice were updated in a copy: put them back."""
    for part, value in full.items():
        updated = narrow[part]
        if isinstance(kept, Tensor) and value is not None and updated is not None and value.dim():
            value[kept.to(value.device)] = updated


@torch.no_grad()
def sort_by_l1(network: nn.Module, group: WidthGroup) -> None:
    """Put a group's channels in the order of the L1 norms of the weights that write them."""
    modules = dict(network.named_modules())
    scores = torch.zeros(group.size, dtype=torch.float64)
    for member in group.members:
        module = modules[member.layer]
        if member.side == "out" and isinstance(module, WEIGHTED) and not is_depthwise(module):
            axis = 1 if isinstance(module, _ConvTransposeNd) else 0
            weight = module.weight.transpose(0, axis).flatten(1).abs().sum(1).double().cpu()
            scores.index_add_(0, torch.tensor(member.units), weight[list(member.places)])
    order = scores.argsort(descending=True, stable=True).tolist()
    for member in group.members:
        module = modules[member.layer]
        of_unit: dict[int, list[int]] = {}
        for place, unit in zip(member.places, member.units, strict=True):
            of_unit.setdefault(unit, []).append(place)
        side = sides_of(module)[0 if member.side == "out" else 1]
        new = list(range(side))
        for unit, source in enumerate(order):
            for place, old in zip(of_unit.get(unit, []), of_unit.get(source, []), strict=True):
                new[place] = old
        for part, value in [*module._parameters.items(), *module._buffers.items()]:
            if value is None or not value.dim():
                continue
            index = torch.tensor(new, device=value.device)
            both: list[Kept] = [slice(None), slice(None)]
            both[0 if member.side == "out" else 1] = index
            if member.side == "out" or part == "weight":
                value.copy_(sliced(module, part, value, *both).clone())
