"""Teachers, the student that every experiment starts from, and how students are judged."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from smallnets import measure
from smallnets.data import Augmentation, Dataset
from smallnets.distill.fidelity.meter import FidelityMeter
from smallnets.distill.fidelity.objective import Ensemble, Objective, distill_from_ensemble
from smallnets.measure import CalibrationBins, calibration_bins
from smallnets.studies.fidelity.plan import Settings
from smallnets.studies.networks import build_network, train_network
from smallnets.studies.seeds import member_seed
from smallnets.studies.study import Measures
from smallnets.training import TrainSettings

LOOKED_AT = 600  # random training images on which train agreement is measured, at most


def train_teacher(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    member: int = 0,
    cache_dir: Path | None = None,
    norm: str = "batch",
) -> nn.Module:
    """A member of a seed's ensemble, trained on the labels, or taken from `cache_dir`."""
    return train_network(
        settings.network, dataset, settings.teaching, member_seed(seed, member), cache_dir,
        label="teacher", norm=norm,
    )  # fmt: skip


def logits_of(network: nn.Module, dataset: Dataset, images: Tensor) -> Tensor:
    """Logits (n, classes) of uint8 images, float32, in evaluation mode."""
    return measure.predict(network, images, dataset.normalise)


def logits_on_test(network: nn.Module, dataset: Dataset) -> Tensor:
    """Logits (n, classes) of the test images: to report, not to choose."""
    return logits_of(network, dataset, dataset.x_test)


def calibration_on_test(logits: Tensor, dataset: Dataset) -> CalibrationBins:
    """Calibration of logits (n, classes) of the test images against their labels."""
    return calibration_bins(logits, dataset.y_test)


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


class StudentEvaluator:
    """Judges students of one teacher, whose answers are asked for once.

    Args:
        teacher: maps images to logits (batch, classes).
        dataset: whose test and training images are shown.
        training: under whose view the training images are shown.
    """

    def __init__(self, teacher: nn.Module, dataset: Dataset, training: TrainSettings) -> None:
        viewed = seen_images(dataset, training.view, training.batch_size, LOOKED_AT)
        self.images = (dataset.normalise(dataset.x_test), viewed)
        self.labels = dataset.y_test
        self.teacher_logits = [measure.predict(teacher, images) for images in self.images]

    def __call__(self, student: nn.Module) -> dict[str, float]:
        """Every measure of a student.

        Returns:
            Those of `FidelityMeter` on the test images; "train agreement" and "train kl" on random
            training images under the training's view, in evaluation mode.
        """
        test, viewed = (measure.predict(student, images) for images in self.images)
        meter = FidelityMeter().update(
            student_logits=test, teacher_logits=self.teacher_logits[0], labels=self.labels
        )
        return meter.compute() | {
            "train agreement": measure.agreement(self.teacher_logits[1], viewed),
            "train kl": measure.predictive_kl(
                student_logits=viewed, teacher_logits=self.teacher_logits[1]
            ),
        }

    def agreement_before(self, start: nn.Module) -> float:
        """Train agreement of a student that has not been trained."""
        return measure.agreement(self.teacher_logits[1], measure.predict(start, self.images[1]))


def distill_and_evaluate(
    dataset: Dataset,
    teacher: nn.Module,
    students: Mapping[str, nn.Module],
    objectives: Mapping[str, Objective],
    training: TrainSettings,
    seed: int,
    cache_dir: Path | None,
) -> Measures:
    """Distil students from one teacher, side by side, and judge each of them."""
    distill_from_ensemble(
        students, Ensemble([teacher]), dataset, objectives, training, seed=seed, cache_dir=cache_dir
    )
    evaluate = StudentEvaluator(teacher, dataset, training)
    return {name: evaluate(one) for name, one in students.items()}


def plain_student(
    dataset: Dataset,
    settings: Settings,
    teacher: nn.Module,
    seed: int,
    cache_dir: Path | None = None,
) -> nn.Module:
    """The student that every experiment starts from: the teacher's own architecture, the settings'
    temperature and training, one teacher. Trained once where trainings are kept.
    """
    student = build_network(settings.network, dataset, seed)
    objectives = {"student": Objective(temperature=settings.temperature)}
    distill_from_ensemble(
        {"student": student},
        Ensemble([teacher]),
        dataset,
        objectives,
        settings.training,
        seed=seed,
        cache_dir=cache_dir,
    )
    return student


def evaluate_plain(
    name: str,
    dataset: Dataset,
    settings: Settings,
    teacher: nn.Module,
    seed: int,
    cache_dir: Path | None,
) -> Measures:
    """Measures of the plain student under a name."""
    student = plain_student(dataset, settings, teacher, seed, cache_dir)
    return {name: StudentEvaluator(teacher, dataset, settings.training)(student)}
