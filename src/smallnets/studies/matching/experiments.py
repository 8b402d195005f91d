"""The paper's experiments: one student and seed a call, to run side by side.

The situation is the paper's. A teacher has learnt from many images, its students may look at only a
few of them, and have time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks, measure
from smallnets.data import Dataset
from smallnets.data.photographs import photograph
from smallnets.distill.matching.diagnostics import answers_and_features, measures
from smallnets.distill.matching.objective import match, unlabelled
from smallnets.distill.matching.published import published_teacher
from smallnets.models import StagedNetwork
from smallnets.studies.matching.plan import Settings
from smallnets.studies.matching.students import IMAGES, StudentConfig, costs, regimes
from smallnets.studies.networks import build_network
from smallnets.studies.seeds import teacher_seed
from smallnets.studies.study import Measures, by_seed, every, run_grid

PROBE = 1000  # transfer images on which students are measured


def run_students(
    configs: Mapping[str, StudentConfig],
    dataset: Dataset,
    settings: Settings,
    seeds: int,
    cache_dir: Path | None = None,
    description: str = "students",
) -> list[Measures]:
    """Train every student with every seed, side by side, the longest trainings first.

    Returns:
        One dictionary a seed: the measures of the "teacher" and of every student.
    """
    ordered = sorted(configs, key=lambda name: -configs[name].passes)
    grid = run_grid(
        evaluate_pair,
        every({name: {"config": configs[name]} for name in ordered}, seeds),
        description=description,
        dataset=dataset,
        settings=settings,
        cache_dir=cache_dir,
    )
    return [
        {"teacher": seed[ordered[0]]["teacher"]} | {name: seed[name]["student"] for name in configs}
        for seed in by_seed(grid)
    ]


def measurements(
    results: Sequence[Measures], settings: Settings, dataset: Dataset
) -> dict[str, Any]:
    """What the students of `patience` gave, as a record holds it: name -> one entry a seed.

    "accuracy" and "agreement" are those of the teacher and of the longest trainings, one number a
    seed. "by length" holds every measure and the costs: regime -> one list a seed, with one number
    for each of the "lengths".
    """
    names, count = list(regimes(settings)), len(results)
    table: dict[str, dict[str, Any]] = {
        kind: {
            name: [[seed[f"{name}, {n}"][kind] for n in settings.lengths] for seed in results]
            for name in names
        }
        for kind in ("agreement", "accuracy", "accuracy train", "kl", "kl train", "entropy")
    }
    table["cost"] = {name: [one] * count for name, one in costs(settings, dataset).items()}
    longest = {
        kind: {"teacher": [seed["teacher"][kind] for seed in results]}
        | {name: [one[-1] for one in table[kind][name]] for name in names}
        for kind in ("accuracy", "agreement", "entropy")
    }
    return {"lengths": [list(settings.lengths)] * count, "by length": table, **longest}


def evaluate_pair(
    dataset: Dataset,
    config: StudentConfig,
    settings: Settings,
    seed: int,
    cache_dir: Path | None = None,
) -> Measures:
    """Measures of one "student" with one seed, and of its "teacher": those of
    `smallnets.distill.matching.measures`, and "accuracy train" on transfer images.
    """
    teacher, student, _ = train_pair(dataset, config, settings, seed, cache_dir)
    plain = settings.matching.seen_at(dataset.x_train)[0]
    finer = config.matching.seen_at(dataset.x_train)
    sides = config.matching.teacher_sides(dataset.x_train, config.teachers)
    own, networks = transfer_set(dataset, settings), {"teacher": teacher, "student": student}
    at = {"teacher": max(plain, sides[0]), "student": finer[0]}
    found = measures(networks, own, at, settings.evaluation_side, PROBE)
    for name, network in networks.items():
        seen = answers_and_features(
            network, own, own.x_train[:PROBE], at[name], settings.evaluation_side
        )
        found[name]["accuracy train"] = measure.accuracy(seen.logits, own.y_train[:PROBE])
    return found


def train_pair(
    dataset: Dataset,
    config: StudentConfig,
    settings: Settings,
    seed: int,
    cache_dir: Path | None = None,
) -> tuple[StagedNetwork, StagedNetwork, list[dict[str, float]]]:
    """The teacher, the trained student of one configuration and seed, and its training's log, see
    `smallnets.distill.matching.match`.

    Args:
        dataset: all that the teacher knows; the student gets a part of it.
        config: what the student is.
        settings: networks and trainings.
        seed: of teacher, student and training; students of one seed start alike.
        cache_dir: folder for finished trainings.
    """
    ask = config.matching
    sides = ask.teacher_sides(dataset.x_train, config.teachers)
    # A published checkpoint is one teacher; others are trained.
    trained = replace(settings, published=None)
    teachers = [
        train_teacher(dataset, trained if i else settings, seed, cache_dir, side, i)
        for i, side in enumerate(sides)
    ]
    network = config.network or settings.student
    student = build_network(network, dataset, seed)
    if config.start == "pretrained":
        student = pretrained(dataset, settings, network, seed, cache_dir)
    own = transfer_set(dataset, settings)
    if config.images != "own":
        own = unlabelled(own, other_images(config.images, dataset, len(own.x_train), seed))
    training = replace(
        settings.training,
        epochs=config.passes,
        warmup_epochs=_warmup(settings, config.passes),
        optimizer=config.optimizer,
        batch_size=min(settings.training.batch_size, len(own.x_train)),
    )
    if config.lr is not None:
        training = replace(training, lr=config.lr)
    if config.weight_decay is not None:
        training = replace(training, weight_decay=config.weight_decay)
    log = match(
        student, teachers, own, ask, training, seed=seed, cache_dir=cache_dir, label="student"
    )
    return teachers[0], student, log


def _warmup(settings: Settings, passes: int) -> float:
    """Epochs of warm-up: the recipe's where it has some, else a share of the training."""
    fixed = settings.training.warmup_epochs
    return min(fixed, passes / 2) if fixed else settings.warmup * passes


def train_teacher(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    cache_dir: Path | None = None,
    resolution: int | None = None,
    number: int = 0,
) -> StagedNetwork:
    """A teacher of a seed, trained on the labels of all training images, or read from the
    settings' published checkpoint.

    Args:
        dataset, settings: what it learns and how.
        seed: of the repetition, which has its own teachers.
        cache_dir: folder for finished trainings.
        resolution: at which it sees images; None is the students'.
        number: which of the teachers.
    """
    if settings.published is not None:
        return published_teacher(settings.teacher, settings.published, dataset)
    own = teacher_seed(seed, number)
    teacher = build_network(settings.teacher, dataset, own)
    view = replace(settings.matching, view="same/rc", labels=1.0)
    view = replace(view, resolution=resolution or view.resolution, teacher_resolution=None)
    steps = settings.teaching
    training = replace(steps, warmup_epochs=steps.warmup_epochs or settings.warmup * steps.epochs)
    match(teacher, (), dataset, view, training, seed=own, cache_dir=cache_dir, label="teacher")
    return teacher


def pretrained(
    dataset: Dataset,
    settings: Settings,
    network: str,
    seed: int,
    cache_dir: Path | None = None,
) -> StagedNetwork:
    """A student that has learnt labels of the images that students do not get."""
    student = build_network(network, dataset, seed)
    size = len(transfer_set(dataset, settings).y_train)
    rest = dataset  # where too little is left, all images, as in the published recipes
    if len(dataset.y_train) - size >= settings.training.batch_size:
        rest = replace(
            dataset,
            x_train=dataset.x_train[size:],
            y_train=dataset.y_train[size:],
            moments=(dataset.mean, dataset.std),
        )
    view = replace(settings.matching, view="same/rc", labels=1.0)
    passes = max(1, settings.side_length // 2)
    training = replace(settings.training, epochs=passes, warmup_epochs=_warmup(settings, passes))
    match(student, (), rest, view, training, seed=seed, cache_dir=cache_dir, label="pretrained")
    return student


def transfer_set(dataset: Dataset, settings: Settings) -> Dataset:
    """What students may look at: the first of the training images, on the teacher's scale."""
    count = min(settings.transfer or len(dataset.y_train), len(dataset.y_train))
    part = dataset.take(train=count)
    return replace(part, moments=(dataset.mean, dataset.std))


def other_images(kind: str, dataset: Dataset, count: int, seed: int) -> Tensor:
    """Images that have nothing to do with a dataset: uint8 (count, channels, height, width).

    Args:
        kind: "photographs" cuts windows out of three photographs, "noise" draws every pixel with
            the mean and deviation of the dataset's channel.
        dataset: for size and channels.
        count: how many.
        seed: of the random numbers.
    """
    checks.one_of("images", kind, IMAGES[1:])
    generator = torch.Generator().manual_seed(seed)
    height, width = dataset.size
    shape = (count, dataset.channels, height, width)
    if kind == "noise":
        mean, std = (x.view(-1, 1, 1) * 255 for x in (dataset.mean, dataset.std))
        noise = mean + std * torch.randn(shape, generator=generator)
        return noise.round().clamp(0, 255).to(torch.uint8)
    images = torch.empty(shape, dtype=torch.uint8)
    sources = [photograph(name) for name in ("china", "flower", "chelsea")]
    drawn = torch.rand(count, 3, generator=generator)
    for place, (which, down, right) in enumerate(drawn.tolist()):
        source = sources[int(which * len(sources))]
        tall, wide = source.shape[1:]
        side = min(tall, wide, 4 * max(height, width))
        top, left = int(down * (tall - side)), int(right * (wide - side))
        window = source[None, :, top : top + side, left : left + side].float()
        small = F.interpolate(window, (height, width), mode="area")[0]
        if dataset.channels == 1:
            small = small.mean(dim=0, keepdim=True)
        images[place] = small.round().to(torch.uint8)
    return images
