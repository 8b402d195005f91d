"""The paper's experiments, one seed a call so that seeds can run side by side."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.data import Dataset
from smallnets.distill.similarity.diagnostics import measures
from smallnets.distill.similarity.losses import NORMALISATIONS, sp_loss
from smallnets.distill.similarity.objective import DistillationObjective, Layers, distil
from smallnets.studies.networks import build_network, train_network
from smallnets.studies.seeds import teacher_seed
from smallnets.studies.similarity.plan import Settings
from smallnets.studies.study import Measures
from smallnets.training import fit, observe, seeded

Objectives = Mapping[str, DistillationObjective]


def methods(settings: Settings, gamma: float, beta: float) -> dict[str, DistillationObjective]:
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


def train_teacher(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> nn.Module:
    """The teacher of a seed, trained on the labels."""
    return train_network(
        settings.teacher, dataset, settings.training, teacher_seed(seed), cache_dir,
        label=f"teacher-{settings.teacher}",
    )  # fmt: skip


def train_students(
    dataset: Dataset,
    objectives: Objectives,
    settings: Settings,
    seed: int,
    cache_dir: Path | None = None,
    batch_size: int | None = None,
) -> tuple[nn.Module, dict[str, nn.Module]]:
    """A teacher and its students, who start from the same weights and see the same images.

    Args:
        dataset: to learn from.
        objectives: name -> objective, one student each.
        settings: networks and schedule.
        seed: of the teacher, the students' start, and the order of images.
        cache_dir: folder for finished trainings.
        batch_size: of the students' training, if not the settings'.

    Returns:
        The teacher, and name -> student.
    """
    teacher = train_teacher(dataset, settings, seed, cache_dir)
    students = {name: build_network(settings.student, dataset, seed) for name in objectives}
    training = replace(settings.training, batch_size=batch_size or settings.training.batch_size)
    distil(students, teacher, dataset, objectives, training, seed=seed, cache_dir=cache_dir)
    return teacher, students


def compare(
    dataset: Dataset,
    objectives: Objectives,
    settings: Settings,
    seed: int,
    cache_dir: Path | None = None,
    batch_size: int | None = None,
    judged_on: Dataset | None = None,
) -> Measures:
    """Measures of every student of one seed, and of its teacher under the name "teacher".

    Args: as `train_students`; `judged_on` gives other test images than the dataset's own.
    """
    teacher, students = train_students(dataset, objectives, settings, seed, cache_dir, batch_size)
    networks = {"teacher": teacher, **students}
    return measures(networks, judged_on or dataset, settings.training.batch_size)


def sweep(settings: Settings) -> dict[str, DistillationObjective]:
    """A student alone, and one for every candidate weight, named "SP 100" or "AT 10"."""
    weights = {f"SP {gamma:g}": DistillationObjective(sp=gamma) for gamma in settings.gammas}
    weights |= {f"AT {beta:g}": DistillationObjective(at=beta) for beta in settings.betas}
    return {"alone": DistillationObjective(), **weights}


def ablations(settings: Settings, gamma: float) -> dict[str, DistillationObjective]:
    """Variants of the similarity term at one weight: other layers, another normalisation.

    Other normalisations have other scales; `equal_start` brings their weights to the same start.
    """
    end = (("stage3", "stage3"),)
    layers: dict[str, Layers] = {
        "middle stage": (("stage2", "stage2"),),
        "three stages": (("stage1", "stage1"), ("stage2", "stage2"), *end),
        "pooled features": (("pool", "pool"),),
    }
    variants = {
        name: DistillationObjective(sp=gamma, sp_layers=pairs) for name, pairs in layers.items()
    }
    kinds = {f"{kind} normalisation": kind for kind in ("cosine", "none")}
    return variants | {
        name: DistillationObjective(sp=gamma, normalise=kind) for name, kind in kinds.items()
    }


def equal_start(
    objectives: Objectives,
    dataset: Dataset,
    settings: Settings,
    seed: int,
    cache_dir: Path | None = None,
) -> dict[str, DistillationObjective]:
    """The same objectives, with `sp` of other normalisations rescaled to start at the paper's size.

    A weight means nothing for a term of another scale. So `sp` is changed to make the weighted term
    what it is with row normalisation, on the first batch and with the untrained student.
    """
    teacher = train_teacher(dataset, settings, seed, cache_dir)
    student = build_network(settings.student, dataset, seed).train()
    images, _ = dataset.for_choosing(settings.training.batch_size)
    layer = student.stage_names[-1]
    with torch.no_grad():
        seen = observe(student, images, (layer,)).features[layer]
        shown = observe(teacher, images, (layer,)).features[layer]
    start = {kind: sp_loss(seen, shown, kind).item() for kind in NORMALISATIONS}
    # Three digits: the last bits of a large product differ between machines, and even runs.
    ratio = {kind: float(f"{start['row'] / max(loss, 1e-30):.3g}") for kind, loss in start.items()}
    return {
        name: replace(one, sp=one.sp * ratio[one.normalise]) for name, one in objectives.items()
    }


def with_classifier(network: nn.Module, classes: int, seed: int) -> nn.Module:
    """A copy of a network with a new last layer, for another task."""
    changed = copy.deepcopy(network)
    with seeded(seed):
        changed.classifier = nn.Linear(changed.classifier.in_features, classes)
    return changed


def few_shot(dataset: Dataset, shots: int, seed: int) -> Dataset:
    """The dataset with only `shots` training images a class on average, drawn by seed in the
    classes' proportions.
    """
    count = min(shots * dataset.num_classes, len(dataset.y_train) - 1)
    return dataset.divided(count, seed)[1]


def transfer(
    dataset: Dataset,
    objectives: Objectives,
    settings: Settings,
    seed: int,
    cache_dir: Path | None = None,
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
    second = second.normalised_like(first)

    pretrained = {}
    for role, name in (("teacher", settings.teacher), ("student", settings.student)):
        network = train_network(
            name, first, settings.training, seed, cache_dir, label=f"first-task-{role}"
        )
        pretrained[role] = with_classifier(network, second.num_classes, seed)

    teacher = pretrained["teacher"]
    tuning = settings.fine_tuning
    fit(teacher, second, tuning, seed=seed, cache_dir=cache_dir, label="second-task-teacher")
    students = {name: copy.deepcopy(pretrained["student"]) for name in objectives}
    distil(students, teacher, second, objectives, tuning, seed=seed, cache_dir=cache_dir)
    return measures({"teacher": teacher, **students}, second, settings.training.batch_size)


def corrupted(dataset: Dataset, seed: int) -> Dataset:
    """A harder relative of a dataset: every image gets one of noise, blur, low contrast or
    darkness.

    It stands in for the paper's larger and more varied second dataset, whose images come from
    another source.
    """
    generator = torch.Generator().manual_seed(seed)
    changed = dataset.changed(lambda images: _corrupt(images, generator))
    return replace(changed, name=f"{dataset.name} corrupted").normalised_like(dataset)


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
