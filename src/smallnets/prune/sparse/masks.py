"""Masks on single weights: which stay, and a network in which the others are zero.

The convention is that of `torch.nn.utils.prune`: a mask has the shape of its weight, 1 stays and 0
goes, and of n weights the round(amount n) smallest go.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from smallnets import checks
from smallnets.surgery import check_plain

SCOPES = ("layer", "global")
Masks = Mapping[str, Tensor]  # name of a weight -> its shape, 1 stays and 0 goes


def prunable_weights(
    network: nn.Module, layers: Sequence[str] | None = None
) -> dict[str, nn.Parameter]:
    """The weights that are pruned by default: those of convolutions and linear layers, by name.

    Args:
        network: any network; a weight that layers share is named once, by the first of them.
        layers: dotted names of the only layers that count; None is all.

    Raises:
        ValueError: an unknown layer, one of another type, one whose weight is not a plain
            parameter, or no layer at all.
    """
    modules = dict(network.named_modules())
    if isinstance(layers, str):
        raise ValueError(f"layers must be a list of names; got {layers!r}")
    layers = None if layers is None else tuple(layers)
    for name in layers or ():
        checks.one_of("layer", name, modules)
        if not isinstance(modules[name], _ConvNd | nn.Linear):
            raise ValueError(
                f"layer {name!r} must be a convolution or linear layer; "
                f"got {type(modules[name]).__name__}"
            )
    found: dict[str, nn.Parameter] = {}
    for name, module in modules.items():
        if isinstance(module, _ConvNd | nn.Linear) and (layers is None or name in layers):
            check_plain(name, module)
            if all(module.weight is not one for one in found.values()):
                found[f"{name}.weight".lstrip(".")] = module.weight
    if not found:
        raise ValueError(
            f"the network must have convolutions or linear layers to prune; "
            f"{type(network).__name__} has none"
        )
    return found


def keep_largest(
    scores: Mapping[str, Tensor],
    amount: float,
    scope: str = "layer",
    *,
    masks: Masks | None = None,
    least: int = 1,
) -> dict[str, Tensor]:
    """Masks that close the entries of the smallest scores.

    Args:
        scores: name -> scores of any shape.
        amount: share of all entries that are closed afterwards, in [0, 1]; of n entries these are
            round(amount n), half to even, as in PyTorch.
        scope: "layer" closes that share of every tensor, "global" of all together.
        masks: what is closed already. It stays so, and counts.
        least: entries that every tensor keeps, its largest: those of others go instead.

    Returns:
        Name -> mask of the shape of the scores. Of equal scores the first go.

    Raises:
        ValueError: an amount outside [0, 1] or that leaves a tensor less than `least`, an unknown
            scope, no scores, scores that are not finite, or masks of other names and shapes.
    """
    checks.between("amount", amount, 0, 1)
    checks.one_of("scope", scope, SCOPES)
    checks.whole("least", least, 0)
    if not scores:
        raise ValueError("scores must be of at least one tensor; got none")
    flat = {name: _ranks(name, score, masks, least) for name, score in scores.items()}
    parts = [[name] for name in flat] if scope == "layer" else [list(flat)]
    for names in parts:
        ranked = torch.cat([flat[name] for name in names])
        gone = round(amount * len(ranked))
        spare = int((ranked < torch.inf).sum())
        if gone > spare:
            where = f"{names[0]!r}" if scope == "layer" else "all tensors together"
            raise ValueError(
                f"amount must be at most {spare / len(ranked):.4g}, which leaves {least} in every "
                f"tensor, for {where}; got {amount}"
            )
        open_ = (ranked > -torch.inf).to(ranked.dtype)
        open_[ranked.argsort(stable=True)[:gone]] = 0
        flat |= dict(zip(names, open_.split([len(flat[name]) for name in names]), strict=True))
    return {name: flat[name].view(score.shape) for name, score in scores.items()}


def _ranks(name: str, score: Tensor, masks: Masks | None, least: int) -> Tensor:
    """Scores in one row: what is closed comes first, and what has to stay last."""
    if not score.isfinite().all():
        raise ValueError(f"scores of {name!r} must be finite; got some that are not")
    ranks = score.detach().flatten().to(torch.promote_types(score.dtype, torch.float32), copy=True)
    if masks is not None:
        mask = _fitting(name, score, masks)
        ranks[mask.flatten() == 0] = -torch.inf
    if least:
        largest = ranks.argsort(stable=True)[-least:]
        ranks[largest[ranks[largest] > -torch.inf]] = torch.inf
    return ranks


def _fitting(name: str, like: Tensor, masks: Masks) -> Tensor:
    checks.one_of("mask", name, masks)
    if masks[name].shape != like.shape:
        raise ValueError(
            f"mask of {name!r} must have shape {tuple(like.shape)}; got {tuple(masks[name].shape)}"
        )
    return masks[name].to(like.device)


def magnitude_masks(
    network: nn.Module,
    amount: float,
    scope: str = "layer",
    *,
    layers: Sequence[str] | None = None,
    masks: Masks | None = None,
    least: int = 1,
) -> dict[str, Tensor]:
    """Masks that close the smallest weights (Han et al., 2015).

    Args:
        network: whose weights are looked at, see `prunable_weights`, also for `layers`; or a
            `Masked` one, whose own masks are then `masks`.
        amount, scope, masks, least: as in `keep_largest`.
    """
    if isinstance(network, Masked):
        masks, network = masks or network.masks, network.network
    sizes = {name: w.detach().abs() for name, w in prunable_weights(network, layers).items()}
    return keep_largest(sizes, amount, scope, masks=masks, least=least)


def shuffled_masks(masks: Masks, generator: torch.Generator) -> dict[str, Tensor]:
    """Masks that close as many weights of every layer, at random: a control for any criterion."""
    return {
        name: mask.flatten()[
            torch.randperm(mask.numel(), generator=generator).to(mask.device)
        ].view(mask.shape)
        for name, mask in masks.items()
    }


def with_open(mask: Tensor, place: Tensor) -> Tensor:
    """A mask with one entry more open, the one at a place as `argmax` counts them."""
    alone = torch.zeros(mask.numel(), dtype=mask.dtype, device=mask.device)
    alone[place] = 1
    return torch.maximum(mask, alone.view(mask.shape))


def density(masks: Masks) -> float:
    """Share of the masked weights that stays.

    Raises:
        ValueError: no masks.
    """
    if not masks:
        raise ValueError("masks must be of at least one weight; got none")
    there = sum(int(mask.count_nonzero()) for mask in masks.values())
    return there / sum(mask.numel() for mask in masks.values())


class Masked(nn.Module):
    """A network that sees its weights through masks.

    Every pass multiplies the weights by their masks, so neither momentum nor weight decay brings
    one back, whatever optimiser moves the parameters; closed weights get no gradient. Masks are
    buffers: checkpoints carry them.

    Args:
        network: trained in place; its own parameters may differ from zero where a mask is.
        masks: of some or all of its weights, such as `magnitude_masks` gives.
        dense_gradients: let closed weights learn what they would if they were there
            (straight-through), so that they may come back.

    Raises:
        ValueError: an unknown weight, a mask of another shape or with other entries than 0 and 1,
            or one that keeps no weight.
    """

    steps: Tensor

    def __init__(self, network: nn.Module, masks: Masks, *, dense_gradients: bool = False) -> None:
        super().__init__()
        if not masks:
            raise ValueError("masks must be of at least one weight; got none")
        weights = dict(network.named_parameters())
        self.network, self.names, self.dense_gradients = network, tuple(masks), dense_gradients
        for place, name in enumerate(self.names):
            checks.one_of("masked weight", name, weights)
            self.register_buffer(f"mask_{place}", torch.ones_like(weights[name].detach()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # of a schedule
        self.set_masks(masks)

    @property
    def masks(self) -> dict[str, Tensor]:
        """Name of a weight -> its mask."""
        return {name: self.get_buffer(f"mask_{n}") for n, name in enumerate(self.names)}

    @property
    def weights(self) -> dict[str, Tensor]:
        """Name of a weight -> its numbers, as they are without mask."""
        every = dict(self.network.named_parameters())
        return {name: every[name].detach() for name in self.names}

    @property
    def closed(self) -> Tensor:
        """Share of the masked weights that is closed, a scalar."""
        masks = list(self.masks.values())
        there = torch.stack([mask.count_nonzero() for mask in masks]).sum()
        return 1 - there / sum(mask.numel() for mask in masks)

    def set_masks(self, masks: Masks) -> None:
        """Put other masks in the place of some.

        Raises:
            ValueError: as the constructor.
        """
        own = self.masks
        for name, mask in masks.items():
            checks.one_of("masked weight", name, own)
            mask = _fitting(name, own[name], masks)
            if not bool(((mask == 0) | (mask == 1)).all()):
                raise ValueError(f"mask of {name!r} must hold zeros and ones; got other numbers")
            if not mask.any():
                raise ValueError(f"mask of {name!r} must keep at least one weight; it keeps none")
            own[name].copy_(mask)

    def forward(self, *inputs: Any) -> Any:
        """What the network says with its masked weights."""
        weights = dict(self.network.named_parameters())
        seen = {}
        for name, mask in self.masks.items():
            weight = weights[name]
            if self.dense_gradients:
                seen[name] = weight + (weight * mask - weight).detach()
            else:
                seen[name] = weight * mask
        return functional_call(self.network, seen, inputs)

    @torch.no_grad()
    def plain(self) -> nn.Module:
        """A copy of the network itself, without masks, whose closed weights are zero."""
        network = copy.deepcopy(self.network)
        weights = dict(network.named_parameters())
        for name, mask in self.masks.items():
            weights[name].mul_(mask)
        return network

    @classmethod
    def of_zeros(cls, network: nn.Module, layers: Sequence[str] | None = None) -> Self:
        """A network whose zero weights stay zero, such as `plain` gave."""
        weights = prunable_weights(network, layers)
        return cls(network, {name: (w.detach() != 0).to(w.dtype) for name, w in weights.items()})
