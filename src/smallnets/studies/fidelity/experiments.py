"""What one seed of the study measures: name -> student -> number.

Every student is compared with the seed's own teacher, the stranger, too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smallnets import measure as measures
from smallnets.data import Dataset
from smallnets.distill.fidelity.meter import FidelityMeter, overlap
from smallnets.distill.fidelity.objective import Ensemble, Reduced
from smallnets.distill.fidelity.surface import (
    Surface,
    distillation_gap,
    loss_surface,
    straight_path,
)
from smallnets.studies.fidelity.conditions import (
    STRANGER,
    STUDENT,
    Condition,
    core_conditions,
    further_conditions,
)
from smallnets.studies.fidelity.plan import Settings
from smallnets.studies.fidelity.students import (
    Trained,
    on_test,
    own_images,
    seen_images,
    shown_images,
    train_student,
    train_teacher,
    training_of,
)
from smallnets.studies.questions import Questions, thinned
from smallnets.studies.study import by_measure
from smallnets.training import observe

LOOKED_AT = 600  # random training images on which train agreement is measured, at most
PATH_IMAGES, PATH_POINTS = 300, 11
Measured = dict[str, Any]


def logits_of(network: nn.Module, dataset: Dataset, images: Tensor) -> Tensor:
    """Logits (n, classes) of uint8 images, float32, in evaluation mode."""
    return measures.predict(network, images, dataset.normalise)


def compared(student: nn.Module, teacher: nn.Module, test: Questions, viewed: Tensor) -> Measured:
    """A student beside a teacher.

    Args:
        student, teacher: map images to logits (batch, classes).
        test: test images and labels.
        viewed: training images as the student saw them.

    Returns:
        The measures of `FidelityMeter` on the test images, and "train agreement" and "train kl" on
        the others, all in evaluation mode.
    """
    said, taught = (measures.predict(one, test.images) for one in (student, teacher))
    meter = FidelityMeter().update(student_logits=said, teacher_logits=taught, labels=test.answers)
    said, taught = (measures.predict(one, viewed) for one in (student, teacher))
    found = meter.compute()
    found.pop("teacher accuracy")
    return found | {
        "train agreement": measures.agreement(taught, said),
        "train kl": measures.predictive_kl(student_logits=said, teacher_logits=taught),
    }


def measure_student(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    condition: Condition,
    cache_dir: Path | None = None,
) -> tuple[Measured, Trained]:
    """A student beside the seed's own teacher or ensemble, and the student itself.

    Train agreement is taken on the images that it was shown, as it saw them.
    """
    student = train_student(dataset, settings, seed, condition, cache_dir)
    teacher = Reduced(
        Ensemble(
            [
                train_teacher(dataset, settings, seed, member, cache_dir).network
                for member in range(condition.objective.members or 1)
            ]
        )
    )
    shown = shown_images(dataset, seed, condition)
    training = training_of(dataset, settings, seed, condition, len(shown.y_train))
    viewed = seen_images(shown, training.view, training.batch_size, LOOKED_AT)
    found = compared(student.network, teacher, on_test(shown), viewed)
    found["start agreement"] = measures.agreement(
        measures.predict(teacher, viewed), measures.predict(student.start, viewed)
    )
    return found, student


def measure_further(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measured:
    """Measure -> student -> number, of `further_conditions`."""
    return by_measure(
        {
            name: measure_student(dataset, settings, seed, condition, cache_dir)[0]
            for name, condition in further_conditions(settings).items()
        }
    )


def measure(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measured:
    """Everything that is measured of every seed.

    Returns:
        Measure -> student -> number for the students of `core_conditions`, the "teacher" and its
        "twin", a second teacher; and
        "over time": network -> "train" and "test" -> shares of wanted answers along its training;
        "meeting": student or stranger -> the shares of `overlap` with the teacher;
        "path": student -> loss on the straight way from its end to the teacher;
        "alignment": student or twin -> stage -> CKA with the teacher's.
    """
    own = own_images(dataset, seed)
    teacher, twin = (train_teacher(dataset, settings, seed, n, cache_dir) for n in (0, 1))
    viewed = seen_images(own, settings.training.view, settings.training.batch_size, LOOKED_AT)
    found = {
        name: {
            **compared(one.network, teacher.network, on_test(own), viewed),
            "start agreement": measures.agreement(
                measures.predict(teacher.network, viewed), measures.predict(one.start, viewed)
            ),
        }
        for name, one in (("teacher", teacher), ("twin", twin))
    }
    trained = {"teacher": teacher}
    for name, condition in core_conditions(settings).items():
        found[name], trained[name] = measure_student(dataset, settings, seed, condition, cache_dir)
    meeting = {name: meet(trained[name].network, teacher.network, own) for name in
               (STUDENT, STRANGER)}  # fmt: skip
    return by_measure(found) | {
        "over time": {
            name: {part: thinned(one.history, part) for part in ("train", "test")}
            for name, one in trained.items()
        },
        "meeting": meeting,
        "path": paths(own, settings, teacher.network, trained),
        "alignment": alignment(own, teacher.network,
                               {STUDENT: trained[STUDENT].network, "twin": twin.network}),
    }  # fmt: skip


def meet(student: nn.Module, teacher: nn.Module, dataset: Dataset) -> dict[str, float]:
    """How two networks' answers on the test images meet, see `overlap`."""
    images, labels = on_test(dataset)
    said, taught = (measures.predict(one, images) for one in (student, teacher))
    return overlap(said, taught, labels)


class Disagreement(NamedTuple):
    """A test image on which a student and its teacher give different answers."""

    image: Tensor  # uint8 (channels, height, width)
    label: int
    teacher: Tensor  # probabilities (classes,)
    student: Tensor


def first_disagreement(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Disagreement:
    """The first test image on which the plain student and its teacher differ: to be shown. Where
    there is none, the first of all.
    """
    own = own_images(dataset, seed)
    condition = core_conditions(settings)[STUDENT]
    networks = (
        train_teacher(dataset, settings, seed, 0, cache_dir).network,
        train_student(dataset, settings, seed, condition, cache_dir).network,
    )
    taught, said = (logits_of(one, own, own.x_test).softmax(1) for one in networks)
    place = int((taught.argmax(1) != said.argmax(1)).int().argmax())
    return Disagreement(own.x_test[place], int(own.y_test[place]), taught[place], said[place])


def paths(
    own: Dataset, settings: Settings, teacher: nn.Module, students: Mapping[str, Trained]
) -> dict[str, list[float]]:
    """Loss along the straight line of weights from students to their teacher, less the smallest
    possible, on training images as they saw them.
    """
    training = settings.training
    viewed = seen_images(own, training.view, training.batch_size, PATH_IMAGES)
    gap = distillation_gap(teacher, viewed, settings.temperature)
    return {
        name: straight_path(one.network, teacher, gap, PATH_POINTS)[1].tolist()
        for name, one in students.items()
        if name == STUDENT or name.startswith("λ")
    }


def landscape(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    condition: Condition,
    cache_dir: Path | None = None,
    points: int = 11,
) -> Surface:
    """The loss in the plane of the teacher and a student's start and end, on a grid of `points`
    points a side.
    """
    own, training = own_images(dataset, seed), settings.training
    teacher = train_teacher(dataset, settings, seed, 0, cache_dir).network
    student = train_student(dataset, settings, seed, condition, cache_dir)
    viewed = seen_images(own, training.view, training.batch_size, PATH_IMAGES)
    gap = distillation_gap(teacher, viewed, settings.temperature)
    return loss_surface(teacher, student.start, student.network, gap, points)


def alignment(
    own: Dataset, teacher: nn.Module, others: Mapping[str, nn.Module], count: int = 500
) -> dict[str, dict[str, float]]:
    """CKA of networks' stages with the teacher's, on test images: network -> stage -> 0 to 1."""
    stages = getattr(teacher, "stage_names", ())
    images = on_test(own, count).images
    with torch.no_grad():
        theirs = observe(teacher.eval(), images, stages).features
        return {
            name: {
                stage: measures.cka(
                    theirs[stage], observe(one.eval(), images, stages).features[stage]
                )
                for stage in stages
            }
            for name, one in others.items()
        }
