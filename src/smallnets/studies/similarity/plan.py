"""Sizes and weights of the experiments, at three scales, and what a reader may ask for instead."""

from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.studies.study import Options as StudyOptions
from smallnets.studies.study import StudySettings, enough_images, open_study
from smallnets.training import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """Sizes and weights of the chapter's experiments.

    Attributes:
        teacher, student: network names, see `build_network`.
        held_out: training images set aside for choosing the weights.
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
    held_out: int
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

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("shots", self.shots, 1)
        checks.at_least("held_out", self.held_out, 0)
        for name in ("gammas", "betas"):
            checks.each(name, getattr(self, name), checks.above, 0)
        checks.each("batch_sizes", self.batch_sizes, checks.whole, 2)
        checks.between("alpha", self.alpha, 0, 1)
        checks.above("temperature", self.temperature, 0)


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
    "smoke": Settings(
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
    "small": Settings(
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
    "paper": Settings(
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


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """What a reader may ask for: also the weight of the similarity term.

    Attributes:
        epochs: of the main trainings; a step schedule keeps its shape.
        gamma: the only candidate weight of the similarity term; None searches among the preset's.
    """

    gamma: float | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    dataset, settings = open_study(name, scale, PRESETS, options)
    if options.epochs is not None:
        settings = replace(settings, training=settings.training.with_epochs(options.epochs))
    if options.gamma is not None:
        settings = replace(settings, gammas=(checks.above("gamma", options.gamma, 0),))
    checks.at_least("number of classes, for a transfer between halves", dataset.num_classes, 4)
    largest = max(settings.training.batch_size, *settings.batch_sizes)
    enough_images(dataset, largest + settings.held_out)
    return dataset, settings
