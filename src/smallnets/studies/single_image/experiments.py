"""What one seed of the study measures: name -> student -> number, and what is chosen before it."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import measure as measures
from smallnets.data import Dataset
from smallnets.distill.single_image import (
    Coverage,
    accuracy_against_coverage,
    coverage,
    embed,
    layer_similarity,
    pooled_features,
    source_image,
    source_statistics,
)
from smallnets.measure.ranking import correlations
from smallnets.studies.questions import thinned
from smallnets.studies.single_image.clips import (
    measure_clips,
    train_clip_student,
    train_clip_teacher,
)
from smallnets.studies.single_image.conditions import (
    STUDENT,
    Condition,
    core_conditions,
    further_conditions,
    title,
    with_source,
)
from smallnets.studies.single_image.plan import Settings
from smallnets.studies.single_image.speech import (
    CLIP,
    HISS,
    OWN,
    Speech,
    measure_speech,
    train_speech_student,
    train_speech_teacher,
)
from smallnets.studies.single_image.students import (
    LARGEST,
    SHORT,
    TEACHER,
    TWIN,
    Trained,
    held_out_patches,
    patches_of,
    student_jobs,
    train_side_by_side,
    train_student,
    train_teacher,
)
from smallnets.studies.study import by_measure
from smallnets.surgery import recalibrate

Measured = dict[str, Any]
HELD_OUT_PATCHES, COMPARED = 500, 500
POINTS = 15  # of a curve, at most


def coverage_of(
    dataset: Dataset, settings: Settings, seed: int, source: str, teacher: nn.Module
) -> Coverage:
    """What a teacher says of a picture's patches. No real image is looked at."""
    asked = patches_of(source, settings, seed).take(range(settings.asked))
    return coverage(teacher, asked, dataset.normalise)


def ask_about_sources(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    source: str | None = None,
    cache_dir: Path | None = None,
) -> dict[str, Coverage]:
    """What a seed's teacher says of the patches of every candidate, before any student is trained.

    Args:
        dataset, settings, cache_dir: of the study.
        seed: of the teacher.
        source: a picture of the reader's own, which comes first.

    Returns:
        Name of the picture -> its coverage.
    """
    teacher = train_teacher(dataset, settings, seed, TEACHER, cache_dir).network
    own = () if source is None else (source,)
    names = dict.fromkeys((*own, *settings.sources, *settings.candidates, settings.page))
    return {name: coverage_of(dataset, settings, seed, name, teacher) for name in names}


def choose_source(settings: Settings, found: Mapping[str, Coverage], own: str | None = None) -> str:
    """The picture that all further questions are about: the reader's own, or else the one among
    the settings' sources over whose patches the teacher's answers spread most. Nothing but the
    teacher's answers to patches is asked.
    """
    if own is not None:
        return own
    return max(settings.sources, key=lambda name: found[name].mutual_information)


def statistics_of(settings: Settings, names: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What can be said of pictures without any network, by name."""
    found = {name: source_statistics(source_image(name, at_most=LARGEST)) for name in names}
    return {title(name): dict(vars(one)) for name, one in found.items()}


def train_teachers(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> None:
    """Train and keep the teacher of images and its twin, side by side. No test image is read."""
    images: dict[str, Any] = {"dataset": dataset, "settings": settings, "seed": seed}
    kinds: list[Callable[..., Any]] = [
        partial(train_teacher, kind=kind, cache_dir=cache_dir, **images) for kind in (TEACHER, TWIN)
    ]
    train_side_by_side(kinds, "teachers")


def train_everything(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    source: str,
    speech: Speech,
    cache_dir: Path,
) -> None:
    """Train and keep one seed's networks side by side: first the teachers, then all students."""
    images: dict[str, Any] = {
        "dataset": dataset,
        "settings": settings,
        "seed": seed,
        "cache_dir": cache_dir,
    }
    sounds: dict[str, Any] = {
        "speech": speech,
        "settings": settings,
        "seed": seed,
        "cache_dir": cache_dir,
    }
    teachers: list[Callable[..., Any]] = [
        partial(train_clip_teacher, **images),
        partial(train_speech_teacher, **sounds),
    ]
    train_teachers(dataset, settings, seed, cache_dir)
    train_side_by_side(teachers, "teachers")
    students: list[Callable[..., Any]] = [
        partial(train_clip_student, source=source, **images),
        *(partial(train_speech_student, source=one, **sounds) for one in (CLIP, HISS, OWN)),
    ]
    conditions = core_conditions(settings, source)
    train_side_by_side([*students, *student_jobs(conditions, **images)], "students")


def train_the_others(
    dataset: Dataset, settings: Settings, seed: int, source: str, cache_dir: Path
) -> None:
    """Train and keep one seed's students of `further_conditions`, side by side."""
    images: dict[str, Any] = {
        "dataset": dataset,
        "settings": settings,
        "seed": seed,
        "cache_dir": cache_dir,
    }
    train_side_by_side(
        [partial(train_teacher, kind=kind, **images) for kind in range(TWIN, SHORT + 1)], "teachers"
    )
    conditions = further_conditions(settings, source)
    train_side_by_side(student_jobs(conditions, **images), "students")


def compared(
    student: nn.Module, teacher: nn.Module, dataset: Dataset, unseen: Tensor
) -> dict[str, float]:
    """A student beside its teacher.

    Args:
        student, teacher: networks.
        dataset: real images.
        unseen: patches that no student was shown.

    Returns:
        "accuracy" and "agreement" with the teacher on real test images, "patch agreement" on the
        patches, and "recalibrated": the accuracy after the student's batch statistics, which are
        those of patches, were taken anew on real training images.
    """
    said, taught = (logits_on_test(one, dataset) for one in (student, teacher))
    on_patches = [measures.predict(one, unseen, dataset.normalise) for one in (student, teacher)]
    found = {
        "accuracy": measures.accuracy(said, labels_of_test(dataset)),
        "agreement": measures.agreement(said, taught),
        "patch agreement": measures.agreement(*on_patches),
    }
    renewed = recalibrate(deepcopy(student), [dataset.for_choosing(1000).images], reset=True)
    refreshed = logits_on_test(renewed, dataset)
    return found | {"recalibrated": measures.accuracy(refreshed, labels_of_test(dataset))}


def logits_on_test(network: nn.Module, dataset: Dataset) -> Tensor:
    """What a network says of the test images, (n, classes): to report, not to choose."""
    return measures.predict(network, dataset.x_test, dataset.normalise)


def labels_of_test(dataset: Dataset) -> Tensor:
    """The classes of the test images (n,): to report, not to choose."""
    return dataset.y_test


def measure_student(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    condition: Condition,
    source: str,
    cache_dir: Path | None = None,
) -> tuple[dict[str, float], Trained]:
    """A student beside the seed's teacher, and the student itself. Patch agreement is taken on
    patches of its own source; of students of real images, on those of the chosen one.
    """
    teacher = train_teacher(dataset, settings, seed, TEACHER, cache_dir).network
    student = train_student(dataset, settings, seed, condition, cache_dir)
    unseen = held_out_patches(condition.source or source, settings, seed)
    found = compared(student.network, teacher, dataset, unseen.take(range(HELD_OUT_PATCHES)))
    return found, student


def measure(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    source: str,
    speech: Speech,
    cache_dir: Path | None = None,
) -> Measured:
    """Everything that is measured of every seed.

    Returns:
        Measure -> student -> number for the students of `core_conditions` and the "teacher"; and
        "over time": student -> shares of right answers on real test images along its training;
        "teaching": "train" -> the teacher's on the images that it learns from;
        "spread": source -> mutual information; "classes": source -> classes hit;
        "page": "spread" -> the mutual information of the page, which is not among the sources;
        "rank": rank correlation of spread and accuracy over sources;
        "by class": "share" of the patches, "accuracy" and "agreement", one number a class;
        "alignment": "teacher" and "twin" -> layer -> CKA with the student's;
        "inside": share of the test images inside the patches' hull, in the plane;
        "clips", "speech": network -> accuracy; "voices": "spoken" -> whether it is speech.
    """
    teacher = train_teacher(dataset, settings, seed, TEACHER, cache_dir)
    found, trained = {}, {}
    for name, condition in core_conditions(settings, source).items():
        found[name], trained[name] = measure_student(
            dataset, settings, seed, condition, source, cache_dir
        )
    unseen = held_out_patches(source, settings, seed).take(range(HELD_OUT_PATCHES))
    found["teacher"] = compared(teacher.network, teacher.network, dataset, unseen)
    covered = {
        title(name): coverage_of(dataset, settings, seed, name, teacher.network)
        for name in with_source(settings, source)
    }
    spread = {name: one.mutual_information for name, one in covered.items()}
    page = coverage_of(dataset, settings, seed, settings.page, teacher.network)
    student = trained[STUDENT].network
    twin = train_teacher(dataset, settings, seed, TWIN, cache_dir).network
    return by_measure(found) | {
        "over time": {name: thinned(one.history, "real", POINTS) for name, one in trained.items()},
        "teaching": {"train": thinned(teacher.history, "train", POINTS)},
        "spread": spread,
        "page": {"spread": page.mutual_information},
        "classes": {name: one.classes_hit for name, one in covered.items()},
        "rank": {
            "spread": rank_correlation(
                list(spread.values()), [found[name]["accuracy"] for name in spread]
            )
        },
        "by class": by_class(student, teacher.network, dataset, covered[title(source)]),
        "alignment": alignment(student, teacher.network, twin, dataset),
        "inside": {"plane": inside(teacher.network, dataset, unseen)},
        "clips": measure_clips(dataset, settings, seed, source, cache_dir),
        "speech": measure_speech(speech, settings, seed, cache_dir),
        "voices": {"spoken": float(speech.spoken)},
    }


def measure_further(
    dataset: Dataset, settings: Settings, seed: int, source: str, cache_dir: Path | None = None
) -> Measured:
    """Measure -> student -> number, of `further_conditions`."""
    return by_measure(
        {
            name: measure_student(dataset, settings, seed, condition, source, cache_dir)[0]
            for name, condition in further_conditions(settings, source).items()
        }
    )


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Spearman's; 0 where one side is constant or there are fewer than two numbers."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return 0.0
    return correlations(torch.tensor(first), torch.tensor(second)).spearman


def by_class(
    student: nn.Module, teacher: nn.Module, dataset: Dataset, covered: Coverage
) -> dict[str, list[float]]:
    """Share of the patches, accuracy and agreement of every class; 0 where there are no images."""
    said, taught = (logits_on_test(one, dataset) for one in (student, teacher))
    found = accuracy_against_coverage(said, taught, labels_of_test(dataset), covered)
    return {
        name: getattr(found, name).nan_to_num(0.0).tolist()
        for name in ("share", "accuracy", "agreement")
    }


def alignment(
    student: nn.Module, teacher: nn.Module, twin: nn.Module, dataset: Dataset
) -> dict[str, dict[str, float]]:
    """Linear CKA of the student's stages with the teacher's and with those of its twin, a network
    that learned the same labels and is no one's teacher; on real test images.
    """
    stages = {name: name for name in getattr(student, "stage_names", ())}
    images = dataset.x_test[:COMPARED]
    return {
        name: layer_similarity(student, other, images, stages, dataset.normalise)
        for name, other in (("teacher", teacher), ("twin", twin))
    }


def last_stage(network: nn.Module) -> str:
    """Name of a network's last stage."""
    return str(list(getattr(network, "stage_names", ()))[-1])


def features_of(network: nn.Module, dataset: Dataset, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled features of patches, and of some real test images, at the last stage."""
    real = dataset.x_test[:COMPARED]
    layer = last_stage(network)
    mine, others = (
        pooled_features(network, images, layer, dataset.normalise) for images in (patches, real)
    )
    return mine, others


def inside(teacher: nn.Module, dataset: Dataset, patches: Tensor) -> float:
    """Share of the real images inside the patches' hull, in the plane of largest variance."""
    return embed(*features_of(teacher, dataset, patches)).inside
