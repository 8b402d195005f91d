"""Teachers, and students as a `Condition` says."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smallnets import measure
from smallnets.data import Augmentation, Dataset, load
from smallnets.distill.fidelity.objective import Ensemble, EnsembleDistillation
from smallnets.distill.fidelity.policies import policies
from smallnets.distill.fidelity.sources import ClassGaussian, foreign_images, halves
from smallnets.distill.fidelity.start import between
from smallnets.studies.fidelity.conditions import Condition
from smallnets.studies.fidelity.plan import Settings
from smallnets.studies.networks import build_network
from smallnets.studies.questions import Questioned, Questions
from smallnets.studies.seeds import member_seed
from smallnets.surgery import recalibrate
from smallnets.training import (
    Classification,
    JointModels,
    TrainSettings,
    fit,
    run_parallel,
    teaching,
)

CHANNELS_LAST = torch.channels_last
WATCHED = 600  # images of each part about which a network is asked while it is trained, at most
History = list[dict[str, float]]


class Trained(NamedTuple):
    """A network after its training, before it, and the log."""

    network: nn.Module
    start: nn.Module
    history: History


def own_images(dataset: Dataset, seed: int) -> Dataset:
    """The half of the training images that a seed's teachers see: D0 of section 5.2."""
    return halves(dataset, seed)[0]


def train_teacher(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    member: int = 0,
    cache_dir: Path | None = None,
) -> Trained:
    """One of a seed's teachers, trained on the labels of its half of the images, or taken from
    `cache_dir`.

    Args:
        dataset: all images.
        settings: of the study.
        seed: of the repetition.
        member: which teacher, from 0; all of a seed see the same images.
        cache_dir: folder for finished trainings.
    """
    own = own_images(dataset, seed)
    number = member_seed(seed, member)
    network = build_network(settings.network, own, number, norm=settings.norm)
    start = build_network(settings.network, own, number, norm=settings.norm)
    asked = Questions(own.normalise(own.x_train[:WATCHED]), own.y_train[:WATCHED])
    parts = {"train": asked, "test": on_test(own, WATCHED)}
    history = fit(
        network,
        own,
        settings.teaching,
        seed=number,
        objective=Questioned(Classification(), parts),
        cache_dir=cache_dir,
        label="teacher",
    )
    return Trained(network, start, history)


def train_student(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    condition: Condition,
    cache_dir: Path | None = None,
) -> Trained:
    """A student of a seed's teachers, or the kept one. It sees no label unless the condition's
    objective asks for them.
    """
    ask = condition.objective
    count = ask.members or 1
    teachers = [
        train_teacher(dataset, settings, seed, condition.teacher + member, cache_dir).network
        for member in range(count)
    ]
    shown = shown_images(dataset, seed, condition)
    training = training_of(dataset, settings, seed, condition, len(shown.y_train))
    network = start_of(dataset, settings, seed, condition, cache_dir)
    start = between(network, network, 1.0)
    together = Ensemble(teachers)
    objective = EnsembleDistillation(
        together, {"student": ask}, getattr(training.view, "share", 0.0)
    )
    parts = {"train": answered(together, shown.normalise(shown.x_train[:WATCHED]))}
    parts["test"] = answered(together, on_test(shown, WATCHED).images)
    with teaching([together], training.accelerator, CHANNELS_LAST):
        history = fit(
            JointModels({"student": network}),
            shown,
            training,
            seed=seed,
            objective=Questioned(objective, parts),
            cache_dir=cache_dir,
            label="student",
        )
    return Trained(network, start, history)


def on_test(dataset: Dataset, count: int | None = None) -> Questions:
    """The test images (the first `count`), prepared, and their labels: to report, not to choose."""
    return Questions(dataset.normalise(dataset.x_test[:count]), dataset.y_test[:count])


def answered(teacher: Ensemble, images: Tensor) -> Questions:
    """Images (n, channels, height, width) with the first choices of a teacher as answers."""
    logits = torch.stack([measure.predict(one, images) for one in teacher.members], dim=1)
    return Questions(images, logits.softmax(2).mean(1).argmax(1))


def shown_images(dataset: Dataset, seed: int, condition: Condition) -> Dataset:
    """The images of a student, normalised as its teacher knows them."""
    own, fresh = halves(dataset, seed)
    shown = {"own": own, "fresh": fresh, "both": dataset}[condition.shown]
    if condition.amount < 1:
        shown = shown.divided(max(2, round(condition.amount * len(shown.y_train))), seed)[1]
    return shown.normalised_like(own)


def of_equal_length(training: TrainSettings, images: int, reference: int) -> TrainSettings:
    """The training on `images` images with about as many steps as on `reference` of them."""
    batch_size = min(training.batch_size, images)
    steps = training.epochs * (reference // training.batch_size)
    longer = training.with_epochs(max(1, round(steps / (images // batch_size))))
    return replace(longer, batch_size=batch_size)


def training_of(
    dataset: Dataset, settings: Settings, seed: int, condition: Condition, images: int
) -> TrainSettings:
    """How a student is trained that is shown some number of images."""
    training = settings.training
    training = training.with_epochs(max(1, round(condition.length * training.epochs)))
    training = of_equal_length(training, images, len(own_images(dataset, seed).y_train))
    adam = condition.optimizer == "adam"
    rate = settings.adam_lr if adam else scaled_rate(settings, condition.rate)
    return replace(
        training,
        optimizer=condition.optimizer,
        lr=rate,
        final_lr=min(training.final_lr, rate),
        augmentation=view_of(dataset, settings, seed, condition.view),
    )


def scaled_rate(settings: Settings, share: float) -> float:
    """A share of the students' learning rate, but at least where the schedule ends."""
    return max(settings.training.lr * share, settings.training.final_lr, 1e-12)


def view_of(dataset: Dataset, settings: Settings, seed: int, name: str) -> Augmentation:
    """The data policy of a name. Generated images come from `ClassGaussian`, a stand-in for the
    paper's adversarial network, and are made anew for every seed.
    """
    if name == "baseline":
        return settings.training.view
    own = own_images(dataset, seed)
    made = foreign = None
    if name == "generated":
        generator = torch.Generator().manual_seed(seed)
        made = ClassGaussian.fitted(own).sample(len(own.y_train), generator)
    if name == "out of domain" and settings.foreign is not None:
        other = load(settings.foreign, train=settings.foreign_images, test=1)
        foreign = foreign_images(own, other)
    return policies(own, settings.training.view, made, foreign, settings.share)[name]


def start_of(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    condition: Condition,
    cache_dir: Path | None = None,
) -> nn.Module:
    """Where a student starts. Statistics of a start between two networks belong to neither; one
    pass over the training images refreshes them.
    """
    own = own_images(dataset, seed)
    name = condition.network or settings.network
    random = build_network(name, own, seed, norm=settings.norm)
    if condition.start == "random" or condition.lam == 0:
        return random
    taught = train_teacher(
        dataset, settings, seed, int(condition.start == "another teacher"), cache_dir
    )
    if condition.start == "teacher's first weights":
        return between(taught.start, random, condition.lam)
    size = settings.training.batch_size
    batches = seen_images(own, settings.training.view, size).split(size)
    return recalibrate(between(taught.network, random, condition.lam), batches, reset=False)


def seen_images(
    dataset: Dataset, view: Augmentation, batch_size: int, count: int | None = None
) -> Tensor:
    """Random training images as a student sees them, normalised; always the same draw.

    Args:
        dataset: whose training images are shown.
        view: under which they are.
        batch_size: images that are viewed together.
        count: how many, at most; None is all.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randperm(len(dataset.x_train), generator=generator)[:count]
    images = dataset.x_train[drawn].split(batch_size)
    return torch.cat([view(dataset.normalise(x), generator) for x in images])


def train_side_by_side(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    conditions: Mapping[str, Condition],
    cache_dir: Path,
) -> None:
    """Train and keep one seed's networks, as many at a time as there are cores; the longest first,
    so that no worker is left alone with it at the end.
    """
    common = {"dataset": dataset, "settings": settings, "seed": seed, "cache_dir": cache_dir}
    members = max(one.teacher + (one.objective.members or 1) for one in conditions.values())
    teachers = [{"member": member, **common} for member in range(max(2, members))]
    run_parallel(_train_only, [{"function": train_teacher, **one} for one in teachers],
                 description="teachers")  # fmt: skip
    longest = sorted(conditions.values(), key=lambda one: -one.length)
    students = [{"condition": one, **common} for one in longest]
    run_parallel(_train_only, [{"function": train_student, **one} for one in students],
                 description="students")  # fmt: skip


def _train_only(function: Callable[..., Trained], **arguments: Any) -> None:
    """What is trained is kept on disk, and need not be sent to the process that waits for it."""
    function(**arguments)
