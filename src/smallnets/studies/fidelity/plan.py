"""Sizes and schedules of the study's experiments at three scales."""

from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.studies.study import Options as StudyOptions
from smallnets.studies.study import StudySettings, enough_images, open_study
from smallnets.training import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """Sizes of the chapter's experiments.

    Attributes:
        network: of teachers and students alike, see `build_network`.
        others: students of other sizes than the teacher.
        near_norm: normalisation in the experiments on starting near the teacher.
        held_out: training images set aside for choosing settings.
        side_seeds: repetitions of the other experiments.
        members: sizes of the ensembles.
        temperatures: of the main comparison.
        temperature: of all other experiments.
        alphas: weights of the labels.
        lams: weights of the teacher in the student's start; 0 is added.
        lengths: of the training, as multiples of the students' epochs.
        amounts: multiples of the labelled images in the experiment on growing data.
        labelled: share of the training images whose labels the teacher of that experiment sees.
        views: names of the data policies to compare, see `policies`; None is all of them.
        share: of foreign or generated images in a batch.
        foreign, foreign_images: data set that the foreign images come from (None leaves them
            out), and how many of them.
        rates, adam_rates: candidates of the search for learning rates.
        adam_lr: learning rate of Adam.
        teaching, training: of the teachers on labels, and of the students.
    """

    network: str
    others: tuple[str, ...]
    near_norm: str
    held_out: int
    side_seeds: int
    teaching: TrainSettings
    training: TrainSettings
    members: tuple[int, ...] = (1, 3, 5)
    temperatures: tuple[float, ...] = (1.0, 4.0)
    temperature: float = 1.0
    alphas: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)
    lams: tuple[float, ...] = (0.25, 0.375, 0.5, 0.75)
    lengths: tuple[float, ...] = (0.5, 1.0, 2.0)
    amounts: tuple[int, ...] = (1, 2, 4)
    labelled: float = 0.25
    views: tuple[str, ...] | None = None
    share: float = 0.2
    foreign: str | None = "glyphs62"
    foreign_images: int = 500
    rates: tuple[float, ...] = (0.1, 0.3)
    adam_rates: tuple[float, ...] = (1e-3, 1e-2)
    adam_lr: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("members", "amounts"):
            checks.each(name, getattr(self, name), checks.whole, 1)
        for name in ("temperatures", "lengths", "rates", "adam_rates"):
            checks.each(name, getattr(self, name), checks.above, 0)
        for name in ("alphas", "lams"):
            checks.each(name, getattr(self, name), checks.between, 0, 1)
        for name in ("temperature", "labelled", "adam_lr"):
            checks.above(name, getattr(self, name), 0)
        checks.between("labelled", self.labelled, 0, 1)
        checks.between("share", self.share, 0, 1)


def _quick(epochs: int, lr: float, batch_size: int = 64) -> TrainSettings:
    """Short training with a warm-up, without which seeds scatter."""
    return TrainSettings(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=1e-4,
        warmup_epochs=3 * epochs / 8,
        augmentation=Augmentation(crop=2),
    )


PRESETS = {
    "smoke": Settings(
        network="convnet-4",
        others=("convnet-8",),
        near_norm="batch",
        train=256,
        test=200,
        held_out=64,
        seeds=2,
        side_seeds=1,
        members=(1, 2),
        temperatures=(1.0,),
        alphas=(0.5,),
        lams=(0.5,),
        lengths=(1.0,),
        amounts=(1, 2),
        teaching=_quick(epochs=1, lr=0.3),
        training=_quick(epochs=1, lr=0.3),
    ),
    "small": Settings(
        network="convnet-16",
        others=("convnet-8", "convnet-24"),
        near_norm="batch",
        train=1200,
        test=1200,
        held_out=400,
        seeds=3,
        side_seeds=3,
        alphas=(0.1, 0.7),
        lams=(0.25, 0.5),
        lengths=(0.5, 1.0),
        # CombAug has rotation, vertical flip and colour jitter in it.
        views=("none", "baseline", "CombAug", "MixUp", "generated", "out of domain"),
        adam_lr=1e-2,
        teaching=_quick(epochs=8, lr=0.3),
        training=_quick(epochs=8, lr=0.3),
    ),
    # Self-distillation of the paper with its schedules; the code's teacher uses Nesterov momentum,
    # the paper's plain momentum, which is followed here.
    "paper": Settings(
        network="preresnet-20",
        others=("preresnet-14", "preresnet-56"),
        near_norm="layer",
        train=None,
        test=None,
        held_out=5000,
        seeds=3,
        side_seeds=3,
        temperatures=(1.0, 4.0),
        lengths=(0.1, 1.0),
        foreign="svhn",
        foreign_images=50_000,
        teaching=TrainSettings(
            epochs=200,
            batch_size=256,
            lr=0.1,
            nesterov=False,
            weight_decay=1e-4,
            whole_epochs=True,
            augmentation=Augmentation(crop=4),
        ),
        training=TrainSettings(
            epochs=300,
            batch_size=128,
            lr=0.05,
            final_lr=1e-6,
            weight_decay=1e-4,
            whole_epochs=True,
            augmentation=Augmentation(crop=4),
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """What a reader may ask for: also the normalisation near the teacher.

    Attributes:
        epochs: of a student's training; the teacher's changes in proportion.
        norm: "batch" or "layer", of the experiments on starting near the teacher.
    """

    norm: str | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    dataset, settings = open_study(name, scale, PRESETS, options)
    if options.norm is not None:
        norm = checks.one_of("norm", options.norm, ("batch", "layer"))
        settings = replace(settings, near_norm=norm)
    if options.epochs is not None:
        share = checks.whole("epochs", options.epochs, 1) / settings.training.epochs
        longer = [
            one.with_epochs(max(1, round(one.epochs * share)))
            for one in (settings.teaching, settings.training)
        ]
        settings = replace(settings, teaching=longer[0], training=longer[1])
    largest = max(settings.teaching.batch_size, settings.training.batch_size)
    enough_images(dataset, 2 * largest)
    smallest = int(min(settings.labelled, 0.5) * len(dataset.y_train))  # of any experiment
    teaching, training = (
        replace(one, batch_size=min(one.batch_size, smallest))
        for one in (settings.teaching, settings.training)
    )
    foreign = None if name == settings.foreign else settings.foreign
    return dataset, replace(settings, foreign=foreign, teaching=teaching, training=training)
