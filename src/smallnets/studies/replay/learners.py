"""The networks of the study: the first one, its generators, and what learns a new task.

Whatever is trained is kept, so conditions share what they have in common.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smallnets.data import Augmentation, Dataset
from smallnets.storage import content_key
from smallnets.studies.networks import build_network
from smallnets.studies.questions import Questioned, Questions
from smallnets.studies.replay.conditions import DREAMT, Condition, generators
from smallnets.studies.replay.plan import EWC_STRENGTH, MAS_STRENGTH, Settings
from smallnets.studies.replay.scenarios import FAR, NEAR, scenario, sequence
from smallnets.synthesize import replay as r
from smallnets.training import Classification, fit, run_parallel

WATCHED = 600  # images of each part about which the first network is asked, at most
NEW = 1  # the step that is looked at


class First(NamedTuple):
    """A network that knows the old task, and the log of its training."""

    network: nn.Module
    history: list[dict[str, float]]


def asked(held: r.HeldOut) -> dict[str, Questions]:
    """Some training images of the old task, and some that were held out of it: what stands in the
    test part of a task for choosing.
    """
    own, judged = held.training[0].train, held.choosing[0].test
    assert isinstance(own, Dataset)
    assert isinstance(judged, Dataset)
    seen = own.for_choosing(WATCHED)
    unseen = judged.normalise(judged.x_test[:WATCHED])
    return {
        "train": Questions(seen.images, seen.labels),
        "held out": Questions(unseen, judged.y_test[:WATCHED]),
    }


def train_first(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> First:
    """A network of its own for every seed, trained on the labels of the old task, or the kept one.

    Args:
        dataset: all images.
        settings: of the study.
        seed: of the repetition.
        cache_dir: folder for finished trainings.
    """
    held = scenario(dataset, settings, NEAR)
    own = held.training[0].train
    assert isinstance(own, Dataset)
    network = build_network(settings.network, own, seed)
    history = fit(
        network,
        own,
        settings.first,
        seed=seed,
        objective=Questioned(Classification(), asked(held)),
        cache_dir=cache_dir,
        label="first",
    )
    return First(network, history)


def train_generator(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    name: str,
    cache_dir: Path | None = None,
) -> r.GeneratorResult:
    """The generator of a name, trained from the seed's first network alone. All of a seed start
    alike and are given the same latent vectors.
    """
    first = train_first(dataset, settings, seed, cache_dir).network
    shape = (dataset.channels, *dataset.size)
    how = generators(settings)[name]
    return r.train_generator(first, shape, how, seed=seed, cache_dir=cache_dir)


class Guessing(nn.Module):
    """What a training that diverged leaves: nothing, so its answers are drawn at random.

    Args:
        classes: that it may answer.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes), the same for every batch of the same length."""
        drawn = torch.Generator().manual_seed(len(images))
        return torch.randn(len(images), self.classes, generator=drawn)


def learn_or_guess(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    condition: Condition,
    rate: float,
    cache_dir: Path | None = None,
) -> nn.Module:
    """The network of `learn`; or, if the training diverged, be it in its last step, `Guessing`.

    A rate is chosen for a method, not for a seed. Where it fails in a seed, that is a result of
    the method at its rate: it is not tried again at another one, and it ends no run.
    """
    tasks = scenario(dataset, settings, condition.scenario).training
    try:
        network = learn(dataset, settings, seed, condition, rate, cache_dir)
        r.evaluate(network, tasks)
    except r.DivergedError:
        return Guessing(sum(len(task.classes) for task in tasks))
    return network


def learn(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    condition: Condition,
    rate: float,
    cache_dir: Path | None = None,
) -> nn.Module:
    """The seed's first network after it has learned the condition's new task, in evaluation mode.

    A memory-free method is given the first network, at most numbers for its weights or a
    generator, and the new task; no image of the old one.

    Args:
        dataset, settings, seed, cache_dir: as for `train_first`.
        condition: how.
        rate: highest learning rate.

    Raises:
        DivergedError: logits are not finite while it is trained.
    """
    old, new = scenario(dataset, settings, condition.scenario).training
    first = train_first(dataset, settings, seed, cache_dir).network
    method = r.METHODS[condition.method]
    generator = None
    if condition.generates:
        generator = train_generator(dataset, settings, seed, condition.generator, cache_dir)
    importance = None
    if method.penalty != "none":
        importance = keep_importance(dataset, settings, seed, method, cache_dir)
    asks = inheriting(settings, condition, rate)
    step = r.learn_task(
        first,
        new,
        condition.method,
        asks,
        step=NEW,
        seed=seed,
        importance=importance,
        earlier=() if method.memory_free else (old,),
        generator=generator,
        cache_dir=cache_dir,
    )
    return step.model


def inheriting(settings: Settings, condition: Condition, rate: float) -> r.IncrementalSettings:
    """The settings of a later step at a learning rate."""
    training = replace(settings.training, augmentation=view_of(settings, condition))
    count = training.batch_size * len(settings.old) / len(settings.new)
    factor = condition.replay_factor
    return r.IncrementalSettings(
        training=replace(training, lr=rate, final_lr=min(training.final_lr, rate)),
        first=settings.first,
        generator=generators(settings)[condition.generator],
        replay_batch=None if factor == 1 else max(2, round(factor * count)),
        replay_mode="running" if condition.generator == DREAMT else "batch",
        joint_pass=condition.joint_pass,
        freeze_bn=condition.freeze_bn,
        importance_images=settings.images,
        ewc_strength=EWC_STRENGTH,
        mas_strength=MAS_STRENGTH,
    )


def view_of(settings: Settings, condition: Condition) -> Augmentation:
    """The augmentation of a later step: that of the settings, but digits are never mirrored."""
    view = settings.training.view
    digits = condition.scenario == FAR and settings.far == "digits"
    return replace(view, flip=view.flip and not digits)


def keep_importance(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    method: r.Method,
    cache_dir: Path | None = None,
) -> dict[str, Tensor]:
    """What EWC or MAS keeps when the old task ends: a number for every weight of the first network.

    Args:
        dataset, settings, seed, cache_dir: as for `train_first`.
        method: with a penalty.
    """
    first = train_first(dataset, settings, seed, cache_dir).network
    old = scenario(dataset, settings, NEAR).training[0].train
    assert isinstance(old, Dataset)
    images = old.for_choosing(settings.images).images
    if method.penalty == "mas":
        return r.sensitivity_importance(first, images)
    return r.fisher_importance(first, images, torch.Generator().manual_seed(seed))


def learn_in_order(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    order: int | None,
    method: str,
    rate: float,
    cache_dir: Path | None = None,
) -> r.IncrementalResult:
    """A sequence of tasks, learned from its beginning. Finished steps are kept, and a run that is
    started again goes on after the last of them.

    Args:
        dataset, settings, seed, cache_dir: as for `train_first`.
        order: see `sequence`.
        method: a name of `METHODS`.
        rate: highest learning rate of later steps.
    """
    tasks = sequence(dataset, settings, order)
    parts = [task.train for task in tasks if isinstance(task.train, Dataset)]
    images = content_key(tasks=[part.key for part in parts])
    asks = inheriting(settings, Condition(NEAR, method), rate)
    return r.incremental_fit(
        build_network(settings.network, parts[0], seed),
        tasks,
        method,
        asks,
        seed=seed,
        cache_dir=cache_dir,
        progress_dir=None if cache_dir is None else cache_dir / "steps" / images,
    )


def learn_in_order_or_guess(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    order: int | None,
    method: str,
    rate: float,
    cache_dir: Path | None = None,
) -> r.IncrementalResult:
    """The result of `learn_in_order`; or, if a step diverged, that of `Guessing` in every step."""
    try:
        return learn_in_order(dataset, settings, seed, order, method, rate, cache_dir)
    except r.DivergedError:
        tasks = sequence(dataset, settings, order)
    sizes = tuple(len(task.classes) for task in tasks)
    left = [Guessing(sum(sizes[: step + 1])) for step in range(len(sizes))]
    return r.IncrementalResult(
        sizes,
        [r.LearnedStep(one, [], None, None, 0.0) for one in left],
        [r.evaluate(one, tasks[: step + 1]) for step, one in enumerate(left)],
    )


def diverged(network: nn.Module) -> float:
    """1 where a training diverged and its network guesses, else 0."""
    return float(isinstance(network, Guessing))


def side_by_side(
    train: Callable[..., Any], jobs: Sequence[Mapping[str, Any]], description: str, **common: Any
) -> None:
    """Train and keep networks, as many at a time as there are cores. What is trained is kept on
    disk, and need not be sent to the process that waits for it.
    """
    calls = [{"train": partial(train, **common, **job)} for job in jobs]
    run_parallel(_train_only, calls, description=description)


def _train_only(train: Callable[..., Any]) -> None:
    train()
