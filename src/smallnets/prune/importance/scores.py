"""Scores of a network's channel groups by every criterion, each from what it needs and no more.

A group with several members (a residual stream) has one shared gate, whose derivative is the sum
over its places; scores of weights are summed over the group's filters.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvTransposeNd

from smallnets import checks
from smallnets.batches import Batches
from smallnets.models.hooks import NOT_CALLED, uncompiled
from smallnets.prune.importance import criteria as formulas
from smallnets.prune.importance.derivatives import (
    Data,
    Loss,
    copies,
    finite,
    gate_curvatures,
    gate_gradients,
    gradients,
    losses_without,
    paired,
    parameter_gradients,
    per_batch,
)
from smallnets.prune.importance.gates import open_gates
from smallnets.prune.importance.groups import ChannelGroup, Member, group_sites
from smallnets.surgery import check_plain

Scores = dict[str, Tensor]  # name of a group -> (units,)

OF_GATES = ("oracle", "Taylor SO", "Taylor FO", "OBD", "Taylor FG", "Taylor output")
GATED = {"oracle", "Taylor SO", "Taylor FO", "OBD", "Taylor FG"}  # by gates of one
OF_GRADIENTS = ("Taylor weights", "weights as a group", "Taylor scale")
OF_WEIGHTS = ("magnitude", "magnitude L1", "BN scale", "random")
CRITERIA = (*OF_GATES, *OF_GRADIENTS, *OF_WEIGHTS)


def scores(
    model: nn.Module,
    groups: Mapping[str, ChannelGroup],
    batches: Data,
    names: Sequence[str] = ("Taylor FO",),
    *,
    loss: Loss = F.cross_entropy,
    generator: torch.Generator | None = None,
) -> dict[str, Scores]:
    """Criterion -> group -> (units,) scores; what several criteria share is computed once.

    Args:
        model: scored in the mode it is in.
        groups: from `channel_groups`.
        batches: minibatches (inputs, labels), as of a DataLoader; scores are means over them. They
            are read once, one at a time, and not at all by criteria of the weights alone.
        names: out of `CRITERIA`.
        loss: (logits, labels) -> mean over the batch.
        generator: of the scores "random"; a fresh one of seed 0 if not given.

    Raises:
        ValueError: an unknown criterion, no batches, a criterion that a group does not allow, or
            scores that are not finite.
    """
    for name in names:
        checks.one_of("criterion", name, CRITERIA)
    found: dict[str, Scores] = {}
    if set(names) - set(OF_WEIGHTS):
        found |= _data_scores(model, groups, paired(model, batches), set(names), loss)
    for name in set(OF_WEIGHTS) & set(names):
        found[name] = weight_scores(model, groups, name, generator)
    return {
        name: {g: finite(f"scores of {name}", found[name][g]) for g in groups} for name in names
    }


def _data_scores(
    model: nn.Module,
    groups: Mapping[str, ChannelGroup],
    batches: Batches,
    names: set[str],
    loss: Loss,
) -> dict[str, Scores]:
    """Scores that look at data: all criteria at one batch, then at the next.

    A loader may shuffle, and criteria that are compared or combined must have seen the same.
    """
    sites = group_sites(groups)
    opened: dict[str, Tensor] = {}
    split: list[dict[str, Tensor]] = []
    bends: list[dict[str, Tensor]] = []
    bases: list[Tensor] = []
    without: list[dict[str, Tensor]] = []
    means: list[dict[str, Scores]] = []
    chunk = 0
    for batch in batches:
        if not chunk:
            chunk = copies(batch[1])
            if GATED & names:
                opened = open_gates(model, sites, batch[0])
        if {"Taylor FO", "Taylor SO", "Taylor FG"} & names:
            split += gate_gradients(model, sites, [batch], loss, opened=opened)
        if {"OBD", "Taylor SO"} & names:
            bends.append(gate_curvatures(model, sites, [batch], loss, chunk=chunk, opened=opened))
        if "oracle" in names:
            base, closed = losses_without(model, sites, [batch], loss, chunk=chunk, opened=opened)
            bases.append(base)
            without.append(closed)
        one: dict[str, Scores] = {}
        if "Taylor output" in names:
            one["Taylor output"] = _output_scores(model, groups, batch, loss)
        if set(OF_GRADIENTS) & names:
            one |= _gradient_scores(model, groups, batch, loss, names)
        means.append(one)

    def every(parts: list[dict[str, Tensor]], group: str) -> Tensor:
        return torch.cat([part[group] for part in parts])

    found: dict[str, Scores] = {
        name: {g: torch.stack([step[name][g] for step in means]).mean(0) for g in groups}
        for name in means[0]
    }
    if split:
        slopes = per_batch(split)
        found["Taylor FO"] = {g: formulas.taylor_fo(slopes[g]) for g in groups}
        found["Taylor FG"] = {
            g: torch.stack([formulas.taylor_fg(step[g][None]) for step in split]).mean(0)
            for g in groups
        }
    if bends:
        found["OBD"] = {g: formulas.obd(every(bends, g)) for g in groups}
        if "Taylor SO" in names:
            found["Taylor SO"] = {g: formulas.taylor_so(slopes[g], every(bends, g)) for g in groups}
    if bases:
        base = torch.cat(bases)
        found["oracle"] = {g: formulas.oracle(base, every(without, g)) for g in groups}
    return found


def per_unit(values: Tensor, member: Member, size: int) -> Tensor:
    """Values of a module's channels (channels,), summed into the units of a group: (size,)."""
    units = torch.tensor(member.units, device=values.device)
    places = torch.tensor(member.places, device=values.device)
    return values.new_zeros(size).index_add(0, units, values[places])


def outputs_first(layer: nn.Module, values: Tensor) -> Tensor:
    """Numbers of the shape of a layer's weight, with its output channels first as filters have
    them. A transposed convolution has its inputs first, and blocks of outputs behind them.
    """
    if not isinstance(layer, _ConvTransposeNd):
        return values
    return values.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)


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
    batches: Data,
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
            name: _by_channel(model, name, parameters[name] * gradient)
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


def _by_channel(model: nn.Module, name: str, values: Tensor) -> Tensor:
    """Sums over the filters of a weight; a bias or a scale stays as it is."""
    if values.ndim == 1:
        return values
    return outputs_first(model.get_submodule(name.rpartition(".")[0]), values).flatten(1).sum(1)


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
    return outputs_first(layer, layer.weight.detach())  # type: ignore[operator, union-attr]


def _norms(group: ChannelGroup) -> tuple[Member, ...]:
    if not group.norms:
        raise ValueError(f"scores of a norm need groups with BatchNorm; {group.name!r} has none")
    return group.norms


def _gradient_scores(
    model: nn.Module,
    groups: Mapping[str, ChannelGroup],
    batch: tuple[Tensor, Tensor],
    loss: Loss,
    names: Collection[str],
) -> dict[str, Scores]:
    scaled = "Taylor scale" in names
    members = [m for g in groups.values() for m in (*g.producers, *(g.norms if scaled else ()))]
    weights = {m.module: _weight(model, m) for m in members}
    (step,) = parameter_gradients(model, [batch], loss, [f"{name}.weight" for name in weights])
    pair = partial(_pair, model, weights, step)
    found: dict[str, Scores] = {name: {} for name in OF_GRADIENTS if scaled or "weight" in name}
    for group in groups.values():
        pairs = [(m, *pair(m)) for m in group.producers]
        found["Taylor weights"][group.name] = sum_of(
            per_unit(formulas.taylor_weight(w, g), m, group.size) for m, w, g in pairs
        )
        together = sum_of(per_unit((w * g).flatten(1).sum(1), m, group.size) for m, w, g in pairs)
        found["weights as a group"][group.name] = together.square()
        if scaled:
            behind = [(m, *pair(m)) for m in group.norms]
            found["Taylor scale"][group.name] = (
                sum_of(per_unit(w * g, m, group.size) for m, w, g in behind).square()
                if behind
                else torch.zeros(group.size)
            )
    return found


def _pair(
    model: nn.Module, weights: Mapping[str, Tensor], step: Mapping[str, Tensor], member: Member
) -> tuple[Tensor, Tensor]:
    slope = step[f"{member.module}.weight"]
    return weights[member.module], outputs_first(model.get_submodule(member.module), slope)


def _output_scores(
    model: nn.Module,
    groups: Mapping[str, ChannelGroup],
    batch: tuple[Tensor, Tensor],
    loss: Loss,
) -> Scores:
    for group in groups.values():
        if len(group.sites) > 1:
            raise ValueError(
                f"Taylor output needs groups with one place; {group.name!r} has {len(group.sites)}"
            )
    images, labels = batch
    found: Scores = {}
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
        found[name] = per_unit(score, member, groups[name].size)
    return found


def _keep_map(
    maps: dict[str, Tensor], name: str, _: nn.Module, __: object, output: Tensor
) -> Tensor:
    if name in maps:
        raise ValueError(f"Taylor output needs layers that run once in a pass; {name!r} ran again")
    maps[name] = output
    return output.clone()  # what follows may work in place
