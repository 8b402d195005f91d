"""Teachers, the student that every experiment starts from, and how students are judged."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from smallnets import measure
from smallnets.data import Augmentation, Dataset
from smallnets.distill.fidelity.meter import FidelityMeter
from smallnets.distill.fidelity.objective import Ensemble, Objective, imitate
from smallnets.distill.fidelity.settings import StudySettings
from smallnets.models import RowReader, named
from smallnets.training import TrainSettings, fit, seeded

Measures = dict[str, dict[str, float]]
LOOKED_AT = 600  # training images on which train agreement is measured, at most


def new_network(name: str, dataset: Dataset, seed: int, norm: str = "batch") -> nn.Module:
    """An untrained network for the dataset's images and classes; "rows-UNITS" reads rows."""
    with seeded(seed):
        if name.startswith("rows-"):
            units = int(name.removeprefix("rows-"))
            return RowReader(units, dataset.num_classes, dataset.channels, dataset.size[1])
        return named(name, dataset.num_classes, dataset.channels, norm=norm)


def teacher_seed(seed: int, member: int) -> int:
    """Seed of a teacher, which no student and no other teacher shares."""
    return 1000 * (seed + 1) + member


def train_teacher(
    dataset: Dataset,
    settings: StudySettings,
    seed: int,
    member: int = 0,
    keep: Path | None = None,
    norm: str = "batch",
) -> nn.Module:
    """A member of a seed's ensemble, trained on the labels, or taken from `keep`."""
    start = teacher_seed(seed, member)
    teacher = new_network(settings.network, dataset, start, norm)
    fit(teacher, dataset, settings.teaching, seed=start, keep=keep, label="teacher")
    return teacher


def logits_of(network: nn.Module, dataset: Dataset, images: Tensor) -> Tensor:
    """Logits (n, classes) of uint8 images, float32, in evaluation mode."""
    return measure.predict(network, images, dataset.normalise)


def seen_images(dataset: Dataset, view: Augmentation, batch_size: int) -> Tensor:
    """Training images as a student sees them, normalised; always the same draw of the view."""
    generator = torch.Generator().manual_seed(0)
    images = dataset.x_train[:LOOKED_AT].split(batch_size)
    return torch.cat([view(dataset.normalise(x), generator) for x in images])


class Examiner:
    """Judges students of one teacher, whose answers are asked for once.

    Args:
        teacher: maps images to logits (batch, classes).
        dataset: whose test and training images are shown.
        training: under whose view the training images are shown.
    """

    def __init__(self, teacher: nn.Module, dataset: Dataset, training: TrainSettings) -> None:
        viewed = seen_images(dataset, training.augmentation, training.batch_size)
        self.images = (dataset.normalise(dataset.x_test), viewed)
        self.labels = dataset.y_test
        self.told = [measure.predict(teacher, images) for images in self.images]

    def __call__(self, student: nn.Module) -> dict[str, float]:
        """Every measure of a student.

        Returns:
            Those of `FidelityMeter` on the test images; "train agreement" and "train kl" on the
            first training images under the training's view, in evaluation mode.
        """
        test, viewed = (measure.predict(student, images) for images in self.images)
        return FidelityMeter().update(self.told[0], test, self.labels).compute() | {
            "train agreement": measure.agreement(self.told[1], viewed),
            "train kl": measure.predictive_kl(self.told[1], viewed),
        }

    def before(self, start: nn.Module) -> float:
        """Train agreement of a student that has not been trained."""
        return measure.agreement(self.told[1], measure.predict(start, self.images[1]))


def self_distil(
    dataset: Dataset,
    teacher: nn.Module,
    students: Mapping[str, nn.Module],
    objectives: Mapping[str, Objective],
    training: TrainSettings,
    seed: int,
    keep: Path | None,
) -> Measures:
    """Distil students from one teacher, side by side, and judge each of them."""
    imitate(students, Ensemble([teacher]), dataset, objectives, training, seed=seed, keep=keep)
    examine = Examiner(teacher, dataset, training)
    return {name: examine(one) for name, one in students.items()}


def plain_student(
    dataset: Dataset,
    settings: StudySettings,
    teacher: nn.Module,
    seed: int,
    keep: Path | None = None,
) -> nn.Module:
    """The student that every experiment starts from: the teacher's own architecture, the settings'
    temperature and training, one teacher. Trained once where trainings are kept.
    """
    student = new_network(settings.network, dataset, seed)
    objectives = {"student": Objective(temperature=settings.temperature)}
    imitate(
        {"student": student},
        Ensemble([teacher]),
        dataset,
        objectives,
        settings.training,
        seed=seed,
        keep=keep,
    )
    return student


def beside_plain(
    name: str,
    dataset: Dataset,
    settings: StudySettings,
    teacher: nn.Module,
    seed: int,
    keep: Path | None,
) -> Measures:
    """Measures of the plain student under a name."""
    student = plain_student(dataset, settings, teacher, seed, keep)
    return {name: Examiner(teacher, dataset, settings.training)(student)}
