"""Students that start near their teacher, and the loss around them: section 6.2.

The published code multiplies the learning rate by 1 - lambda, which the paper does not say. So
every start between teacher and random has two controls: a random start at the same reduced rate,
and the same start at the full rate.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from smallnets.data import Dataset
from smallnets.distill.fidelity.objective import Ensemble, Objective, distill_from_ensemble
from smallnets.distill.fidelity.start import between
from smallnets.distill.fidelity.surface import (
    Surface,
    distillation_gap,
    loss_surface,
    straight_path,
)
from smallnets.studies.fidelity.plan import Settings
from smallnets.studies.fidelity.students import (
    StudentEvaluator,
    seen_images,
    train_teacher,
)
from smallnets.studies.networks import build_network
from smallnets.studies.seeds import member_seed
from smallnets.studies.study import Measures
from smallnets.surgery import recalibrate

RANDOM, FIRST = "random", "teacher's first weights"


class StartAndEnd(NamedTuple):
    """A student before and after its training."""

    start: nn.Module
    end: nn.Module


def scaled_rate(settings: Settings, lam: float) -> float:
    """Learning rate of the published code for a start at `lam`: lr (1 - lam), at least where the
    schedule ends.
    """
    return max(settings.training.lr * (1 - lam), settings.training.final_lr, 1e-12)


def train_from_starts(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> tuple[nn.Module, dict[str, StartAndEnd]]:
    """A teacher, and students from every start and at every rate.

    Returns:
        The teacher, and students called "λ = 0" (random), "λ = 0.5" (reduced rate), "random, rate
        of λ = 0.5", "λ = 0.5, full rate" and "teacher's first weights" (full rate).
    """
    teacher = train_teacher(dataset, settings, seed, 0, cache_dir, settings.near_norm)
    random_init = build_network(settings.network, dataset, seed, norm=settings.near_norm)
    first = build_network(settings.network, dataset, member_seed(seed, 0), norm=settings.near_norm)
    size = settings.training.batch_size
    batches = seen_images(dataset, settings.training.view, size).split(size)

    def start(lam: float) -> nn.Module:
        return recalibrate(between(teacher, random_init, lam), batches, reset=False)

    groups = {0.0: {"λ = 0": random_init, FIRST: first}}
    for lam in settings.lams:
        groups[0.0][f"λ = {lam:g}, full rate"] = start(lam)
        groups.setdefault(lam, {})[f"λ = {lam:g}"] = start(lam)
        groups[lam][f"{RANDOM}, rate of λ = {lam:g}"] = copy.deepcopy(random_init)
    found: dict[str, StartAndEnd] = {}
    for lam, students in groups.items():
        starts = {name: copy.deepcopy(one).eval() for name, one in students.items()}
        rate = scaled_rate(settings, lam)
        training = replace(
            settings.training, lr=rate, final_lr=min(settings.training.final_lr, rate)
        )
        objectives = dict.fromkeys(students, Objective(temperature=settings.temperature))
        distill_from_ensemble(
            students,
            Ensemble([teacher]),
            dataset,
            objectives,
            training,
            seed=seed,
            cache_dir=cache_dir,
        )
        found |= {name: StartAndEnd(starts[name], one) for name, one in students.items()}
    return teacher, found


def near_teacher(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measures:
    """Measures of the students of `train_from_starts`, with "start agreement" on training images
    before the first step.
    """
    teacher, found = train_from_starts(dataset, settings, seed, cache_dir)
    evaluate = StudentEvaluator(teacher, dataset, settings.training)
    return {
        name: {**evaluate(one.end), "start agreement": evaluate.agreement_before(one.start)}
        for name, one in found.items()
    }


class Landscape(NamedTuple):
    """The loss around one student's training."""

    surface: Surface
    path: tuple[Tensor, Tensor]  # from the student's end to the teacher


def landscapes(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    cache_dir: Path | None = None,
    names: tuple[str, ...] = ("λ = 0",),
    images: int = 300,
    points: int = 11,
) -> dict[str, Landscape]:
    """The loss in the plane of teacher, start and end of some students of `train_from_starts`.

    Args:
        names: of the students.
        images: training images, under one fixed draw of the view, on which the loss is taken.
        points: of each side of the grid.
    """
    teacher, found = train_from_starts(dataset, settings, seed, cache_dir)
    training = settings.training
    viewed = seen_images(dataset, training.view, training.batch_size, images)
    gap = distillation_gap(teacher, viewed, settings.temperature)
    return {
        name: Landscape(
            loss_surface(teacher, *found[name], gap, points),
            straight_path(found[name].end, teacher, gap, points),
        )
        for name in names
    }
