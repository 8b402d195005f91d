"""What one seed of the study measures: measure -> condition -> number.

"Task known" means that only the classes of an image's own task compete (task-aware). Otherwise all
classes seen so far do (task-agnostic).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smallnets import measure as measures
from smallnets.data import Dataset
from smallnets.studies.questions import thinned
from smallnets.studies.replay.choosing import best_rates, candidates, judge, rate_of, try_rates
from smallnets.studies.replay.conditions import (
    AT_RATE_OF_LWF,
    SHIPPED,
    Condition,
    core_conditions,
    further_conditions,
    generators,
    generators_of_every_seed,
    swept_conditions,
)
from smallnets.studies.replay.learners import (
    diverged,
    learn_in_order_or_guess,
    learn_or_guess,
    side_by_side,
    train_first,
    train_generator,
)
from smallnets.studies.replay.plan import Settings
from smallnets.studies.replay.scenarios import FAR, NEAR, alike, groups_of, scenario
from smallnets.studies.study import by_measure
from smallnets.synthesize import replay as r

PAIRED = ("lwf", "mfgr", "noise_replay", "real_replay")  # whose damage to pairs is looked at
ORDERED = ("finetune", "lwf", "mfgr", "noise_replay", "joint")
BINS = 10
LEAST = 0.01  # of what is known above chance, where a share of it is taken
Measured = dict[str, Any]
Rates = Mapping[str, float]


def train_side_by_side(dataset: Dataset, settings: Settings, seed: int, cache_dir: Path) -> None:
    """Train and keep one seed's networks, as many at a time as there are cores: the first network,
    its generators, what the rates are tried with, and then what is compared.
    """
    common: dict[str, Any] = {
        "dataset": dataset, "settings": settings, "seed": seed, "cache_dir": cache_dir
    }  # fmt: skip
    side_by_side(train_first, [{}], "first network", **common)
    names = generators_of_every_seed(settings)
    side_by_side(train_generator, [{"name": one} for one in names], "generators", **common)
    swept = swept_conditions(settings)
    jobs = [
        {"condition": one, "rate": rate}
        for one in _longest_first(swept)
        for rate in candidates(one, settings)
    ]
    if jobs:
        side_by_side(judge, jobs, "learning rates", **common)
    rates = best_rates(try_rates(**common), settings)
    jobs = [
        {"condition": one, "rate": rate_of(one, rates, settings)}
        for one in _longest_first(core_conditions(settings))
        if one not in swept.values()
    ]
    side_by_side(learn_or_guess, jobs, "methods", **common)


def train_the_others(
    dataset: Dataset, settings: Settings, seed: int, rates: Rates, cache_dir: Path
) -> None:
    """Train and keep one seed's networks of `further_conditions` and of the sequences."""
    common: dict[str, Any] = {
        "dataset": dataset, "settings": settings, "seed": seed, "cache_dir": cache_dir
    }  # fmt: skip
    side_by_side(
        train_generator, [{"name": one} for one in generators(settings)], "generators", **common
    )
    others = further_conditions(settings).values()
    jobs = [{"condition": one, "rate": rate_of(one, rates, settings)} for one in others]
    side_by_side(learn_or_guess, jobs, "methods", **common)
    jobs = [
        {"order": order, "method": method, "rate": rates[f"{NEAR}, {method}"]}
        for order in (None, *settings.orders)
        for method in ("mfgr", *(one for one in ORDERED if one != "mfgr"))
    ]
    side_by_side(learn_in_order_or_guess, jobs, "sequences", **common)


def _longest_first(conditions: Mapping[str, Condition]) -> list[Condition]:
    """Those that see more than new images first, so that no worker is left alone with the longest
    at the end.
    """

    def sees_new_ones_alone(one: Condition) -> bool:
        method = r.METHODS[one.method]
        return method.replay == "none" and not method.all_data

    return sorted(conditions.values(), key=sees_new_ones_alone)


def measure(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    rates: Rates,
    cache_dir: Path | None = None,
) -> Measured:
    """Everything that is measured of every seed.

    Args:
        dataset: all images.
        settings: of the study.
        seed: of the repetition.
        rates: of the conditions, from `best_rates`.
        cache_dir: folder for finished trainings.

    Returns:
        Measure -> condition -> number, those of `accuracies`, "rate", and "diverged", which is 1
        where a training diverged and all else is of a network that guesses, for `core_conditions`;
        those of `describe` -> generator -> number, with "old images" as a generator's name; and
        "before": "old" -> the first network's accuracy on the old classes;
        "over time": "train" and "held out" -> shares of right answers along its training;
        those of `fine_grained_measures`, and "by class", see `by_class`.
    """
    first = train_first(dataset, settings, seed, cache_dir)
    after = {
        name: learn_or_guess(dataset, settings, seed, one, rate_of(one, rates, settings), cache_dir)
        for name, one in core_conditions(settings).items()
    }
    old = scenario(dataset, settings, NEAR).training[0]
    found = {
        name: accuracies(dataset, settings, one, after[name])
        | {"rate": rate_of(one, rates, settings), "diverged": diverged(after[name])}
        for name, one in core_conditions(settings).items()
    }
    made = {
        name: describe(
            draw_images(dataset, settings, seed, name, cache_dir), first.network, len(settings.old)
        )
        for name in generators_of_every_seed(settings)
    }
    made["old images"] = describe(images_of(old, settings), first.network, len(settings.old))
    return by_measure(found) | by_measure(made) | {
        "before": {"old": r.evaluate(first.network, [old]).total},
        "over time": {part: thinned(first.history, part) for part in ("train", "held out")},
        **fine_grained_measures(dataset, settings, seed, after, cache_dir),
        "by class": by_class(first.network, after, old),
    }  # fmt: skip


def measure_further(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    rates: Rates,
    cache_dir: Path | None = None,
) -> Measured:
    """The same of `further_conditions` and of all generators that `measure` leaves out."""
    first = train_first(dataset, settings, seed, cache_dir).network
    found = {}
    for name, one in further_conditions(settings).items():
        rate = rate_of(one, rates, settings)
        network = learn_or_guess(dataset, settings, seed, one, rate, cache_dir)
        found[name] = accuracies(dataset, settings, one, network)
        found[name] |= {"rate": rate, "diverged": diverged(network)}
    made = {
        name: describe(
            draw_images(dataset, settings, seed, name, cache_dir), first, len(settings.old)
        )
        for name in generators(settings)
        if name not in generators_of_every_seed(settings)
    }
    return by_measure(found) | by_measure(made)


def measure_orders(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    rates: Rates,
    cache_dir: Path | None = None,
) -> Measured:
    """Sequences of several tasks in several class orders, with the rates of the near scenario.

    Returns:
        Measure, by the full name that `IncrementalResult.summary` gives it, and "diverged", see
        `measure`, -> "fixed order, lwf" or "order 0, lwf" -> number.
    """
    found = {}
    for order in (None, *settings.orders):
        name = "fixed order" if order is None else f"order {order}"
        for method in ORDERED:
            rate = rates[f"{NEAR}, {method}"]
            result = learn_in_order_or_guess(
                dataset, settings, seed, order, method, rate, cache_dir
            )
            found[f"{name}, {method}"] = result.summary() | {
                "diverged": diverged(result.steps[-1].model)
            }
    return by_measure(found)


def accuracies(
    dataset: Dataset, settings: Settings, condition: Condition, network: nn.Module
) -> dict[str, float]:
    """Accuracies on test images after the new task: "accuracy" of all classes, each counting alike,
    of the "old" ones, and of the "new" ones; each also with the "task known".
    """
    tasks = scenario(dataset, settings, condition.scenario).training
    found = r.evaluate(network, tasks)
    return {
        "accuracy": found.total,
        "accuracy, task known": found.total_aware,
        "old": found.old,
        "old, task known": found.old_among_old,
        "new": found.new,
        "new, task known": float(found.aware[-1]),
    }


def describe(images: Tensor, classifier: nn.Module, n_old: int) -> dict[str, float]:
    """What a classifier and two measures of smoothness say of images as it takes them (n, ...).

    Returns:
        "confidence", the mean of the largest probability; "spread", the standard deviation of a
        pixel within a class (by largest probability); "difference of pairs", the divergence that
        the diversity term raises, of the first half of the images from the second; "bn distance",
        the BatchNorm loss; "classes hit", the share of the classes that are an image's largest;
        "shipped variation", which telescopes, and "true variation", the mean absolute difference of
        neighbours.
    """
    half = torch.arange(len(images) // 2)
    with r.ClassifierTap(classifier, norms=True) as tap, torch.no_grad():
        with measures.evaluating(classifier):
            probabilities = classifier(images)[:, :n_old].softmax(dim=1)
        distance = float(r.bn_norm_loss(tap.inputs, tap.statistics))
    largest, classes = probabilities.max(dim=1)
    spread = r.class_spread(images, classes)
    return {
        "confidence": float(largest.mean()),
        "spread": 0.0 if np.isnan(spread) else spread,
        "difference of pairs": -float(r.pair_diversity(images, indices=(half, half + len(half)))),
        "bn distance": distance,
        "classes hit": len(classes.unique()) / n_old,
        "shipped variation": float(r.tv_loss(images, "telescoped")),
        "true variation": float(r.tv_loss(images, "l1")),
    }


def draw_images(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    name: str = SHIPPED,
    cache_dir: Path | None = None,
) -> Tensor:
    """Images (settings.images, ...) of the seed's generator of a name, as the network takes them;
    always the same latent vectors.
    """
    made = train_generator(dataset, settings, seed, name, cache_dir)
    noise = torch.Generator().manual_seed(seed)
    size, left, parts = settings.generator.batch, settings.images, []
    while left > 0:  # in batches as large as those that it was trained with
        parts.append(r.generate(made.generator, size, noise))
        left -= size
    return torch.cat(parts)[: settings.images]


def images_of(task: r.Task, settings: Settings) -> Tensor:
    """Training images of a task, as the network takes them."""
    assert isinstance(task.train, Dataset)
    return task.train.for_choosing(settings.images).images


def shown_images(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, Tensor]:
    """The kinds of images on which a student may be asked to answer as the first network does:
    "new, near", "new, far", "generated", "noise", and "old", which a memory-free method has not.
    """
    near, far = (scenario(dataset, settings, one).training for one in (NEAR, FAR))
    old = images_of(near[0], settings)
    noise = torch.randn(old.shape, generator=torch.Generator().manual_seed(seed))
    return {
        "new, near": images_of(near[1], settings),
        "new, far": images_of(far[1], settings),
        "generated": draw_images(dataset, settings, seed, SHIPPED, cache_dir),
        "noise": noise,
        "old": old,
    }


def pairs(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    after: Mapping[str, nn.Module],
    cache_dir: Path | None = None,
) -> r.FineGrained:
    """Similarity, visibility and damage of all pairs of old classes.

    Args:
        dataset, settings, seed, cache_dir: as for `measure`.
        after: name of a condition -> its network.
    """
    first = train_first(dataset, settings, seed, cache_dir).network
    old = scenario(dataset, settings, NEAR).training[:1]
    shown = shown_images(dataset, settings, seed, cache_dir)
    return r.fine_grained(first, after, old, shown)


def fine_grained_measures(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    after: Mapping[str, nn.Module],
    cache_dir: Path | None = None,
) -> Measured:
    """What becomes of pairs of old classes that look alike ("fine"), and of the others ("coarse").

    Returns:
        "visibility" -> "fine, new, near" -> mean over pairs;
        "lost" -> "fine, near, lwf" -> share of what was known of these pairs above chance that is
        lost: mean damage / mean (accuracy before - 1/2);
        "correlation" -> "visibility, new, near" or "damage, near, lwf" -> with similarity, over all
        pairs; 0 where one of them does not vary;
        "by similarity" -> the same names and "similarity" -> means over ten equal groups of pairs,
        the least similar first.
    """
    looked = {
        f"{scene}, {method}": after[f"{scene}, {method}"]
        for scene in (NEAR, FAR)
        for method in PAIRED
    }
    looked |= {name: one for name, one in after.items() if name.endswith(AT_RATE_OF_LWF)}
    found = pairs(dataset, settings, seed, looked, cache_dir)
    fine = alike(dataset, settings, found.similarity, found.pairs)
    kinds = {"fine": fine, "coarse": ~fine}
    curves = {"similarity": found.similarity}
    curves |= {f"visibility, {name}": one for name, one in found.visibility.items()}
    curves |= {f"damage, {name}": one.damage for name, one in found.damage.items()}
    order = found.similarity.argsort().numpy()
    groups = np.array_split(order, min(BINS, len(order)))
    correlations = found.correlations()
    return {
        "visibility": {
            f"{kind}, {name}": float(one[which].mean())
            for kind, which in kinds.items()
            for name, one in found.visibility.items()
        },
        "lost": {
            f"{kind}, {name}": lost_share(one, which)
            for kind, which in kinds.items()
            for name, one in found.damage.items()
        },
        "correlation": {
            name: float(np.nan_to_num(correlations[name])) for name in curves
            if name != "similarity"
        },
        "by similarity": {
            name: [float(one[torch.from_numpy(group)].mean()) for group in groups]
            for name, one in curves.items()
        },
    }  # fmt: skip


def lost_share(damage: r.PairDamage, which: Tensor) -> float:
    """Share of what was known of some pairs above chance that is lost; negative where they are told
    apart better than before.

    Args:
        damage: of all pairs.
        which: bool (pairs,).
    """
    known = float((damage.before[which] - 0.5).mean())
    return float(damage.damage[which].mean()) / max(known, LEAST)


def by_class(
    first: nn.Module, after: Mapping[str, nn.Module], old: r.Task
) -> dict[str, list[float]]:
    """Accuracy of every old class among the old ones, those with the least similar neighbour first:
    "nearest", the neighbour's similarity, "before", and one list for every condition of `PAIRED`.
    """
    names = [f"{scene}, {method}" for scene in (NEAR, FAR) for method in PAIRED]
    reports = {name: r.class_report(first, after[name], [old]) for name in names}
    one = reports[names[0]]
    found = {"nearest": one.nearest.tolist(), "before": one.before.tolist()}
    return found | {name: report.after.tolist() for name, report in reports.items()}


def confusion(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    name: str,
    rates: Rates,
    cache_dir: Path | None = None,
) -> tuple[Tensor, list[str]]:
    """Counts (true, predicted) on the test images after a condition of a name, with classes sorted
    by group and old ones first, and the classes' names in that order.
    """
    one = (core_conditions(settings) | further_conditions(settings))[name]
    tasks = scenario(dataset, settings, one.scenario).training
    rate = rate_of(one, rates, settings)
    network = learn_or_guess(dataset, settings, seed, one, rate, cache_dir)
    counts = r.evaluate(network, tasks).confusion
    last = tasks[-1].train
    assert isinstance(last, Dataset)
    order = torch.arange(len(counts))
    if one.scenario == NEAR:
        order = r.grouped_order(groups_of(dataset, settings))
    return counts[order][:, order], [last.class_names[place] for place in order.tolist()]


def pictures(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    name: str,
    count: int,
    cache_dir: Path | None = None,
) -> Tensor:
    """Images (count, ...) to be shown, uint8: of a generator of a name, or of `shown_images`."""
    if name in generators(settings):
        images = draw_images(dataset, settings, seed, name, cache_dir)
    else:
        images = shown_images(dataset, settings, seed, cache_dir)[name]
    own = scenario(dataset, settings, NEAR).training[0].train
    assert isinstance(own, Dataset)
    pixels = images[:count] * own.std.view(-1, 1, 1) + own.mean.view(-1, 1, 1)
    return (255 * pixels).round().clamp(0, 255).to(torch.uint8)
