"""The paper's experiments at three sizes, one seed a call so that seeds can run side by side."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.data import Augmentation, Dataset, load
from smallnets.distill.similarity.diagnostics import measures
from smallnets.distill.similarity.losses import NORMALISATIONS, sp_loss
from smallnets.distill.similarity.objective import DistillationObjective, Layers, distil
from smallnets.models import named
from smallnets.training import TrainSettings, fit, observe, seeded, with_seeds

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
        side_seeds: repetitions of the ablations.
        sweep_seeds: repetitions of the search for weights.
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
    sweep_seeds: int
    training: TrainSettings
    gammas: tuple[float, ...]
    betas: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    shots: int
    fine_tuning: TrainSettings
    alpha: float = 0.9
    temperature: float = 4.0


def _quick(epochs: int, batch_size: int = 64, lr: float = 0.3) -> TrainSettings:
    """Short training; without the warm-up seeds end ten points apart (held-out images)."""
    return TrainSettings(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        warmup_epochs=3 * epochs / 8,
        augmentation=Augmentation(crop=2),
    )


PRESETS = {
    "smoke": StudySettings(
        teacher="convnet-8",
        student="convnet-4",
        train=256,
        test=200,
        held_out=64,
        seeds=2,
        side_seeds=1,
        sweep_seeds=1,
        training=_quick(epochs=1),
        gammas=(10, 100),
        betas=(10,),
        batch_sizes=(32,),
        shots=8,
        fine_tuning=_quick(epochs=1, batch_size=16),
    ),
    "small": StudySettings(
        teacher="convnet-32",
        student="convnet-8",
        train=2240,
        test=2000,
        held_out=400,
        seeds=5,
        side_seeds=3,
        sweep_seeds=2,
        training=_quick(epochs=8),
        gammas=(10, 50, 250, 1500),  # the last is the published 3000 b / 128
        betas=(1, 10, 100),
        batch_sizes=(32, 128),
        shots=20,
        fine_tuning=_quick(epochs=30, batch_size=32, lr=0.05),
    ),
    # Tung & Mori's CIFAR-10 experiment, with the schedule of the attention-transfer code on which
    # it builds; the second of their teachers for this student is wrn-16-2.
    "paper": StudySettings(
        teacher="wrn-40-1",
        student="wrn-16-1",
        train=None,
        test=None,
        held_out=5000,
        seeds=5,
        side_seeds=3,
        sweep_seeds=2,
        training=TrainSettings(
            epochs=200,
            batch_size=128,
            lr=0.1,
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


def prepare(
    name: str,
    scale: str,
    *,
    seeds: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    train: int | None = None,
    epochs: int | None = None,
    flips: bool | None = None,
) -> tuple[Dataset, StudySettings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Args:
        name: of the data set, for `smallnets.data.load`.
        scale: name of a preset.
        seeds: repetitions of every experiment.
        device, precision: of all trainings.
        train: training images.
        epochs: of the main trainings; a step schedule keeps its shape.
        flips: whether mirrored images keep their label; None asks the data set.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    checks.one_of("scale", scale, PRESETS)
    preset = with_seeds(PRESETS[scale], seeds)
    if epochs is not None:
        preset = replace(preset, training=preset.training.lasting(epochs))
    dataset = load(
        name, train=preset.train if train is None else train, test=preset.test, flips=flips
    )

    images = len(dataset.y_train)
    held_out = min(preset.held_out, images // 5)
    largest = max(preset.training.batch_size, *preset.batch_sizes)
    checks.at_least("number of training images", images, largest + held_out)
    crop = min(preset.training.augmentation.crop, *(side // 4 for side in dataset.size))
    view = Augmentation(crop, flip=dataset.flips)

    def here(training: TrainSettings) -> TrainSettings:
        return replace(training, augmentation=view, device=device, precision=precision)

    settings = replace(
        preset,
        train=images,
        test=len(dataset.y_test),
        held_out=held_out,
        training=here(preset.training),
        fine_tuning=here(preset.fine_tuning),
    )
    return dataset, settings


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
    batch_size: int | None = None,
) -> tuple[nn.Module, dict[str, nn.Module]]:
    """A teacher and its students, who start from the same weights and see the same images.

    Args:
        dataset: to learn from.
        objectives: name -> objective, one student each.
        settings: networks and schedule.
        seed: of the teacher, the students' start, and the order of images.
        keep: folder for finished trainings.
        batch_size: of the students' training, if not the settings'.

    Returns:
        The teacher, and name -> student.
    """
    teacher = train_teacher(dataset, settings, seed, keep)
    students = {name: new_network(settings.student, dataset, seed) for name in objectives}
    training = replace(settings.training, batch_size=batch_size or settings.training.batch_size)
    distil(students, teacher, dataset, objectives, training, seed=seed, keep=keep)
    return teacher, students


def compare(
    dataset: Dataset,
    objectives: Objectives,
    settings: StudySettings,
    seed: int,
    keep: Path | None = None,
    batch_size: int | None = None,
    judged_on: Dataset | None = None,
) -> Measures:
    """Measures of every student of one seed, and of its teacher under the name "teacher".

    Args: as `train_students`; `judged_on` gives other test images than the dataset's own.
    """
    teacher, students = train_students(dataset, objectives, settings, seed, keep, batch_size)
    networks = {"teacher": teacher, **students}
    return measures(networks, judged_on or dataset, settings.training.batch_size)


def sweep(settings: StudySettings) -> dict[str, DistillationObjective]:
    """A student alone, and one for every candidate weight, named "SP 100" or "AT 10"."""
    weights = {f"SP {gamma:g}": DistillationObjective(sp=gamma) for gamma in settings.gammas}
    weights |= {f"AT {beta:g}": DistillationObjective(at=beta) for beta in settings.betas}
    return {"alone": DistillationObjective(), **weights}


def best_weight(results: Sequence[Measures], method: str) -> float:
    """The weight of "SP" or "AT" that has the best mean accuracy over the seeds of a sweep."""
    names = [name for name in results[0] if name.startswith(f"{method} ")]
    checks.one_of("method", method, {name.split()[0] for name in results[0] if " " in name})
    means = {name: sum(seed[name]["accuracy"] for seed in results) for name in names}
    return float(max(means, key=lambda name: means[name]).split()[1])


def ablations(settings: StudySettings, gamma: float) -> dict[str, DistillationObjective]:
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
    settings: StudySettings,
    seed: int,
    keep: Path | None = None,
) -> dict[str, DistillationObjective]:
    """The same objectives, with `sp` of other normalisations rescaled to start at the paper's size.

    A weight means nothing for a term of another scale. So `sp` is changed to make the weighted term
    what it is with row normalisation, on the first batch and with the untrained student.
    """
    teacher = train_teacher(dataset, settings, seed, keep)
    student = new_network(settings.student, dataset, seed).train()
    images = dataset.normalise(dataset.x_train[: settings.training.batch_size])
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
