"""The chapter's experiments: `measure` makes all of them with one seed."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smallnets.data import Dataset
from smallnets.prune.importance.groups import ChannelGroup
from smallnets.prune.importance.pruning import (
    Prunable,
    PruneWhileTraining,
    iterative_masks,
    kept_units,
    masks_at_macs,
)
from smallnets.prune.importance.schedule import Schedule
from smallnets.prune.importance.scores import Scores, divide_by_sites
from smallnets.prune.importance.surgery import Costs, masked, remove
from smallnets.studies.importance.estimates import (
    all_scores,
    groups_and_costs,
    judged,
    sampled,
    scoring_batches,
)
from smallnets.studies.importance.plan import Settings
from smallnets.studies.networks import build_network, evaluate_accuracy
from smallnets.studies.watching import curve, train_watched
from smallnets.training import fit
from smallnets.training.checkpoint import History

SHOWN = (
    "oracle",
    "Taylor SO",
    "Taylor FO",
    "magnitude",
    "BN scale",
    "random",
)  # scores kept, and networks cut by them
WHOLE = "whole"


def iterative(criterion: str) -> str:
    """Name of pruning by a criterion while the network trains, beside pruning at once."""
    return f"{criterion}, iterative"


def percent(share: float) -> str:
    """Name of a share of the multiply-accumulates."""
    return f"{share:.0%}"


def start(dataset: Dataset, settings: Settings, seed: int) -> nn.Module:
    """The untrained network of a seed."""
    return build_network(settings.network, dataset, seed, stem_stride=settings.stem_stride)


def train_whole(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> nn.Module:
    """The network of a seed, trained on all training images."""
    return _trained(dataset, settings, seed, cache_dir)[0]


def _trained(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None
) -> tuple[nn.Module, History]:
    network = start(dataset, settings, seed)
    return network, train_watched(network, dataset, settings.training, seed, cache_dir)


def measure(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, Any]:
    """Everything that the chapter measures with one seed.

    Returns:
        "accuracy": of the "whole" network, before and after a tuning, on test images. "curve":
        "train" and "test" accuracy in every epoch, means over its steps. "scores": those of `SHOWN`
        as lists. "agreement": see `judged`. The rest: see `sampled`, `cut_all` and `tune_all`.
    """
    network, history = _trained(dataset, settings, seed, cache_dir)
    whole = evaluate_accuracy(network, dataset)
    found = all_scores(network, dataset, settings, seed)
    again = prune_and_tune(network, dataset, settings, seed, 1.0, found["oracle"], cache_dir)
    return {
        "accuracy": {WHOLE: whole, f"{WHOLE}, tuned": again["accuracy"]},
        "curve": curve(history),
        "scores": {
            name: {group: score.tolist() for group, score in found[name].items()} for name in SHOWN
        },
        "agreement": judged(network, dataset, found),
        **sampled(network, dataset, settings),
        **cut_all(network, dataset, settings, found),
        **tune_all(network, dataset, settings, seed, found, cache_dir),
    }


def ranked(
    found: Mapping[str, Scores], groups: Mapping[str, ChannelGroup], settings: Settings
) -> dict[str, Scores]:
    """Scores as they rank channels, with those of shared gates divided if the settings say so."""
    divide = settings.divide
    return {
        name: divide_by_sites(score, groups) if divide else score for name, score in found.items()
    }


def cut_all(
    network: nn.Module, dataset: Dataset, settings: Settings, found: Mapping[str, Scores]
) -> dict[str, dict[str, Any]]:
    """Test accuracy after pruning without any training.

    Returns:
        "cut": criterion -> accuracy at each of the settings' levels. "kept": criterion -> group ->
        share of its channels that stays at the first share that is tuned. "rounds": share ->
        accuracy of first-order pruning with fresh scores after every few removals.
    """
    groups, prices, _ = groups_and_costs(network, dataset)
    batches, _ = scoring_batches(dataset, settings)
    rankings = ranked({name: found[name] for name in SHOWN}, groups, settings)

    def at(name: str, share: float) -> dict[str, Tensor]:
        return masks_at_macs(rankings[name], prices, share, least=settings.least)

    def accuracy(masks: Mapping[str, Tensor]) -> float:
        with masked(network, groups, masks):
            return evaluate_accuracy(network, dataset)

    return {
        "cut": {name: [accuracy(at(name, level)) for level in settings.levels] for name in SHOWN},
        "kept": {
            name: {group: float(mask.mean()) for group, mask in at(name, settings.tuned[0]).items()}
            for name in SHOWN
        },
        "rounds": {
            percent(share): accuracy(
                iterative_masks(
                    network,
                    groups,
                    batches,
                    prices,
                    share,
                    divide=settings.divide,
                    least=settings.least,
                )
            )
            for share in settings.tuned
        },
    }


def tune_all(
    network: nn.Module,
    dataset: Dataset,
    settings: Settings,
    seed: int,
    found: Mapping[str, Scores],
    cache_dir: Path | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Prune at once and iteratively by each criterion of the settings, and fine-tune.

    Returns:
        "tuned" and "untuned": share -> criterion, at once or `iterative` -> test accuracy after and
        before the fine-tuning of what is left.
    """
    groups, _, _ = groups_and_costs(network, dataset)
    results: dict[str, dict[str, dict[str, float]]] = {"tuned": {}, "untuned": {}}
    rankings = ranked({name: found[name] for name in settings.criteria}, groups, settings)
    for share in settings.tuned:
        for name, ranking in rankings.items():
            for label, given in ((name, ranking), (iterative(name), None)):
                one = prune_and_tune(
                    network, dataset, settings, seed, share, given, cache_dir, criterion=name
                )
                for kind, measured in (("tuned", "accuracy"), ("untuned", "untuned")):
                    results[kind].setdefault(percent(share), {})[label] = one[measured]
    return results


def prune_and_tune(
    network: nn.Module,
    dataset: Dataset,
    settings: Settings,
    seed: int,
    share: float,
    ranking: Scores | None,
    cache_dir: Path | None = None,
    *,
    criterion: str = "Taylor FO",
) -> dict[str, float]:
    """Prune a trained network to a share of its multiply-accumulates and fine-tune what is left.

    Args:
        network: left as it is.
        dataset, settings, seed, cache_dir: as in `train_whole`.
        share: of the multiply-accumulates that may stay; 1 fine-tunes the whole network.
        ranking: scores of the groups' units; None prunes little by little while it tunes.
        criterion: by which that is done.

    Returns:
        "accuracy" on test images, "untuned" accuracy of what is left before it is tuned, and what
        is left of "macs" and "parameters", as shares.
    """
    network = copy.deepcopy(network)
    groups, prices, example = groups_and_costs(network, dataset)
    steps = settings.tuning
    if ranking is None:
        masks = masks_while_training(
            network, groups, prices, dataset, settings, share, seed, cache_dir, criterion=criterion
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
    *,
    criterion: str = "Taylor FO",
) -> dict[str, Tensor]:
    """Masks from the iterative schedule; the network is trained in place meanwhile."""
    steps = replace(settings.tuning, epochs=settings.gradual, schedule="constant")
    minibatches = steps.epochs * (len(dataset.y_train) // steps.batch_size)
    every = min(settings.every, max(1, minibatches - 1))  # a short run prunes, too
    prunings = max(1, (minibatches - 1) // every)
    units = sum(group.size for group in groups.values())
    # a share s of the work takes about sqrt(s) of the channels; the goal stops it
    remove_each = ceil(1.3 * units * (1 - share**0.5) / prunings)
    schedule = Schedule(every=every, remove=remove_each, prunings=prunings, least=settings.least)
    model = Prunable(network, groups, schedule, prices, share)
    objective = PruneWhileTraining(criterion, divide=settings.divide)
    fit(model, dataset, steps, seed=seed, objective=objective, cache_dir=cache_dir, label="pruning")
    masks = model.ranking.masks
    if prices.macs(kept_units(masks)) <= share * prices.macs():
        return {name: mask.clone() for name, mask in masks.items()}
    rest = {
        name: torch.where(masks[name] > 0, score, torch.full_like(score, -1))
        for name, score in model.ranking.importance.items()
    }
    return masks_at_macs(rest, prices, share, least=settings.least)


def scores_of(measured: Mapping[str, Any], criterion: str, seed: int) -> Scores:
    """Scores of a seed as tensors, from the joined measurements of all seeds."""
    return {group: torch.tensor(of[seed]) for group, of in measured["scores"][criterion].items()}
