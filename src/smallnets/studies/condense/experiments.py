"""What one repetition measures, each with sets of its own: name -> set -> number."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from smallnets.data import Dataset
from smallnets.storage import Arrays, kept_arrays
from smallnets.studies.condense.judging import judge, unless_it_diverges
from smallnets.studies.condense.making import (
    STEPPING,
    build,
    embedding_bands,
    kept_under,
    learn,
    learning_settings,
    looks_at,
    make_set,
    matching_settings,
    passes_of_update,
    stages,
    train_whole,
    updates_of,
)
from smallnets.studies.condense.plan import Settings
from smallnets.studies.condense.recipes import (
    DM,
    DSA,
    HERDING,
    LEARNED,
    RANDOM,
    WHOLE,
    Recipe,
    ablation_recipes,
    band_recipes,
    core_recipes,
    large_recipes,
    needed_recipes,
    titled,
)
from smallnets.studies.seeds import member_seed
from smallnets.synthesize import condense as method

Measured = dict[str, Any]
POINTS = 40  # of a curve, at most
HALF = 0.5  # weight in the score of robustness to augmentation
EARLY, LONG = "early stopping", "long schedule"


def measure(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measured:
    """Everything that is measured of every repetition.

    Returns:
        "accuracy": set -> what it is worth, for the main comparison and "whole", and where the
        study is thorough for sets that are made otherwise;
        "plain accuracy": the same without augmentation in the evaluation, of the main comparison;
        "label robustness", "augmentation robustness": its scores from 0 to 100;
        "loss": set of DM -> loss along its updates, thinned;
        "cost" and "race": method -> passes of images (see `passes_of_update`), and accuracy, at the
        looks on the way;
        "equal cost": DM at its end, and DSA at the cost of that;
        "whole over time": "train" and "test" -> the training curve of the network;
        and where the study is thorough "bands", "band accuracy", "transfer" and "search", see
        `measure_bands`, `measure_transfer` and `rank_networks`.
    """
    whole = train_whole(dataset, settings, seed, cache_dir)
    recipes = core_recipes(settings)
    sets = {
        name: make_set(dataset, settings, seed, recipe, cache_dir)
        for name, recipe in recipes.items()
    }
    plain = replace(settings.judging, strategy=None)
    shared: dict[str, Any] = {"cache_dir": cache_dir}
    accuracy = {n: judge(one, dataset, settings, seed, **shared) for n, one in sets.items()}
    unaugmented = {
        name: judge(one, dataset, settings, seed, how=plain, **shared) for name, one in sets.items()
    }
    found: Measured = {
        "accuracy": accuracy,
        "plain accuracy": unaugmented,
        **robustness(recipes, accuracy, unaugmented, whole.accuracy),
        "loss": {
            name: thin(learn(dataset, settings, seed, recipe, cache_dir).losses)
            for name, recipe in recipes.items()
            if recipe.method == DM
        },
        **measure_race(dataset, settings, seed, cache_dir),
        "whole over time": {"train": thin(whole.train), "test": thin(whole.test)},
    }
    accuracy[WHOLE] = whole.accuracy
    if settings.thorough:
        accuracy |= judge_all(dataset, settings, seed, needed_recipes(settings), cache_dir)
        found |= measure_bands(dataset, settings, seed, cache_dir)
        found["transfer"] = measure_transfer(dataset, settings, seed, cache_dir)
        found["search"] = rank_networks(dataset, settings, seed, cache_dir)
    return found


def measure_further(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measured:
    """What decides no claim.

    Returns:
        "accuracy": set -> number, of larger sets, of the ablation at the largest size of the main
        comparison, and of sets of that size judged by the published schedule;
        "memory": method -> accuracy at every step of class-incremental learning.
    """
    recipes = large_recipes(settings) | ablation_recipes(settings)
    accuracy = judge_all(dataset, settings, seed, recipes, cache_dir)
    for name in (RANDOM, DM):
        one = make_set(dataset, settings, seed, Recipe(name, settings.largest), cache_dir)
        accuracy[titled(name, settings.largest, LONG)] = judge(
            one, dataset, settings, seed, how=settings.long, cache_dir=cache_dir
        )
    return {
        "accuracy": accuracy,
        "memory": {
            name: remember(dataset, settings, seed, name, cache_dir) for name in settings.remembered
        },
    }


def judge_all(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    recipes: Mapping[str, Recipe],
    cache_dir: Path | None = None,
) -> dict[str, float]:
    """What sets are worth, by name."""
    return {
        name: judge(
            make_set(dataset, settings, seed, recipe, cache_dir), dataset, settings, seed,
            cache_dir=cache_dir,
        )
        for name, recipe in recipes.items()
    }  # fmt: skip


def robustness(
    recipes: Mapping[str, Recipe],
    accuracy: Mapping[str, float],
    plain: Mapping[str, float],
    whole: float,
) -> dict[str, dict[str, float]]:
    """The two scores of DD-Ranking, 0 to 100, of sets with hard labels, by name of score and set.

    Args:
        recipes: of the sets.
        accuracy, plain: with and without augmentation in the evaluation.
        whole: accuracy of a network trained on all images.
    """
    label, augmentation = {}, {}
    for name, recipe in recipes.items():
        random = titled(RANDOM, recipe.ipc)
        label[name] = method.label_robust_score(
            whole, accuracy[name], accuracy[name], accuracy[random]
        )
        augmentation[name] = method.augmentation_robust_score(
            accuracy[name], accuracy[random], plain[name], plain[random], weight=HALF
        )
    return {"label robustness": label, "augmentation robustness": augmentation}


def measure_race(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measured:
    """DM, DC and DSA on their way, by cost: "cost", "race" and "equal cost" of `measure`."""
    cost: dict[str, list[float]] = {}
    race: dict[str, list[float]] = {}
    for name in LEARNED:
        recipe = Recipe(name, settings.ipc)
        each = passes_of_update(dataset, settings, recipe)
        updates = updates_of(dataset, settings, recipe)
        cost[name] = [float(each * n) for n in looks_at(updates, settings.looks)]
        race[name] = [
            judge(one.set, dataset, settings, seed, cache_dir=cache_dir)
            for one in stages(dataset, settings, seed, recipe, cache_dir)
        ]
    start = make_set(dataset, settings, seed, Recipe(RANDOM, settings.ipc))
    begun = judge(start, dataset, settings, seed, cache_dir=cache_dir)
    there = np.interp(cost[DM][-1], [0, *cost[DSA]], [begun, *race[DSA]])
    return {"cost": cost, "race": race, "equal cost": {DM: race[DM][-1], DSA: float(there)}}


def measure_bands(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measured:
    """Sets whose embedding networks were trained.

    Returns:
        "bands": band -> what its set is worth; "band accuracy": band -> mean accuracy of its
        networks on training images that they were not shown.
    """
    recipes = band_recipes(settings)
    bands = embedding_bands(dataset, settings, seed, cache_dir)
    return {
        "bands": judge_all(dataset, settings, seed, recipes, cache_dir),
        "band accuracy": {name: bands.mean(recipe.band) for name, recipe in recipes.items()},
    }


def measure_transfer(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, dict[str, float]]:
    """The cross-architecture table: learned on, or "random" -> tested on -> accuracy."""
    sets = {RANDOM: Recipe(RANDOM, settings.ipc), settings.network: Recipe(DM, settings.ipc)}
    sets |= {name: Recipe(DM, settings.ipc, network=name) for name in settings.learners}
    made = {
        name: make_set(dataset, settings, seed, recipe, cache_dir) for name, recipe in sets.items()
    }
    return {
        learned: {
            tested: judge(one, dataset, settings, seed, network=tested, cache_dir=cache_dir)
            for tested in (settings.network, *settings.others)
        }
        for learned, one in made.items()
    }


def rank_networks(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, dict[str, Any]]:
    """A search over `settings.space`, by held-out training images alone.

    Returns:
        "accuracies": proxy -> one number a network; proxies are methods of small sets, "early
        stopping", which trains on the real images for as many steps, and "whole", whose first
        weights and batches are others than those of the proxies;
        "correlation" and "top": proxy -> Spearman's rank correlation with training on all images,
        over all networks and over the best ones; "chosen": proxy -> accuracy, on the same held-out
        images, of the network that it puts first, trained on all images.
    """
    judged = dataset.held_out(settings.held_out, seed)
    sets = {
        name: make_set(judged, settings, seed, Recipe(name, settings.searched), cache_dir)
        for name in settings.proxies
    }
    steps = settings.searching.steps(len(next(iter(sets.values()))))
    ways: dict[str, tuple[method.Data, method.EvalSettings]] = {
        name: (one, settings.searching) for name, one in sets.items()
    }
    ways[EARLY] = judged, replace(settings.searching_whole, iterations=steps)
    ways[WHOLE] = judged, settings.searching_whole
    rankings = {}
    for name, (images, how) in ways.items():
        number = member_seed(seed, int(name == WHOLE))  # no proxy is a part of what it is judged by
        shown = method.training_set(images)
        file = kept_under(
            cache_dir, "ranking", images=shown.images, labels=shown.labels, data=judged.key,
            how=how, space=settings.space, seed=number,
        )  # fmt: skip

        def one(
            spec: method.ConvNetSpec,
            images: method.Data = images,
            how: method.EvalSettings = how,
            number: int = number,
        ) -> float:
            made = method.rank_architectures([spec], images, judged, how, seed=number, workers=1)
            return float(made.accuracies[0])

        def ranked(one: Callable[[method.ConvNetSpec], float] = one) -> Arrays:
            found = [
                unless_it_diverges(lambda spec=spec: one(spec), judged)  # type: ignore[misc]
                for spec in settings.space
            ]
            return {"accuracies": np.array(found)}

        accuracies = torch.from_numpy(kept_arrays(file, ranked)["accuracies"])
        rankings[name] = method.ProxyRanking(accuracies, 0.0, len(shown))
    compared = {
        name: method.compare_rankings(one, rankings[WHOLE], settings.top)
        for name, one in rankings.items()
    }
    return {
        "accuracies": {name: one.accuracies.tolist() for name, one in rankings.items()},
        "correlation": {n: defined(one.correlation_of_all.spearman) for n, one in compared.items()},
        "top": {name: defined(one.rank_correlation) for name, one in compared.items()},
        "chosen": {name: one.chosen_accuracy for name, one in compared.items()},
    }


def defined(correlation: float) -> float:
    """A correlation; 0 where one side is constant and so ranks nothing."""
    return correlation if np.isfinite(correlation) else 0.0


def remember(
    dataset: Dataset, settings: Settings, seed: int, name: str, cache_dir: Path | None = None
) -> list[float]:
    """Accuracies, step by step, of networks trained on a memory of `settings.memory` images a class
    that one method fills; what it needs of a network is learned on the step's images alone.
    """
    recipe = Recipe(name, settings.memory)
    file = kept_under(
        cache_dir, "memory", data=dataset.key, recipe=recipe, settings=settings, seed=seed
    )

    def fill(images: method.ImageSet, classes: Any, number: int) -> method.SyntheticSet:
        if name == DM:
            return method.condense(
                images, matching_settings(images, settings, recipe), seed=seed, only=classes,
                cache_dir=cache_dir, label="memory",
            ).set  # fmt: skip
        seen = (
            method.trained_features(
                images, lambda: build(images, settings.network), settings.whole,
                member_seed(seed, STEPPING),
            )
            if name == HERDING
            else None
        )  # fmt: skip
        return method.select(images, name, settings.memory, seed=seed, features=seen, only=classes)

    def stepped() -> Arrays:
        seeds = [member_seed(seed, number) for number in range(settings.orders)]
        orders = method.class_orders(dataset.num_classes, seeds)
        found = method.continual(
            dataset, dataset, fill, lambda: build(dataset, settings.network), settings.steps,
            settings.judging, orders=orders, networks=settings.networks, workers=1,
        )  # fmt: skip
        return {"accuracies": found.mean.numpy()}

    return kept_arrays(file, stepped)["accuracies"].tolist()


def search_rates(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, float]:
    """Accuracy on held-out training images of sets learned at several rates of the pixels: "DM, 10,
    lr 30" -> number, for DM at every size and for DC and DSA where they are compared.
    """
    judged = dataset.held_out(settings.held_out, seed)
    found = {}
    for name, recipe in core_recipes(settings).items():
        if recipe.method not in LEARNED:
            continue
        usual = learning_settings(judged, settings, recipe).lr
        for factor in settings.factors:
            one = replace(recipe, rate=factor)
            made = make_set(judged, settings, seed, one, cache_dir)
            found[f"{name}, lr {usual * factor:g}"] = judge(
                made, judged, settings, seed, cache_dir=cache_dir
            )
    return found


class Learned(NamedTuple):
    """A set of DM before and after it was learned: to be shown."""

    before: method.SyntheticSet
    after: method.SyntheticSet
    losses: list[float]
    seconds: float


def pictures(
    dataset: Dataset, settings: Settings, seed: int, ipc: int, cache_dir: Path | None = None
) -> Learned:
    """The set of DM with so many images a class, and the random one that it starts from."""
    found = learn(dataset, settings, seed, Recipe(DM, ipc), cache_dir)
    before = make_set(dataset, settings, seed, Recipe(RANDOM, ipc))
    return Learned(before, found.set, found.losses, found.seconds)


def seconds_of(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, list[float]]:
    """Method -> seconds that learning took until each look of the race, on this machine. They are
    no measurements: no two runs have the same.
    """
    return {
        name: [
            one.seconds
            for one in stages(dataset, settings, seed, Recipe(name, settings.ipc), cache_dir)
        ]
        for name in LEARNED
    }


def thin(curve: Any) -> list[float]:
    """At most `POINTS` means over equal stretches of a curve."""
    parts = np.array_split(np.asarray(curve, dtype=float), min(POINTS, len(curve)))
    return [float(part.mean()) for part in parts]
