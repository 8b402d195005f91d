"""Sizes and schedules of the study at four scales."""

from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.studies.study import Options as StudyOptions
from smallnets.studies.study import StudySettings, enough_images, open_study
from smallnets.training import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """Sizes of the chapter's experiments. Half of the training images are the teacher's own.

    Attributes:
        network: of teachers and students alike, see `build_network`.
        norm: of all networks, "batch" or "layer".
        teaching, training: of the teachers on labels, and of the students.
        thorough: whether students are trained that only claims need.
        further: whether one seed of every other student is trained, too.
        lam: weight of the teacher in the start of the main experiment.
        few: share of the teacher's own images that the student of few images is shown.
        length: of the long training, as a multiple of a student's epochs.
        alpha: weight of the labels in the main experiment.
        temperature: of all students, unless something else is said.
        lams, alphas, lengths: further ones.
        members, temperatures: of the further students of ensembles.
        others: networks of further students, narrower and wider than the teacher.
        views: names of the data policies among the further students, see `policies`; None is all.
        losses: of further students, see `LOSSES`.
        share: of foreign or generated images in a batch.
        foreign, foreign_images: data set that the foreign images come from (None leaves them
            out), and how many of them.
        held_out: training images set aside for choosing learning rates.
        rates, adam_rates: candidates.
        adam_lr: learning rate of Adam.
    """

    network: str
    teaching: TrainSettings
    training: TrainSettings
    held_out: int
    norm: str = "batch"
    thorough: bool = True
    further: bool = True
    lam: float = 0.375
    few: float = 0.1
    length: float = 2.0
    alpha: float = 0.5
    temperature: float = 1.0
    lams: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75)
    alphas: tuple[float, ...] = (0.1, 0.3, 0.7)
    lengths: tuple[float, ...] = (0.25,)
    members: tuple[int, ...] = (3,)
    temperatures: tuple[float, ...] = (4.0,)
    others: tuple[str, ...] = ()
    views: tuple[str, ...] | None = None
    losses: tuple[str, ...] = ("symmetric", "reverse", "hard", "mixed", "brier", "logit")
    share: float = 0.2
    foreign: str | None = "glyphs62"
    foreign_images: int = 500
    rates: tuple[float, ...] = (0.1, 0.3)
    adam_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    adam_lr: float = 3e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("norm", self.norm, ("batch", "layer"))
        checks.each("members", self.members, checks.whole, 1)
        for name in ("temperatures", "lengths", "rates", "adam_rates"):
            checks.each(name, getattr(self, name), checks.above, 0)
        for name in ("alphas", "lams"):
            checks.each(name, getattr(self, name), checks.between, 0, 1)
        for name in ("temperature", "few", "length", "adam_lr"):
            checks.above(name, getattr(self, name), 0)
        for name in ("lam", "alpha", "few", "share"):
            checks.between(name, getattr(self, name), 0, 1)


def _quick(epochs: int) -> TrainSettings:
    """A training with a warm-up, without which seeds scatter. For networks as small as these,
    bfloat16 is no faster.
    """
    return TrainSettings(
        epochs=epochs,
        batch_size=64,
        lr=0.3,
        weight_decay=1e-4,
        warmup_epochs=epochs / 8,
        augmentation=Augmentation(crop=2),
        precision="32-true",
    )


_PLATEAU = Settings(
    network="convnet-8",
    train=4480,
    test=2000,
    seeds=1,
    thorough=False,
    further=False,
    held_out=600,
    others=("convnet-4", "convnet-16"),
    teaching=_quick(60),
    training=_quick(60),
)

PRESETS = {
    "smoke": Settings(
        network="convnet-4",
        train=320,
        test=200,
        seeds=1,
        held_out=64,
        lams=(0.25,),
        alphas=(0.1,),
        members=(2,),
        others=("convnet-3",),
        views=("none", "MixUp", "generated", "out of domain"),
        losses=("symmetric",),
        foreign_images=200,
        rates=(0.3,),
        adam_rates=(1e-2,),
        teaching=_quick(2),
        training=_quick(2),
    ),
    "small": _PLATEAU,
    "evidence": replace(_PLATEAU, seeds=8, thorough=True, further=True),
    # Self-distillation of the paper with its schedules; the code's teacher uses Nesterov momentum,
    # the paper's plain momentum, which is followed here.
    "paper": Settings(
        network="preresnet-20",
        train=None,
        test=None,
        held_out=5000,
        seeds=3,
        members=(3, 5),
        others=("preresnet-14", "preresnet-56"),
        adam_rates=(1e-4, 1e-3, 1e-2),
        adam_lr=1e-3,
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
    """What a reader may ask for: also the normalisation.

    Attributes:
        epochs: of a student's training; the teacher's changes in proportion.
        norm: "batch" or "layer".
    """

    norm: str | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    dataset, settings = open_study(name, scale, PRESETS, options)
    if options.norm is not None:
        settings = replace(settings, norm=options.norm)
    if options.epochs is not None:
        share = checks.whole("epochs", options.epochs, 1) / settings.training.epochs
        longer = [
            one.with_epochs(max(1, round(one.epochs * share)))
            for one in (settings.teaching, settings.training)
        ]
        settings = replace(settings, teaching=longer[0], training=longer[1])
    enough_images(dataset, 100)
    smallest = int(settings.few * (len(dataset.y_train) // 2))  # of any experiment
    own = len(dataset.y_train) // 2
    teaching, training = (
        replace(one, batch_size=min(one.batch_size, own))
        for one in (settings.teaching, settings.training)
    )
    checks.at_least("images of the student of few images", smallest, 2)
    foreign = None if name == settings.foreign else settings.foreign
    return dataset, replace(settings, foreign=foreign, teaching=teaching, training=training)
