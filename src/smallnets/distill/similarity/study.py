"""The paper's experiments at three sizes, one seed a call so that seeds can run side by side."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.distill.similarity.diagnostics import measures
from smallnets.distill.similarity.objective import DistillationObjective, Layers, distil
from smallnets.models import named
from smallnets.training import TrainSettings, fit, observe, seeded

Measures = dict[str, dict[str, float]]
Objectives = Mapping[str, DistillationObjective]


@dataclass(frozen=True)
class StudySettings:
    """Sizes and weights of the chapter's experiments.

    Attributes:
        teacher, student: network names, see `smallnets.models.named`.
        train, test: images to use of each part; None is all.
        held_out: training images set aside for choosing the weights.
        seeds: repetitions of the main comparison.
        side_seeds: repetitions of the sweeps, ablations and side experiments.
        training: of teacher and students.
        alpha, temperature: of soft targets; their cross-entropy weighs 1 - alpha.
        gammas, betas: candidate weights of the similarity and the attention term.
        batch_sizes: for the ablation.
        shots: images a class in the transfer experiment.
        fine_tuning: training on them.
    """

    teacher: str
    student: str
    train: int | None
    test: int | None
    held_out: int
    seeds: int
    side_seeds: int
    training: TrainSettings
    gammas: tuple[float, ...]
    betas: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    shots: int
    fine_tuning: TrainSettings
    alpha: float = 0.9
    temperature: float = 4.0


def _small_training(epochs: int) -> TrainSettings:
    return TrainSettings(epochs=epochs, batch_size=64, augmentation=Augmentation(crop=2))


PRESETS = {
    "smoke": StudySettings(
        teacher="convnet-8",
        student="convnet-4",
        train=256,
        test=200,
        held_out=64,
        seeds=2,
        side_seeds=2,
        training=_small_training(1),
        gammas=(10, 100),
        betas=(10,),
        batch_sizes=(32,),
        shots=8,
        fine_tuning=replace(_small_training(1), batch_size=16),
    ),
    "small": StudySettings(
        teacher="convnet-32",
        student="convnet-8",
        train=4000,
        test=2000,
        held_out=800,
        seeds=5,
        side_seeds=3,
        training=_small_training(12),
        gammas=(10, 30, 100, 300, 1000, 3000),
        betas=(1, 10, 100, 1000),
        batch_sizes=(32, 128),
        shots=20,
        fine_tuning=replace(_small_training(30), batch_size=32, lr=0.03),
    ),
    # Tung & Mori, section 4.1, with the schedule of the attention-transfer code that they build on.
    "paper": StudySettings(
        teacher="wrn-40-1",
        student="wrn-16-1",
        train=None,
        test=None,
        held_out=5000,
        seeds=5,
        side_seeds=3,
        training=TrainSettings(
            epochs=200,
            batch_size=128,
            lr=0.1,
            weight_decay=5e-4,
            schedule="step",
            milestones=(60, 120, 160),
            decay=0.2,
            augmentation=Augmentation(crop=4),
        ),
        gammas=(300, 1000, 3000, 10000),
        betas=(100, 1000),
        batch_sizes=(64, 256),
        shots=50,
        fine_tuning=TrainSettings(epochs=60, batch_size=64, lr=0.01),
    ),
}


def methods(settings: StudySettings, gamma: float, beta: float) -> dict[str, DistillationObjective]:
    """The paper's comparison: the student alone, each way to use the teacher, and their pairs."""
    plain = DistillationObjective()
    soft = DistillationObjective(
        ce=1 - settings.alpha, kd=settings.alpha, temperature=settings.temperature
    )
    return {
        "alone": plain,
        "KD": soft,
        "AT": replace(plain, at=beta),
        "SP": replace(plain, sp=gamma),
        "KD+SP": replace(soft, sp=gamma),
        "AT+SP": replace(plain, at=beta, sp=gamma),
        "KD+AT": replace(soft, at=beta),
    }


def new_network(name: str, dataset: Dataset, seed: int) -> nn.Module:
    """An untrained network for the dataset's images and classes."""
    with seeded(seed):
        return named(name, dataset.num_classes, dataset.channels)


def train_teacher(
    dataset: Dataset, settings: StudySettings, seed: int, keep: Path | None = None
) -> nn.Module:
    """The teacher of a seed, trained on the labels, or taken from `keep` where it has been trained
    before.
    """
    teacher = new_network(settings.teacher, dataset, 1000 + seed)
    fit(
        teacher,
        dataset,
        settings.training,
        seed=1000 + seed,
        keep=keep,
        label=f"teacher-{settings.teacher}",
    )
    return teacher


def train_students(
    dataset: Dataset,
    objectives: Objectives,
    settings: StudySettings,
    seed: int,
    keep: Path | None = None,
) -> tuple[nn.Module, dict[str, nn.Module]]:
    """A teacher and its students, who start from the same weights and see the same stream of
    images.

    Args:
        dataset: to learn from.
        objectives: name -> objective, one student each.
        settings: networks and schedule.
        seed: of the teacher, the students' start, and the order of images.
        keep: folder for finished trainings.

    Returns:
        The teacher, and name -> student.
    """
    teacher = train_teacher(dataset, settings, seed, keep)
    students = {name: new_network(settings.student, dataset, seed) for name in objectives}
    distil(students, teacher, dataset, objectives, settings.training, seed=seed, keep=keep)
    return teacher, students


def compare(
    dataset: Dataset,
    objectives: Objectives,
    settings: StudySettings,
    seed: int,
    keep: Path | None = None,
) -> Measures:
    """Measures of every student of one seed, and of its teacher under the name "teacher"."""
    teacher, students = train_students(dataset, objectives, settings, seed, keep)
    return measures({"teacher": teacher, **students}, dataset, settings.training.batch_size)


def ablations(settings: StudySettings, gamma: float) -> dict[str, DistillationObjective]:
    """Variants of the similarity term at one weight: which layers, which normalisation.

    Other normalisations have other scales; `equal_start` brings their weights to the same start.
    """
    end = (("stage3", "stage3"),)
    layers: dict[str, Layers] = {
        "last stage (paper)": end,
        "middle stage": (("stage2", "stage2"),),
        "three stages": (("stage1", "stage1"), ("stage2", "stage2"), *end),
        "pooled features": (("pool", "pool"),),
        "logits": (("classifier", "classifier"),),
    }
    variants = {
        name: DistillationObjective(sp=gamma, sp_layers=pairs) for name, pairs in layers.items()
    }
    normalised = {f"{kind} normalisation": kind for kind in ("cosine", "frobenius", "none")}
    return variants | {
        name: DistillationObjective(sp=gamma, normalise=kind) for name, kind in normalised.items()
    }


def equal_start(
    objectives: Objectives,
    reference: str,
    dataset: Dataset,
    settings: StudySettings,
    seed: int,
    keep: Path | None = None,
) -> dict[str, DistillationObjective]:
    """The same objectives with `sp` rescaled so that, at the start, every weighted term equals the
    reference's.

    Only objectives with another normalisation than the reference's are rescaled. The terms are
    compared on the first batch of training images, with the untrained student in training mode.
    """
    teacher = train_teacher(dataset, settings, seed, keep)
    student = new_network(settings.student, dataset, seed).train()
    images = dataset.normalise(dataset.x_train[: settings.training.batch_size])
    labels = dataset.y_train[: settings.training.batch_size]

    def term(objective: DistillationObjective) -> float:
        full = objective.between(student, teacher)
        seen, shown = full.layers()
        with torch.no_grad():
            return full(observe(student, images, seen), observe(teacher, images, shown), labels)[1][
                "sp"
            ].item()

    start = term(objectives[reference])
    return {
        name: one
        if one.normalise == objectives[reference].normalise
        else replace(one, sp=one.sp * start / max(term(one), 1e-30))
        for name, one in objectives.items()
    }


def with_classifier(network: nn.Module, classes: int, seed: int) -> nn.Module:
    """A copy of a network with a new last layer, for another task."""
    changed = copy.deepcopy(network)
    with seeded(seed):
        changed.classifier = nn.Linear(changed.classifier.in_features, classes)
    return changed


def few_shot(dataset: Dataset, shots: int, seed: int) -> Dataset:
    """The dataset with only `shots` training images a class, drawn by seed."""
    count = min(shots * dataset.num_classes, len(dataset.y_train) - 1)
    drawn = dataset.held_out(count, seed)
    return replace(dataset, x_train=drawn.x_test, y_train=drawn.y_test)


def transfer(
    dataset: Dataset,
    objectives: Objectives,
    settings: StudySettings,
    seed: int,
    keep: Path | None = None,
) -> Measures:
    """The paper's transfer setting: learn one task, then a small second one with a teacher that did
    the same.

    Teacher and student are trained on the first half of the classes. Both get a new last layer; the
    teacher is fine-tuned on a few images of the other half, then the student, once with each
    objective.

    Returns:
        Measures on the second task's test images of every student and of "teacher".
    """
    half = dataset.num_classes // 2
    checks.at_least("number of classes for a transfer between halves", half, 2)
    first = dataset.classes(range(half))
    second = few_shot(dataset.classes(range(half, dataset.num_classes)), settings.shots, seed)

    pretrained = {}
    for role, name in (("teacher", settings.teacher), ("student", settings.student)):
        network = new_network(name, first, seed)
        fit(network, first, settings.training, seed=seed, keep=keep, label=f"first-task-{role}")
        pretrained[role] = with_classifier(network, second.num_classes, seed)

    teacher = pretrained["teacher"]
    tuning = settings.fine_tuning
    fit(teacher, second, tuning, seed=seed, keep=keep, label="second-task-teacher")
    students = {name: copy.deepcopy(pretrained["student"]) for name in objectives}
    distil(students, teacher, second, objectives, tuning, seed=seed, keep=keep)
    return measures({"teacher": teacher, **students}, second, settings.training.batch_size)


def corrupted(dataset: Dataset, seed: int) -> Dataset:
    """A harder relative of a dataset: every image gets one of noise, blur, low contrast or
    darkness.

    It stands in for the paper's larger and more varied second dataset, whose images come from
    another source.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = {part: _corrupt(getattr(dataset, part), generator) for part in ("x_train", "x_test")}
    return replace(dataset, name=f"{dataset.name} corrupted", **parts)


def _corrupt(images: Tensor, generator: torch.Generator) -> Tensor:
    kinds = torch.randint(4, (len(images),), generator=generator)
    x = images.float() / 255
    middle = x.mean(dim=(1, 2, 3), keepdim=True)
    versions = (
        x + 0.15 * torch.randn(x.shape, generator=generator),
        F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1),
        middle + 0.4 * (x - middle),
        0.4 * x,
    )
    for kind, version in enumerate(versions):
        x = torch.where((kinds == kind).view(-1, 1, 1, 1), version, x)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)
