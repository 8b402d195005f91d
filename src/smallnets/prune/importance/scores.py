"""Scores of a network's channel groups by every criterion, each from what it needs and no more.

A group with several members (a residual stream) has one shared gate, whose derivative is the sum
over its places; scores of weights are summed over the group's filters.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.models.hooks import NOT_CALLED, uncompiled
from smallnets.prune.importance import criteria as formulas
from smallnets.prune.importance.derivatives import (
    Loss,
    checked,
    copies,
    finite,
    gate_curvatures,
    gate_gradients,
    gradients,
    losses_without,
    parameter_gradients,
    per_batch,
)
from smallnets.prune.importance.groups import ChannelGroup, Member, group_sites
from smallnets.surgery import check_plain

Scores = dict[str, Tensor]  # name of a group -> (units,)

OF_GATES = ("oracle", "Taylor SO", "Taylor FO", "OBD", "Taylor FG", "Taylor output")
OF_GRADIENTS = ("Taylor weights", "weights as a group", "Taylor scale")
OF_WEIGHTS = ("magnitude", "magnitude L1", "BN scale", "random")
CRITERIA = (*OF_GATES, *OF_GRADIENTS, *OF_WEIGHTS)


def scores(
    model: nn.Module,
    groups: Mapping[str, ChannelGroup],
    batches: Iterable[tuple[Tensor, Tensor]],
    names: Sequence[str] = ("Taylor FO",),
    *,
    loss: Loss = F.cross_entropy,
    generator: torch.Generator | None = None,
) -> dict[str, Scores]:
    """Criterion -> group -> (units,) scores; what several criteria share is computed once.

    Args:
        model: scored in the mode it is in.
        groups: from `channel_groups`.
        batches: minibatches (images, labels); scores are means over them.
        names: out of `CRITERIA`.
        loss: (logits, labels) -> mean over the batch.
        generator: of the scores "random"; a fresh one of seed 0 if not given.

    Raises:
        ValueError: an unknown criterion, no batches, a criterion that a group does not allow, or
            scores that are not finite.
    """
    for name in names:
        checks.one_of("criterion", name, CRITERIA)
    listed, sites = checked(batches), group_sites(groups)
    found: dict[str, Scores] = {}
    if {"Taylor FO", "Taylor SO", "Taylor FG"} & set(names):
        split = gate_gradients(model, sites, listed, loss)
        slopes = per_batch(split)
        found["Taylor FO"] = {g: formulas.taylor_fo(slopes[g]) for g in groups}
        found["Taylor FG"] = {
            g: torch.stack([formulas.taylor_fg(one[g][None]) for one in split]).mean(0)
            for g in groups
        }
    if {"OBD", "Taylor SO"} & set(names):
        bends = gate_curvatures(model, sites, listed, loss, chunk=copies(listed))
        found["OBD"] = {g: formulas.obd(bends[g]) for g in groups}
        if "Taylor SO" in names:
            found["Taylor SO"] = {g: formulas.taylor_so(slopes[g], bends[g]) for g in groups}
    if "oracle" in names:
        base, without = losses_without(model, sites, listed, loss, chunk=copies(listed))
        found["oracle"] = {g: formulas.oracle(base, without[g]) for g in groups}
    if "Taylor output" in names:
        found["Taylor output"] = _output_scores(model, groups, listed, loss)
    if set(OF_GRADIENTS) & set(names):
        found |= _gradient_scores(model, groups, listed, loss, names)
    for name in set(OF_WEIGHTS) & set(names):
        found[name] = weight_scores(model, groups, name, generator)
    return {
        name: {g: finite(f"scores of {name}", found[name][g]) for g in groups} for name in names
    }


def per_unit(values: Tensor, member: Member, size: int) -> Tensor:
    """Values of a module's channels (channels,), summed into the units of a group: (size,)."""
    units = torch.tensor(member.units, device=values.device)
    places = torch.tensor(member.places, device=values.device)
    return values.new_zeros(size).index_add(0, units, values[places])


def weight_scores(
    model: nn.Module,
    groups: Mapping[str, ChannelGroup],
    name: str,
    generator: torch.Generator | None = None,
) -> Scores:
    """Scores that need no data: "magnitude" (L2 squared), "magnitude L1", "BN scale" or "random".

    Raises:
        ValueError: another criterion, or "BN scale" for a group without BatchNorm.
    """
    checks.one_of("criterion", name, OF_WEIGHTS)
    generator = generator or torch.Generator().manual_seed(0)
    found = {}
    for group in groups.values():
        if name == "random":
            score = formulas.random_scores(group.size, generator)
        elif name == "BN scale":
            score = torch.stack(
                [
                    per_unit(formulas.bn_scale(_weight(model, norm)), norm, group.size)
                    for norm in _norms(group)
                ]
            ).sum(0)
        else:
            power = 1 if name.endswith("L1") else 2
            score = torch.stack(
                [
                    per_unit(formulas.magnitude(_weight(model, one), power), one, group.size)
                    for one in group.producers
                ]
            ).sum(0)
        found[group.name] = score
    return found


def gate_free_gradients(
    model: nn.Module,
    groups: Mapping[str, ChannelGroup],
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss = F.cross_entropy,
) -> dict[str, Tensor]:
    """Derivatives by the groups' gates without any gate: group -> (T, units).

    Behind a norm dE/dz = gamma dE/dgamma + beta dE/dbeta; behind a convolution or linear layer it
    is the sum over the filter of w dE/dw, plus b dE/db. Only those parameters' gradients are
    computed.

    Raises:
        ValueError: a norm without scale, or a layer whose weight is no plain parameter.
    """
    members = {g.name: g.norms or g.producers for g in groups.values()}
    for one in members.values():
        for member in one:
            check_plain(member.module, model.get_submodule(member.module))
    names = [
        f"{member.module}.{kind}"
        for one in members.values()
        for member in one
        for kind in ("weight", "bias")
        if getattr(model.get_submodule(member.module), kind, None) is not None
    ]
    parameters = {name: model.get_parameter(name).detach() for name in names}
    slopes: dict[str, list[Tensor]] = {name: [] for name in groups}
    for step in parameter_gradients(model, batches, loss, names):
        moved = {
            name: (parameters[name] * gradient).reshape(len(gradient), -1).sum(1)
            for name, gradient in step.items()
        }
        for name, group in groups.items():
            parts = [
                per_unit(moved[f"{member.module}.{kind}"], member, group.size)
                for member in members[name]
                for kind in ("weight", "bias")
                if f"{member.module}.{kind}" in moved
            ]
            slopes[name].append(sum_of(parts))
    return {name: torch.stack(steps) for name, steps in slopes.items()}


def sum_of(parts: Iterable[Tensor]) -> Tensor:
    """The sum of some tensors of one shape."""
    return torch.stack(list(parts)).sum(0)


def divide_by_sites(found: Scores, groups: Mapping[str, ChannelGroup]) -> Scores:
    """Scores divided by the number of places that a gate is shared by.

    The derivative of a shared gate is a sum over its places; undivided, a residual stream looks the
    more important the deeper the network is.
    """
    return {name: score / len(groups[name].sites) for name, score in found.items()}


def _weight(model: nn.Module, member: Member) -> Tensor:
    layer = model.get_submodule(member.module)
    check_plain(member.module, layer)
    return layer.weight.detach()  # type: ignore[operator, union-attr]


def _norms(group: ChannelGroup) -> tuple[Member, ...]:
    if not group.norms:
        raise ValueError(f"scores of a norm need groups with BatchNorm; {group.name!r} has none")
    return group.norms


def _gradient_scores(
    model: nn.Module,
    groups: Mapping[str, ChannelGroup],
    batches: Sequence,
    loss: Loss,
    names: Sequence[str],
) -> dict[str, Scores]:
    scaled = "Taylor scale" in names
    members = [m for g in groups.values() for m in (*g.producers, *(g.norms if scaled else ()))]
    weights = {f"{m.module}.weight": _weight(model, m) for m in members}
    steps = parameter_gradients(model, batches, loss, sorted(weights))
    found: dict[str, Scores] = {name: {} for name in OF_GRADIENTS if scaled or "weight" in name}
    for group in groups.values():
        squares, sums, scales = [], [], []
        for step in steps:
            pairs = [(m, *_pair(m, weights, step)) for m in group.producers]
            squares.append(
                sum_of(per_unit(formulas.taylor_weight(w, g), m, group.size) for m, w, g in pairs)
            )
            together = sum_of(
                per_unit((w * g).flatten(1).sum(1), m, group.size) for m, w, g in pairs
            )
            sums.append(together.square())
            if scaled and group.norms:
                behind = [(m, *_pair(m, weights, step)) for m in group.norms]
                scale = sum_of(per_unit(w * g, m, group.size) for m, w, g in behind)
                scales.append(scale.square())
        found["Taylor weights"][group.name] = torch.stack(squares).mean(0)
        found["weights as a group"][group.name] = torch.stack(sums).mean(0)
        if scaled:
            found["Taylor scale"][group.name] = (
                torch.stack(scales).mean(0) if scales else torch.zeros(group.size)
            )
    return found


def _pair(
    member: Member, weights: Mapping[str, Tensor], step: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    name = f"{member.module}.weight"
    return weights[name], step[name]


def _output_scores(
    model: nn.Module, groups: Mapping[str, ChannelGroup], batches: Sequence, loss: Loss
) -> Scores:
    for group in groups.values():
        if len(group.sites) > 1:
            raise ValueError(
                f"Taylor output needs groups with one place; {group.name!r} has {len(group.sites)}"
            )
    found: dict[str, list[Tensor]] = {name: [] for name in groups}
    for images, labels in batches:
        maps: dict[str, Tensor] = {}
        places = [group.sites[0].module for group in groups.values()]
        with ExitStack() as stack, torch.enable_grad(), uncompiled(model, places):
            for name, group in groups.items():
                module = model.get_submodule(group.sites[0].module)
                handle = module.register_forward_hook(partial(_keep_map, maps, name))
                stack.callback(handle.remove)
            value = finite("loss", loss(model(images), labels))
        for name in groups:
            if name not in maps:
                raise ValueError(f"{name!r} {NOT_CALLED}")
        for (name, seen), slope in zip(maps.items(), gradients(value, maps), strict=True):
            member = (groups[name].norms or groups[name].producers)[0]
            score = formulas.taylor_output(seen.detach(), slope)
            found[name].append(per_unit(score, member, groups[name].size))
    return {name: torch.stack(steps).mean(0) for name, steps in found.items()}


def _keep_map(
    maps: dict[str, Tensor], name: str, _: nn.Module, __: object, output: Tensor
) -> Tensor:
    if name in maps:
        raise ValueError(f"Taylor output needs layers that run once in a pass; {name!r} ran again")
    maps[name] = output
    return output.clone()  # what follows may work in place
