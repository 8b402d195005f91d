"""Sets as a `Recipe` says, what choosing needs of the whole data, and embedding networks."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from smallnets.data import Dataset
from smallnets.storage import Arrays, kept_arrays, source_digest
from smallnets.studies.condense.plan import Settings
from smallnets.studies.condense.recipes import (
    DM,
    DSA,
    FRESH,
    LEARNED,
    ONE,
    RANDOM,
    TRAINED,
    Recipe,
    titled,
)
from smallnets.studies.seeds import member_seed
from smallnets.synthesize import condense as method
from smallnets.synthesize.condense.running import as_set
from smallnets.training import seeded
from smallnets.training.checkpoint import cache_path, code_digest

# Members of a repetition, see `smallnets.studies.seeds`; the first ones judge sets.
ON_ALL, IN_POOL, STEPPING, ON_REST = 900, 910, 920, 930
TEN_OF_THEM = 10  # random networks of a fixed pool
SHOWN = 512  # test images of a training curve


class Whole(NamedTuple):
    """One training on all images, and what choosing takes from it."""

    accuracy: float
    features: Tensor  # (N, D) of the training images
    forgetting: method.Forgetting
    train: list[float]  # shares of right answers epoch by epoch, on augmented training images
    test: list[float]  # on test images, which choose nothing


class Bands(NamedTuple):
    """Networks seen on the way of trainings, from the least to the most accurate."""

    seen: method.AccuracyBands
    bands: int  # how many, of equally many networks each

    def of(self, band: int) -> list[int]:
        """Places of the networks of a band, from 1; 0 takes all."""
        order = sorted(range(len(self.seen.accuracies)), key=self.seen.accuracies.__getitem__)
        if band == 0:
            return order
        total = len(order)
        return order[total * (band - 1) // self.bands : total * band // self.bands]

    def pool(self, band: int) -> method.Pool:
        """The networks of a band, to draw from."""
        return method.Pool([self.seen.networks[place] for place in self.of(band)])

    def mean(self, band: int) -> float:
        """Their mean accuracy."""
        return float(np.mean([self.seen.accuracies[place] for place in self.of(band)]))


def build(dataset: method.ImageSet | Dataset, name: str) -> nn.Module:
    """A network with fresh weights for a data set's images and classes."""
    images = method.training_set(dataset)
    return method.network(name, images.num_classes, images.channels, images.size)


def kept_under(cache_dir: Path | None, label: str, **content: Any) -> Path | None:
    """The file of what `content` and this library's code decide; None keeps nothing."""
    if cache_dir is None:
        return None
    code = code_digest(), source_digest("synthesize", "studies/condense")
    return cache_path(cache_dir, label, ".npz", code=code, **content)


def train_whole(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Whole:
    """Train the network on all images, or take what was kept of it."""
    file = kept_under(
        cache_dir, "whole", data=dataset.key, how=settings.whole, network=settings.network,
        seed=seed,
    )  # fmt: skip
    found = kept_arrays(file, lambda: _train_whole(dataset, settings, seed))
    tensors = {name: torch.from_numpy(array) for name, array in found.items()}
    return Whole(
        float(found["accuracy"]),
        tensors["features"],
        method.Forgetting(tensors["events"], tensors["never"]),
        found["train"].tolist(),
        found["test"].tolist(),
    )


def _train_whole(dataset: Dataset, settings: Settings, seed: int) -> Arrays:
    images = method.training_set(dataset)
    curve = method.test_set(dataset.take(test=SHOWN))
    right: list[Tensor] = []
    test: list[float] = []
    correct = torch.zeros(settings.whole.epochs + 1, len(images), dtype=torch.bool)

    def seen(which: Tensor, answers: Tensor) -> None:
        correct[len(test), which] = answers
        right.append(answers)

    def after_epoch(epoch: int, network: nn.Module) -> None:
        test.append(method.accuracy(network, curve))

    trained = method.train_on(
        images,
        lambda: build(images, settings.network),
        settings.whole,
        member_seed(seed, ON_ALL),
        seen=seen,
        after_epoch=after_epoch,
    )
    forgotten = method.forgetting_events(correct)
    return {
        "accuracy": np.array(method.accuracy(trained.network, dataset)),
        "features": method.features(trained.network, images).numpy(),
        "events": forgotten.events.numpy(),
        "never": forgotten.never.numpy(),
        "train": correct.double().mean(1).numpy(),
        "test": np.array(test),
    }


def embedding_bands(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Bands:
    """Networks on the way of a few trainings, and how accurate each was on training images that
    none was shown; or what was kept of them.
    """
    judged = dataset.held_out(settings.held_out, seed)
    file = kept_under(
        cache_dir, "bands", data=judged.key, how=settings.whole, network=settings.network,
        trainings=settings.trainings, seed=seed,
    )  # fmt: skip
    found = kept_arrays(file, lambda: _embedding_bands(judged, settings, seed))
    seen = method.AccuracyBands()
    for number, accuracy in enumerate(found["accuracies"].tolist()):
        with seeded(0):
            network = build(judged, settings.network)
        state = {name: torch.from_numpy(found[f"{number} {name}"]) for name in network.state_dict()}
        network.load_state_dict(state)
        seen.networks.append(network)
        seen.accuracies.append(accuracy)
    return Bands(seen, settings.bands)


def _embedding_bands(judged: Dataset, settings: Settings, seed: int) -> Arrays:
    """Networks after 1, 2, 4, ... steps, for in the first epoch accuracy rises most. A shorter
    training of the same seed is the beginning of a longer one.
    """
    accuracies: list[float] = []
    found: Arrays = {}
    steps = settings.whole.steps(len(judged.y_train))
    for number in range(settings.trainings):
        for count in looks_at(steps, steps.bit_length()):
            network = method.train_on(
                judged,
                lambda: build(judged, settings.network),
                replace(settings.whole, iterations=count),
                member_seed(seed, ON_REST + number),
            ).network
            for name, value in network.state_dict().items():
                found[f"{len(accuracies)} {name}"] = value.cpu().numpy()
            accuracies.append(method.accuracy(network, judged))
    return {"accuracies": np.array(accuracies), **found}


def sampler(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    recipe: Recipe,
    cache_dir: Path | None = None,
) -> method.Fresh | method.Pool:
    """Where the networks of a recipe of DM come from."""
    name = recipe.network or settings.network
    if recipe.embedding == TRAINED:
        return embedding_bands(dataset, settings, seed, cache_dir).pool(recipe.band)
    if recipe.embedding == FRESH:
        return method.Fresh(dataset.num_classes, dataset.channels, dataset.size, name)
    pool = []
    for number in range(1 if recipe.embedding == ONE else TEN_OF_THEM):
        with seeded(member_seed(seed, IN_POOL + number)):
            pool.append(build(dataset, name))
    return method.Pool(pool)


def smallest_class(images: method.ImageSet | Dataset) -> int:
    """How many training images the smallest class has, of those that are there."""
    counts = method.training_set(images).labels.bincount()
    return int(counts[counts > 0].min())


def matching_settings(
    dataset: method.ImageSet | Dataset, settings: Settings, recipe: Recipe
) -> method.DMSettings:
    """The settings of DM for a recipe and the images that there are."""
    base = settings.matching
    return replace(
        base,
        ipc=recipe.ipc,
        iterations=max(1, round(base.iterations * recipe.length)),
        lr=settings.rate(recipe.ipc) * recipe.rate,
        batch_real=min(base.batch_real, smallest_class(dataset)),
        batch_syn=recipe.few,
        init=recipe.init,
        strategy=base.strategy if recipe.augmented else None,
        align_corners=recipe.align_corners,
        network=recipe.network or settings.network,
    )


def gradient_settings(
    dataset: method.ImageSet | Dataset, settings: Settings, recipe: Recipe
) -> method.GradientMatchingSettings:
    """The settings of DC, from noise and without augmentation, or of DSA; for as long as its budget
    allows.
    """
    base = settings.gradients
    siamese = recipe.method == DSA
    asked = replace(
        base,
        ipc=recipe.ipc,
        lr=base.lr * recipe.rate * (1 if siamese else settings.from_noise),
        batch_real=min(base.batch_real, smallest_class(dataset)),
        init="real" if siamese else "noise",
        strategy=base.strategy if siamese else None,
        network=settings.network,
    )
    iterations: float = base.iterations
    if settings.budget is not None:
        rival = matching_settings(dataset, settings, Recipe(ipc=recipe.ipc))
        classes = len(method.training_set(dataset).labels.unique())
        cost = rival.iterations * passes_of_matching(classes, rival)
        iterations = settings.budget * cost / passes_of_gradients(classes, asked)
    return replace(asked, iterations=max(1, round(iterations * recipe.length)))


def learning_settings(
    dataset: method.ImageSet | Dataset, settings: Settings, recipe: Recipe
) -> method.DMSettings | method.GradientMatchingSettings:
    """Of a set that is learned: `matching_settings` or `gradient_settings`."""
    make = matching_settings if recipe.method == DM else gradient_settings
    return make(dataset, settings, recipe)


def passes_of_matching(classes: int, asked: method.DMSettings) -> int:
    """What one update of DM costs, in passes of one image forward through the network.

    A gradient with respect to pixels alone counts as one pass more.
    """
    return classes * (asked.batch_real + 2 * (asked.batch_syn or asked.ipc))


def passes_of_gradients(classes: int, asked: method.GradientMatchingSettings) -> int:
    """What one outer iteration of DC or DSA costs, in passes of one image forward.

    A gradient with respect to weights and activations counts as two passes more, and the gradient
    of such a gradient as six: twice each of the three products of every layer.
    """
    outer, inner = asked.loops
    matched = classes * (3 * asked.batch_real + 9 * asked.ipc)
    trained = inner * 3 * classes * asked.ipc
    return outer * matched + (outer - 1) * trained


def looks_at(iterations: int, looks: int) -> list[int]:
    """After how many updates a set is looked at: at the end, at half of it, at a quarter, ..."""
    return sorted({max(1, round(iterations / 2**k)) for k in range(looks)})


def is_raced(settings: Settings, recipe: Recipe) -> bool:
    """Whether the set is looked at on its way."""
    return recipe.method in LEARNED and recipe == Recipe(recipe.method, settings.ipc)


def learn(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    recipe: Recipe,
    cache_dir: Path | None = None,
) -> method.Condensed:
    """A set that is learned: by DM, DC or DSA."""
    if is_raced(settings, recipe):
        return stages(dataset, settings, seed, recipe, cache_dir)[-1]
    return _learn(dataset, settings, seed, recipe, cache_dir=cache_dir)


def stages(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    recipe: Recipe,
    cache_dir: Path | None = None,
) -> list[method.Condensed]:
    """A set at the looks on its way; the last one is what `learn` returns."""
    asked = learning_settings(dataset, settings, recipe)
    real = method.training_set(dataset)
    found: list[method.Condensed] = []
    for count in looks_at(asked.iterations, settings.looks):
        file = kept_under(
            cache_dir, titled(recipe.method, recipe.ipc), data=dataset.key,
            asked=replace(asked, iterations=count), seed=seed,
        )  # fmt: skip
        state = _found(file)
        if state is None:
            before = found[-1].state if found else None
            state = _learn(dataset, settings, seed, recipe, count, before).state
            if file is not None:
                state.save(file)
        made = as_set(real, range(real.num_classes), state.images)
        found.append(method.Condensed(made, state.losses, state.seconds, state))
    return found


def _found(file: Path | None) -> method.PixelState | None:
    """What was kept, or None; a damaged file is dropped with a word."""
    if file is None or not file.exists():
        return None
    try:
        return method.PixelState.load(file)
    except ValueError as error:
        warnings.warn(f"{error}: condensing again", stacklevel=2)
        return None


def _learn(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    recipe: Recipe,
    count: int | None = None,
    resume: method.PixelState | None = None,
    cache_dir: Path | None = None,
) -> method.Condensed:
    if recipe.method == DM:
        matching = matching_settings(dataset, settings, recipe)
        return method.condense(
            dataset,
            matching if count is None else replace(matching, iterations=count),
            seed=seed,
            embed_factory=sampler(dataset, settings, seed, recipe, cache_dir),
            resume=resume,
            cache_dir=cache_dir,
            label=recipe.method,
        )
    gradients = gradient_settings(dataset, settings, recipe)
    return method.match_gradients(
        dataset,
        gradients if count is None else replace(gradients, iterations=count),
        seed=seed,
        resume=resume,
        cache_dir=cache_dir,
        label=recipe.method,
    )


def make_set(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    recipe: Recipe,
    cache_dir: Path | None = None,
) -> method.SyntheticSet:
    """A set as its recipe says; random sets are what sets of DM and DSA start from."""
    if recipe.method in LEARNED:
        return learn(dataset, settings, seed, recipe, cache_dir).set
    if recipe.method == RANDOM:
        return method.select(dataset, RANDOM, recipe.ipc, seed=seed)
    whole = train_whole(dataset, settings, seed, cache_dir)
    return method.select(
        dataset,
        recipe.method,
        recipe.ipc,
        seed=seed,
        features=whole.features,
        forgetting=whole.forgetting,
    )


def passes_of_update(dataset: Dataset, settings: Settings, recipe: Recipe) -> int:
    """What one update of DM, or one outer iteration of DC or DSA, costs, in passes of one image
    forward through the network: `passes_of_matching` or `passes_of_gradients`.
    """
    if recipe.method == DM:
        asked = matching_settings(dataset, settings, recipe)
        return passes_of_matching(dataset.num_classes, asked)
    return passes_of_gradients(dataset.num_classes, gradient_settings(dataset, settings, recipe))


def updates_of(dataset: Dataset, settings: Settings, recipe: Recipe) -> int:
    """Updates of DM, or outer iterations of DC or DSA, behind a set."""
    return learning_settings(dataset, settings, recipe).iterations
