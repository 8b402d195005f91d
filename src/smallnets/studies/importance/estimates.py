"""How good the estimates are: scores of a network's channels beside true changes of the loss."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.data import Dataset
from smallnets.measure.ranking import correlations, pooled, within_layers
from smallnets.prune.importance.criteria import oracle, taylor_fo
from smallnets.prune.importance.derivatives import (
    copies,
    gate_gradients,
    losses_without,
    per_batch,
)
from smallnets.prune.importance.gates import gated
from smallnets.prune.importance.groups import ChannelGroup, channel_groups, group_sites
from smallnets.prune.importance.scores import CRITERIA, Scores, scores
from smallnets.prune.importance.surgery import Costs, costs
from smallnets.studies.importance.plan import Settings

ESTIMATES = tuple(name for name in CRITERIA if name not in ("oracle", "Taylor output"))


def scoring_batches(
    dataset: Dataset, settings: Settings
) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """The first training images in minibatches, as the network sees them without augmentation, and
    as many others.
    """
    images, labels = dataset.for_choosing(2 * settings.scored)
    size = settings.score_batch
    every = list(zip(images.split(size), labels.split(size), strict=True))
    return every[: len(every) // 2], every[len(every) // 2 :]


def groups_and_costs(
    network: nn.Module, dataset: Dataset
) -> tuple[dict[str, ChannelGroup], Costs, Tensor]:
    """The network's groups, its costs, and an example of its input."""
    example = dataset.normalise(dataset.x_train[:2])
    groups = channel_groups(network, example)
    return groups, costs(network, groups, example), example


def inner_groups(groups: Mapping[str, ChannelGroup]) -> dict[str, ChannelGroup]:
    """The groups whose gate has one place: channels inside the blocks."""
    return {name: group for name, group in groups.items() if len(group.sites) == 1}


def all_scores(
    network: nn.Module, dataset: Dataset, settings: Settings, seed: int
) -> dict[str, Scores]:
    """Criterion -> group -> (units,), on the scoring images; "Taylor output" of inner groups."""
    groups, _, _ = groups_and_costs(network, dataset)
    batches, _ = scoring_batches(dataset, settings)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    noise = torch.Generator().manual_seed(seed)
    found = scores(network, groups, batches, ("oracle", *ESTIMATES), generator=noise)
    return found | scores(network, inner_groups(groups), batches, ("Taylor output",))


def judged(
    network: nn.Module, dataset: Dataset, found: Mapping[str, Scores]
) -> dict[str, dict[str, float]]:
    """Criterion -> name of a coefficient -> value, with the squared oracle of the same images."""
    groups, _, _ = groups_and_costs(network, dataset)
    inner = tuple(inner_groups(groups))
    return {
        name: agreement_with(one, found["oracle"], inner)
        for name, one in found.items()
        if name != "oracle"
    }


def agreement_with(found: Scores, exact: Scores, inner: Sequence[str]) -> dict[str, float]:
    """How well scores agree with the oracle's: coefficients of all inner channels pooled, of their
    logarithms, the means within layers, and of all channels with those of shared gates.
    """
    mine, truth = ({name: one[name] for name in inner} for one in (found, exact))
    values, layers = pooled(mine, truth), within_layers(mine, truth)
    report = {
        "Pearson": values.pearson,
        "Spearman": values.spearman,
        "Kendall": values.kendall,
        "Pearson, in layers": layers.pearson,
        "Spearman, in layers": layers.spearman,
        "Kendall, in layers": layers.kendall,
    }
    a, b = (torch.cat([one[name] for name in inner]).double() for one in (mine, truth))
    both = (a > 0) & (b > 0)
    report["Pearson of logs"] = correlations(a[both].log10(), b[both].log10()).pearson
    if set(found) >= set(exact):
        report["Spearman, with streams"] = pooled(found, exact).spearman
        report["Pearson, with streams"] = pooled(found, exact).pearson
    return report


def sampled(network: nn.Module, dataset: Dataset, settings: Settings) -> dict[str, dict[str, Any]]:
    """What the first-order score depends on, judged by an oracle of other training images.

    Returns:
        "samples": sample of images, or mode -> Spearman's coefficient. "minibatches": size of the
        oracle's minibatches -> size of the estimate's -> coefficient. "growing": inner group ->
        coefficients within it for the first 4, 8, ... minibatches, which are the same for both.
    """
    groups, _, _ = groups_and_costs(network, dataset)
    inner = inner_groups(groups)
    sites = group_sites(inner)
    mine, others = scoring_batches(dataset, settings)
    split = gate_gradients(network, sites, mine)
    slopes = per_batch(split)
    base, without = losses_without(network, sites, others, chunk=copies(others[0][1]))
    exact = {name: oracle(base, one) for name, one in without.items()}
    moving = copy.deepcopy(network).train()
    counts = minibatch_counts(len(others))

    def agreement(found: Scores) -> float:
        return pooled(found, exact).spearman

    samples = {
        f"{count * settings.score_batch} images": agreement(
            {name: taylor_fo(one[:count]) for name, one in slopes.items()}
        )
        for count in (len(mine) // 16 or 1, len(mine) // 4 or 1, len(mine))
    }
    noisy = per_batch(gate_gradients(moving, sites, mine))
    samples["training mode"] = agreement({name: taylor_fo(one) for name, one in noisy.items()})
    return {
        "samples": samples,
        "minibatches": minibatch_study(split, base, without),
        "growing": {
            name: [
                correlations(
                    taylor_fo(slope[:count]), oracle(base[:count], without[name][:count])
                ).spearman
                for count in counts
            ]
            for name, slope in per_batch(gate_gradients(network, sites, others)).items()
        },
    }


def minibatch_counts(most: int) -> list[int]:
    """4, 8, 16, ... up to a number of minibatches, or this number if it is smaller."""
    counts = [min(4, most)]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    return counts


def minibatch_study(
    split: Sequence[Mapping[str, Tensor]], base: Tensor, without: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Spearman's coefficient of first-order scores with an oracle of other images, for minibatches
    of 1, 2, 4, ... images of the estimate, and one of "all" of them.

    In evaluation mode the loss and the gradient of a minibatch are means over its images, so that
    one pass gives those of every size.

    Args:
        split: minibatches of the estimate: gate -> (batch, units), see `gate_gradients`.
        base, without: (minibatches,) and gate -> (minibatches, units), losses of the oracle.

    Returns:
        Minibatches of the oracle (their size, or "all") -> those of the estimate -> coefficient.
    """
    size = len(next(iter(split[0].values())))
    of_images = {name: size * torch.cat([one[name] for one in split]) for name in without}
    images = size * len(split)
    sizes = {str(2**power): 2**power for power in range(images.bit_length()) if 2**power < images}
    estimates = {
        label: {name: taylor_fo(_means(one, count)) for name, one in of_images.items()}
        for label, count in {**sizes, "all": images}.items()
    }
    judges = {
        label: {
            name: oracle(_means(base, count), _means(one, count)) for name, one in without.items()
        }
        for label, count in {str(size): 1, "all": len(base)}.items()
    }
    return {
        judge: {label: pooled(found, exact).spearman for label, found in estimates.items()}
        for judge, exact in judges.items()
    }


def _means(values: Tensor, count: int) -> Tensor:
    """(n, ...) -> (n // count, ...), means of `count` neighbours; a rest is left out."""
    whole = len(values) // count
    return values[: whole * count].unflatten(0, (whole, count)).mean(1)


def loss_along_gate(
    network: nn.Module,
    groups: Mapping[str, ChannelGroup],
    batch: tuple[Tensor, Tensor],
    name: str,
    unit: int,
    values: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss as a function of one gate, and its first and second order around the open gate.

    Args:
        network, groups: of the network.
        batch: images and labels.
        name, unit: of the gate.
        values: (n,) settings of the gate.

    Returns:
        Losses, the tangent and the parabola at the values, each (n,).
    """
    images, labels = batch
    sites = {name: group_sites(groups)[name]}
    one = torch.ones(groups[name].size)
    direction = F.one_hot(torch.tensor(unit), groups[name].size).float()

    def loss(value: Tensor) -> Tensor:
        with gated(network, sites, {name: one + (value - 1) * direction}):
            return F.cross_entropy(network(images), labels)

    at = torch.ones((), requires_grad=True)
    start = loss(at)
    (slope,) = torch.autograd.grad(start, at, create_graph=True)
    (bend,) = torch.autograd.grad(slope, at)
    with torch.no_grad():
        curve = torch.stack([loss(value) for value in values])
    tangent = start.detach() + slope.detach() * (values - 1)
    return curve, tangent, tangent + bend / 2 * (values - 1) ** 2
