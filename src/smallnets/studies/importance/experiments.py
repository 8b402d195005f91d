"""The chapter's experiments: one seed a call, to run side by side."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
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
from smallnets.prune.importance.pruning import (
    Prunable,
    PruneWhileTraining,
    iterative_masks,
    kept_units,
    masks_at_macs,
)
from smallnets.prune.importance.schedule import Schedule
from smallnets.prune.importance.scores import CRITERIA, Scores, divide_by_sites, scores
from smallnets.prune.importance.surgery import Costs, costs, masked, remove
from smallnets.studies.importance.plan import Settings
from smallnets.studies.networks import evaluate_accuracy, train_network
from smallnets.studies.study import run_grid
from smallnets.training import fit, run_parallel

ESTIMATES = tuple(name for name in CRITERIA if name not in ("oracle", "Taylor output"))
TUNED = ("Taylor SO", "Taylor FO", "magnitude", "BN scale", "random")


@dataclass(frozen=True)
class CriteriaReport:
    """What one trained network shows.

    Attributes:
        accuracy: of the whole network, on test images.
        scores: criterion -> group -> (units,).
        inner: the groups whose gate has one place.
        agreement: criterion -> name of a coefficient -> value, with the squared oracle.
        samples: "mode, images" -> Spearman's coefficient of first-order scores with the oracle.
        growing: group -> number of minibatches -> Spearman's coefficient within the group, of
            first-order scores with an oracle that saw the same minibatches.
        cut: criterion -> test accuracy at each of the settings' levels, without any training.
        repeated: share -> test accuracy of first-order pruning in rounds, without any training.
    """

    accuracy: float
    scores: Mapping[str, Scores]
    inner: tuple[str, ...]
    agreement: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, float]
    growing: Mapping[str, Mapping[int, float]]
    cut: Mapping[str, Sequence[float]]
    repeated: Mapping[float, float]


def train_whole(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> nn.Module:
    """The network of a seed, trained on all training images."""
    return train_network(settings.network, dataset, settings.training, seed, cache_dir)


def scoring_batches(dataset: Dataset, settings: Settings) -> list[tuple[Tensor, Tensor]]:
    """The first training images in minibatches, as the network sees them without augmentation."""
    images, labels = dataset.for_choosing(settings.scored)
    size = settings.score_batch
    return list(zip(images.split(size), labels.split(size), strict=True))


def groups_and_costs(
    network: nn.Module, dataset: Dataset
) -> tuple[dict[str, ChannelGroup], Costs, Tensor]:
    """The network's groups, its costs, and an example of its input."""
    example = dataset.normalise(dataset.x_train[:2])
    groups = channel_groups(network, example)
    return groups, costs(network, groups, example), example


def evaluate_criteria(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> CriteriaReport:
    """Score all channels of a seed's network by all criteria, cut it by each, and ask how far the
    scores can be trusted.
    """
    job = (dataset, settings, seed, cache_dir)
    return CriteriaReport(**rank_and_cut(*job), **evaluate_estimates(*job))


def evaluate_criteria_each(jobs: Sequence[dict[str, Any]]) -> list[CriteriaReport]:
    """`evaluate_criteria` for every job, the two halves of each in processes of their own."""
    halves = run_parallel(
        _half,
        [{**job, "half": half} for half in (rank_and_cut, evaluate_estimates) for job in jobs],
        description="scores",
    )
    pairs = zip(halves[: len(jobs)], halves[len(jobs) :], strict=True)
    return [CriteriaReport(**first, **second) for first, second in pairs]


def _half(half: Callable[..., dict[str, Any]], **job: Any) -> dict[str, Any]:
    return half(**job)


def rank_and_cut(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, Any]:
    """The fields `accuracy`, `scores`, `inner`, `agreement` and `cut` of `CriteriaReport`."""
    network = train_whole(dataset, settings, seed, cache_dir)
    groups, prices, _ = groups_and_costs(network, dataset)
    batches = scoring_batches(dataset, settings)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    noise = torch.Generator().manual_seed(seed)
    found = scores(network, groups, batches, ("oracle", *ESTIMATES), generator=noise)
    inner = _inner(groups)
    found_inner = scores(network, inner, batches, ("Taylor output",))
    exact = found["oracle"]
    agreement = {
        name: agreement_with(found.get(name, found_inner.get(name, {})), exact, tuple(inner))
        for name in (*ESTIMATES, "Taylor output")
    }
    cut = {
        name: [
            _masked_accuracy(
                network, groups, dataset, masks_at_macs(one, prices, level, least=settings.least)
            )
            for level in settings.levels
        ]
        for name, one in ranked(found, groups, settings).items()
    }
    return {
        "accuracy": evaluate_accuracy(network, dataset),
        "scores": found,
        "inner": tuple(inner),
        "agreement": agreement,
        "cut": cut,
    }


def evaluate_estimates(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, Any]:
    """The fields `samples`, `growing` and `repeated` of `CriteriaReport`."""
    network = train_whole(dataset, settings, seed, cache_dir)
    groups, prices, _ = groups_and_costs(network, dataset)
    batches = scoring_batches(dataset, settings)
    inner = _inner(groups)
    sites = group_sites(inner)
    base, without = losses_without(network, sites, batches, chunk=copies(batches[0][1]))
    exact = {name: oracle(base, without[name]) for name in inner}
    slopes = per_batch(gate_gradients(network, sites, batches))
    repeated = {
        share: _masked_accuracy(
            network,
            groups,
            dataset,
            iterative_masks(
                network,
                groups,
                batches,
                prices,
                share,
                divide=settings.divide,
                least=settings.least,
            ),
        )
        for share in settings.tuned
    }
    return {
        "samples": sample_study(network, inner, batches, exact),
        "growing": minibatch_study(slopes, base, without),
        "repeated": repeated,
    }


def _inner(groups: Mapping[str, ChannelGroup]) -> dict[str, ChannelGroup]:
    return {name: group for name, group in groups.items() if len(group.sites) == 1}


def ranked(
    found: Mapping[str, Scores], groups: Mapping[str, ChannelGroup], settings: Settings
) -> dict[str, Scores]:
    """Scores as they rank channels, with those of shared gates divided if the settings say so."""
    divide = settings.divide
    return {
        name: divide_by_sites(score, groups) if divide else score for name, score in found.items()
    }


def _masked_accuracy(
    network: nn.Module,
    groups: Mapping[str, ChannelGroup],
    dataset: Dataset,
    masks: Mapping[str, Tensor],
) -> float:
    with masked(network, groups, masks):
        return evaluate_accuracy(network, dataset)


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


def sample_study(
    network: nn.Module,
    groups: Mapping[str, ChannelGroup],
    batches: Sequence[tuple[Tensor, Tensor]],
    exact: Scores,
) -> dict[str, float]:
    """Spearman's coefficient with the oracle of first-order scores that saw fewer images, smaller
    minibatches, or the network in training mode.
    """
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    moving = copy.deepcopy(network).train()
    report = {}
    for count in sorted({max(8, len(images) // 16), max(8, len(images) // 4), len(images)}):
        part = images[:count], labels[:count]
        size = min(len(batches[0][0]), count)
        same = list(zip(part[0].split(size), part[1].split(size), strict=True))
        for mode, model in (("evaluation", network), ("training", moving)):
            found = scores(model, groups, same)["Taylor FO"]
            report[f"{mode} mode, {count} images"] = pooled(found, exact).spearman
    for size in (2, 32, len(images)):
        other = list(zip(images.split(size), labels.split(size), strict=True))
        found = scores(network, groups, other)["Taylor FO"]
        report[f"evaluation mode, batches of {size}"] = pooled(found, exact).spearman
    return report


def minibatch_study(
    slopes: Mapping[str, Tensor], base: Tensor, without: Mapping[str, Tensor]
) -> dict[str, dict[int, float]]:
    """Spearman's coefficient of first-order scores with the oracle within each group, when both are
    means over the first 4, 8, 16, ... of the minibatches: group -> number -> coefficient.

    Args:
        slopes: group -> (minibatches, units), gradients of the gates.
        base, without: (minibatches,) and group -> (minibatches, units), losses of the whole network
            and without each unit.
    """
    counts = [min(4, len(base))]
    while counts[-1] * 2 <= len(base):
        counts.append(counts[-1] * 2)
    return {
        name: {
            count: correlations(
                taylor_fo(slopes[name][:count]), oracle(base[:count], without[name][:count])
            ).spearman
            for count in counts
        }
        for name in without
    }


def prune_and_tune(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    share: float,
    ranking: Scores | None,
    cache_dir: Path | None = None,
) -> dict[str, float]:
    """Prune a seed's network to a share of its multiply-accumulates and fine-tune what is left.

    Args:
        dataset, settings, seed, cache_dir: as in `train_whole`.
        share: of the multiply-accumulates that may stay; 1 fine-tunes the whole network.
        ranking: scores of the groups' units; None prunes little by little while it tunes, by the
            first-order criterion.

    Returns:
        "accuracy" on test images, "untuned" accuracy before the tuning (of a network that was
        pruned at once), and what is left of "macs" and "parameters", as shares.
    """
    network = train_whole(dataset, settings, seed, cache_dir)
    groups, prices, example = groups_and_costs(network, dataset)
    steps = settings.tuning
    if ranking is None:
        masks = masks_while_training(
            network, groups, prices, dataset, settings, share, seed, cache_dir
        )
        steps = replace(steps, epochs=max(1, steps.epochs - settings.gradual))
    else:
        masks = masks_at_macs(ranking, prices, share, least=settings.least)
    smaller = remove(network, groups, masks, example)
    untuned = evaluate_accuracy(smaller, dataset)
    fit(smaller, dataset, steps, seed=seed, cache_dir=cache_dir, label="tuned")
    left = kept_units(masks)
    return {
        "accuracy": evaluate_accuracy(smaller, dataset),
        "untuned": untuned,
        "macs": prices.macs(left) / prices.macs(),
        "parameters": prices.parameters(left) / prices.parameters(),
    }


def masks_while_training(
    network: nn.Module,
    groups: Mapping[str, ChannelGroup],
    prices: Costs,
    dataset: Dataset,
    settings: Settings,
    share: float,
    seed: int,
    cache_dir: Path | None = None,
) -> dict[str, Tensor]:
    """Masks from the iterative schedule; the network is trained in place meanwhile."""
    steps = replace(settings.tuning, epochs=settings.gradual, schedule="constant")
    minibatches = steps.epochs * (len(dataset.y_train) // steps.batch_size)
    prunings = max(1, (minibatches - 1) // settings.every)
    units = sum(group.size for group in groups.values())
    # a share s of the work takes about sqrt(s) of the channels; the goal stops it
    remove_each = ceil(1.3 * units * (1 - share**0.5) / prunings)
    schedule = Schedule(
        every=settings.every, remove=remove_each, prunings=prunings, least=settings.least
    )
    model = Prunable(network, groups, schedule, prices, share)
    objective = PruneWhileTraining(divide=settings.divide)
    fit(model, dataset, steps, seed=seed, objective=objective, cache_dir=cache_dir, label="pruning")
    masks = model.ranking.masks
    if prices.macs(kept_units(masks)) <= share * prices.macs():
        return {name: mask.clone() for name, mask in masks.items()}
    rest = {
        name: torch.where(masks[name] > 0, score, torch.full_like(score, -1))
        for name, score in model.ranking.importance.items()
    }
    return masks_at_macs(rest, prices, share, least=settings.least)


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


def tune_all(
    dataset: Dataset,
    settings: Settings,
    reports: Sequence[CriteriaReport],
    groups: Mapping[str, ChannelGroup],
    cache_dir: Path | None = None,
) -> dict[tuple[str, float], list[dict[str, float]]]:
    """Fine-tune after pruning, side by side: (name, share) -> results of `prune_and_tune`.

    Every criterion in `TUNED` at once, "iterative" pruning by Taylor FO, and the "whole" network.
    """
    cells: dict[tuple[tuple[str, float], int], dict[str, Any]] = {}
    for seed, one in enumerate(reports):
        rankings = ranked({name: one.scores[name] for name in TUNED}, groups, settings)
        everything = {name: torch.ones_like(s) for name, s in one.scores["oracle"].items()}
        cells[("whole", 1.0), seed] = {"share": 1.0, "ranking": everything}
        for share in settings.tuned:
            for name in TUNED:
                cells[(name, share), seed] = {"share": share, "ranking": rankings[name]}
            cells[("iterative", share), seed] = {"share": share, "ranking": None}
    return run_grid(
        prune_and_tune,
        cells,
        description="fine-tuning",
        dataset=dataset,
        settings=settings,
        cache_dir=cache_dir,
    )


def by_share(
    grid: Mapping[tuple[str, float], Sequence[Mapping[str, float]]],
    share: float,
    measure: str = "accuracy",
) -> dict[str, list[float]]:
    """Name -> one value a seed, of all that was tuned at a share."""
    return {
        name: [result[measure] for result in results]
        for (name, at), results in grid.items()
        if at == share
    }


def widths(
    one: CriteriaReport,
    groups: Mapping[str, ChannelGroup],
    prices: Costs,
    settings: Settings,
    criterion: str,
    share: float,
) -> dict[str, float]:
    """Group -> share of its units that a criterion keeps at a share of the work."""
    mine = ranked({criterion: one.scores[criterion]}, groups, settings)[criterion]
    masks = masks_at_macs(mine, prices, share, least=settings.least)
    return {name: float(np.mean(mask.numpy())) for name, mask in masks.items()}
