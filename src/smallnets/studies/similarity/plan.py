"""Sizes and weights of the experiments by scale, and what a reader may ask for instead."""

from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.studies.study import Options as StudyOptions
from smallnets.studies.study import StudySettings, enough_images, open_study
from smallnets.training import TrainSettings


@dataclass(frozen=True)
class Weights:
    """How much each term counts.

    Attributes:
        gamma: of the similarity term.
        beta: of the attention term.
        alpha: of soft targets; the labels beside them weigh 1 - alpha.
        temperature: of soft targets.
    """

    gamma: float
    beta: float
    alpha: float
    temperature: float

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in ("gamma", "beta", "temperature"):
            checks.above(name, getattr(self, name), 0)
        checks.between("alpha", self.alpha, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """Sizes and weights of the chapter's experiments.

    Attributes:
        teacher, student: network names, see `build_network`.
        weights: of the terms; None searches for them.
        held_out: training images set aside for the search.
        sweep_seeds: repetitions of the search.
        side_seeds: repetitions of what decides no claim: variants of the term, sizes of batches.
        training: of teacher and students.
        gammas, betas, alphas, temperatures: candidates, see `Weights`. Beside the students of the
            comparison there is one for every gamma.
        published_gamma: the paper's, at its batch of 128.
        further: whether pairs of methods, variants of the term, batches of other sizes and the
            transfer to a second task are measured.
        batch_sizes: that are compared.
        shots: images a class of the second task.
        fine_tuning: training on them.
    """

    teacher: str
    student: str
    weights: Weights | None
    held_out: int
    sweep_seeds: int
    side_seeds: int
    training: TrainSettings
    gammas: tuple[float, ...]
    betas: tuple[float, ...]
    alphas: tuple[float, ...]
    temperatures: tuple[float, ...]
    further: bool
    batch_sizes: tuple[int, ...]
    shots: int
    fine_tuning: TrainSettings
    published_gamma: float = 3000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("shots", self.shots, 1)
        checks.at_least("held_out", self.held_out, 0)
        for name in ("gammas", "betas", "temperatures"):
            checks.each(name, getattr(self, name), checks.above, 0)
        checks.each("alphas", self.alphas, checks.between, 0, 1)
        checks.each("batch_sizes", self.batch_sizes, checks.whole, 2)
        checks.above("published_gamma", self.published_gamma, 0)

    @property
    def searches(self) -> int:
        """How often the search is repeated: not at all where the weights are given."""
        return self.sweep_seeds if self.weights is None else 0


def _quick(epochs: int, batch_size: int = 64, lr: float = 0.3) -> TrainSettings:
    return TrainSettings(
        epochs=epochs, batch_size=batch_size, lr=lr, augmentation=Augmentation(crop=2)
    )


PRESETS = {
    "smoke": Settings(
        teacher="convnet-8",
        student="convnet-4",
        train=256,
        test=200,
        weights=None,
        held_out=64,
        seeds=2,
        sweep_seeds=1,
        side_seeds=1,
        training=_quick(epochs=1),
        gammas=(10, 100),
        betas=(10,),
        alphas=(0.5,),
        temperatures=(4,),
        further=True,
        batch_sizes=(32, 64),
        shots=8,
        fine_tuning=_quick(epochs=1, batch_size=16),
    ),
    "small": Settings(
        teacher="convnet-16",
        student="convnet-8",
        train=2240,
        test=2000,
        # The best of two seeds among the candidates of "evidence", on held-out training images.
        weights=Weights(gamma=250, beta=5, alpha=0.9, temperature=2),
        held_out=400,
        seeds=2,
        sweep_seeds=1,
        side_seeds=1,
        training=_quick(epochs=40),
        gammas=(50,),
        betas=(5,),
        alphas=(0.9,),
        temperatures=(2,),
        further=False,
        batch_sizes=(32, 64),
        shots=20,
        fine_tuning=_quick(epochs=40, batch_size=32, lr=0.05),
    ),
    "evidence": Settings(
        teacher="convnet-32",
        student="convnet-8",
        train=4480,
        test=4000,
        weights=None,
        held_out=800,
        seeds=8,
        sweep_seeds=2,
        side_seeds=2,
        training=_quick(epochs=60),
        gammas=(10, 50, 250, 1500),
        betas=(1, 5, 25, 125),
        alphas=(0.5, 0.9),
        temperatures=(2, 4),
        further=True,
        batch_sizes=(32, 64, 128),
        shots=20,
        fine_tuning=_quick(epochs=60, batch_size=32, lr=0.05),
    ),
    # Tung & Mori's CIFAR-10 experiment, with the schedule of the attention-transfer code on which
    # it builds; the second of their teachers for this student is wrn-16-2.
    "paper": Settings(
        teacher="wrn-40-1",
        student="wrn-16-1",
        train=None,
        test=None,
        weights=None,
        held_out=5000,
        seeds=5,
        sweep_seeds=2,
        side_seeds=3,
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
        betas=(100, 300, 1000, 3000),
        alphas=(0.5, 0.9),
        temperatures=(2, 4),
        further=True,
        batch_sizes=(64, 128, 256),
        shots=50,
        fine_tuning=TrainSettings(epochs=60, batch_size=64, lr=0.01),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """What a reader may ask for: also the weight of the similarity term.

    Attributes:
        epochs: of the main trainings; a step schedule keeps its shape. Fine-tuning gets at most as
            many.
        gamma: weight of the similarity term, and its only candidate; None is the preset's.
    """

    gamma: float | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    dataset, settings = open_study(name, scale, PRESETS, options)
    if options.epochs is not None:
        settings = replace(
            settings,
            training=settings.training.with_epochs(options.epochs),
            fine_tuning=settings.fine_tuning.with_epochs(
                min(options.epochs, settings.fine_tuning.epochs)
            ),
        )
    if options.gamma is not None:
        gamma = checks.above("gamma", options.gamma, 0)
        weights = settings.weights and replace(settings.weights, gamma=gamma)
        settings = replace(settings, gammas=(gamma,), weights=weights)
    checks.at_least("number of classes, for a transfer between halves", dataset.num_classes, 4)
    largest = max(settings.training.batch_size, *settings.batch_sizes)
    enough_images(dataset, largest + settings.held_out)
    return dataset, settings
