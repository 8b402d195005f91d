"""Slices of ordinary layers: the weights that some of their channels need, and what is left."""

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


def all_open(module: nn.Module) -> dict[str, Tensor]:
    """Masks of both sides that keep every channel."""
    out, into = sides_of(module)
    return {
        "out": torch.ones(out, dtype=torch.bool),
        "in": torch.ones(into, dtype=torch.bool),
    }


def kept_of(mask: Tensor) -> Kept:
    """A mask as a slice, if it keeps the first channels, or else as channel numbers."""
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


def sliced(module: nn.Module, part: str, value: Tensor, out: Kept, into: Kept) -> Tensor:
    """A layer's parameter or buffer at some output and input channels."""
    out, into = (k if isinstance(k, slice) else k.to(value.device) for k in (out, into))
    if part != "weight" or isinstance(module, NORMS) or is_depthwise(module):
        return value[out]
    if isinstance(module, _ConvTransposeNd):
        return value[into][:, out]
    return value[out][:, into]


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
