"""The paper's experiments, one seed a call so that seeds can run side by side."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
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
from smallnets.studies.similarity.plan import Settings, Weights
from smallnets.studies.study import Measures, best_setting, by_measure
from smallnets.studies.watching import curve, train_watched
from smallnets.training import fit, observe, seeded
from smallnets.training.checkpoint import History

Objectives = Mapping[str, DistillationObjective]
PUBLISHED_BATCH = 128  # the batch of the published weight of the similarity term


def soft_targets(alpha: float, temperature: float) -> DistillationObjective:
    """Soft targets and labels in the proportion alpha to 1 - alpha."""
    return DistillationObjective(ce=1 - alpha, kd=alpha, temperature=temperature)


def methods(settings: Settings, weights: Weights) -> dict[str, DistillationObjective]:
    """The paper's comparison: the student alone, each method that uses the teacher, and their
    pairs where the settings ask for more; and similarities at the published weight, brought to this
    batch.
    """
    plain = DistillationObjective()
    soft = soft_targets(weights.alpha, weights.temperature)
    published = settings.published_gamma * settings.training.batch_size / PUBLISHED_BATCH
    alone = {
        "alone": plain,
        "KD": soft,
        "AT": replace(plain, at=weights.beta),
        "SP": replace(plain, sp=weights.gamma),
        "SP published": replace(plain, sp=published),
    }
    pairs = {
        "KD+SP": replace(soft, sp=weights.gamma),
        "AT+SP": replace(plain, at=weights.beta, sp=weights.gamma),
        "KD+AT": replace(soft, at=weights.beta),
    }
    return alone | (pairs if settings.further else {})


def compared(settings: Settings, weights: Weights) -> dict[str, DistillationObjective]:
    """All students of the comparison: the `methods`, and one for every other candidate weight."""
    chosen = methods(settings, weights)
    known = {chosen[name].sp for name in ("SP", "SP published")}
    return chosen | {k: one for k, one in weighted(settings).items() if one.sp not in known}


def weighted(settings: Settings) -> dict[str, DistillationObjective]:
    """A student for every candidate weight of the similarity term, named "SP 100"."""
    return {f"SP {gamma:g}": DistillationObjective(sp=gamma) for gamma in settings.gammas}


def learning_curves(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, list[float]]:
    """How the teacher and the student of a seed learn from the labels: accuracy in every epoch.

    Returns:
        "teacher, train" and so on: "train" on the augmented images that it learns from, "test" on
        others.
    """
    return {
        f"{role}, {part}": shares
        for role in ("teacher", "student")
        for part, shares in curve(_watched(role, dataset, settings, seed, cache_dir)[1]).items()
    }


def _watched(
    role: str, dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None
) -> tuple[nn.Module, History]:
    name = settings.teacher if role == "teacher" else settings.student
    own = teacher_seed(seed) if role == "teacher" else seed
    network = build_network(name, dataset, own)
    return network, train_watched(
        network, dataset, settings.training, own, cache_dir, label=f"{role}-{name}"
    )


def train_teacher(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> nn.Module:
    """The teacher of a seed, trained on the labels."""
    return _watched("teacher", dataset, settings, seed, cache_dir)[0]


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
        batch_size: of the students' training, if not the settings'. Its epochs change in
            proportion, so that it has the same number of steps.

    Returns:
        The teacher, and name -> student.
    """
    teacher = train_teacher(dataset, settings, seed, cache_dir)
    students = {name: build_network(settings.student, dataset, seed) for name in objectives}
    training = settings.training
    if batch_size is not None:
        epochs = max(1, round(training.epochs * batch_size / training.batch_size))
        training = replace(training.with_epochs(epochs), batch_size=batch_size)
    distil(students, teacher, dataset, objectives, training, seed=seed, cache_dir=cache_dir)
    return teacher, students


def compare(
    dataset: Dataset,
    objectives: Objectives,
    settings: Settings,
    seed: int,
    cache_dir: Path | None = None,
    batch_size: int | None = None,
) -> Measures:
    """Measures of every student of one seed, and of its teacher under the name "teacher".

    Args: as `train_students`.
    """
    teacher, students = train_students(dataset, objectives, settings, seed, cache_dir, batch_size)
    return measures({"teacher": teacher, **students}, dataset, settings.training.batch_size)


def candidates(settings: Settings) -> dict[str, DistillationObjective]:
    """A student alone, and one for everything that the search tries: "SP 100" and "AT 10" for
    weights, "KD 0.9 4" for alpha and temperature.
    """
    soft = {
        f"KD {alpha:g} {temperature:g}": soft_targets(alpha, temperature)
        for alpha, temperature in product(settings.alphas, settings.temperatures)
    }
    attention = {f"AT {beta:g}": DistillationObjective(at=beta) for beta in settings.betas}
    return {"alone": DistillationObjective(), **soft, **attention, **weighted(settings)}


def search(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measures:
    """Measures of all `candidates` with one seed.

    Args:
        dataset: whose test part is held out of the training images, see `Dataset.held_out`.
        settings, seed, cache_dir: as in `compare`.
    """
    return compare(dataset, candidates(settings), settings, seed, cache_dir)


def best_weights(searched: Sequence[Measures]) -> Weights:
    """For each method what had the best mean accuracy over the seeds of the search."""
    accuracy = {
        name: sum(one[name]["accuracy"] for one in searched)
        for name in searched[0]
        if name.startswith("KD ")
    }
    alpha, temperature = map(float, max(accuracy, key=accuracy.__getitem__).split()[1:])
    return Weights(best_setting(searched, "SP"), best_setting(searched, "AT"), alpha, temperature)


def measure(
    dataset: Dataset,
    settings: Settings,
    weights: Weights,
    seed: int,
    cache_dir: Path | None = None,
) -> dict[str, dict[str, float]]:
    """The comparison of one seed: measure -> student, or "teacher" -> number.

    Returns:
        What `measures` returns, on the test images; "corrupted accuracy" and "corrupted agreement"
        on corrupted ones; and "transfer accuracy" where the settings ask for it.
    """
    objectives = compared(settings, weights)
    teacher, students = train_students(dataset, objectives, settings, seed, cache_dir)
    networks = {"teacher": teacher, **students}
    found = by_measure(measures(networks, dataset, settings.training.batch_size))
    harder = corrupted(dataset, seed=0)
    shifted = by_measure(measures(networks, harder, settings.training.batch_size))
    found |= {f"corrupted {name}": shifted[name] for name in ("accuracy", "agreement")}
    if settings.further:
        helpers = {name: objectives[name] for name in ("alone", "AT", "SP")}
        moved = transfer(dataset, helpers, settings, seed, cache_dir)
        found["transfer accuracy"] = by_measure(moved)["accuracy"]
    return found


def measure_further(
    dataset: Dataset,
    settings: Settings,
    weights: Weights,
    seed: int,
    cache_dir: Path | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """What decides no claim, for one seed: "variants" of the similarity term -> measure -> variant
    -> number, and "batches" -> size -> student -> accuracy.

    With the batch the weight of the term changes in proportion, as the loss does the opposite, and
    the number of steps stays.
    """
    objectives = compared(settings, weights)
    teacher, students = train_students(dataset, objectives, settings, seed, cache_dir)
    known = measures(
        {"teacher": teacher, **{name: students[name] for name in ("alone", "SP")}},
        dataset,
        settings.training.batch_size,
    )
    chosen = methods(settings, weights)
    variants = equal_start(ablations(weights.gamma), dataset, settings, seed, cache_dir)
    found = by_measure(
        {
            "teacher": known["teacher"],
            "alone": known["alone"],
            "last stage, rows": known["SP"],
            **compare(dataset, variants, settings, seed, cache_dir),
        }
    )
    batches = {}
    for size in settings.batch_sizes:
        if size == settings.training.batch_size:
            batches[str(size)] = by_measure(known)["accuracy"]
            continue
        gamma = weights.gamma * size / settings.training.batch_size
        pair = {"alone": chosen["alone"], "SP": replace(chosen["SP"], sp=gamma)}
        results = compare(dataset, pair, settings, seed, cache_dir, batch_size=size)
        batches[str(size)] = by_measure(results)["accuracy"]
    return {"variants": found, "batches": batches}


def ablations(gamma: float) -> dict[str, DistillationObjective]:
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
    kinds = {"cosines": "cosine", "no normalisation": "none"}
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
    seeds = {"teacher": teacher_seed(seed), "student": seed}
    for role, name in (("teacher", settings.teacher), ("student", settings.student)):
        network = train_network(
            name, first, settings.training, seeds[role], cache_dir, label=f"first-task-{role}"
        )
        pretrained[role] = with_classifier(network, second.num_classes, seeds[role])

    teacher = pretrained["teacher"]
    tuning = settings.fine_tuning
    own = seeds["teacher"]
    fit(teacher, second, tuning, seed=own, cache_dir=cache_dir, label="second-task-teacher")
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
