"""Sizes of the experiments, at four scales, and what a reader asked for in their place."""

from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.studies.study import SizedOptions, SizedSettings, enough_images, open_study
from smallnets.training import TrainSettings

FINE = 32  # pixels a side from which on a first convolution of stride 2 loses little


@dataclass(frozen=True, kw_only=True)
class Settings(SizedSettings):
    """Sizes of the chapter's experiments.

    Attributes:
        stem_stride: of the first convolution of a CIFAR ResNet on images of 32 pixels or more.
            Others have a stride of 1 there.
        scored: training images on which channels are scored; as many others judge some scores.
        score_batch: images of a scoring minibatch.
        levels: shares of the multiply-accumulates at which networks are cut without training.
        tuned: shares at which they are fine-tuned, falling.
        criteria: by which these are pruned, at once and iteratively.
        training: of the network.
        tuning: after pruning.
        least: share of each group's channels that is never removed.
        divide: whether scores of shared gates are divided by their number of places.
        every: minibatches between two prunings of the iterative schedule.
        gradual: epochs of the tuning in which the iterative schedule prunes.

    Raises:
        ValueError: the iterative schedule leaves no epoch of the tuning.
    """

    stem_stride: int
    scored: int
    score_batch: int
    levels: tuple[float, ...]
    tuned: tuple[float, ...]
    criteria: tuple[str, ...] = ("Taylor FO", "magnitude", "BN scale", "random")
    training: TrainSettings
    tuning: TrainSettings
    least: float = 0.25
    divide: bool = False
    every: int = 10
    gradual: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.between("gradual", checks.whole("gradual", self.gradual, 1), 1, self.tuning.epochs)


_VIEW = Augmentation(crop=2)
PRESETS = {
    "smoke": Settings(
        network="resnet-8-4",
        stem_stride=1,
        resolution=16,
        train=192,
        test=100,
        seeds=2,
        scored=32,
        score_batch=8,
        levels=(0.8, 0.5),
        tuned=(0.6, 0.3),
        criteria=("Taylor FO", "magnitude", "random"),
        training=TrainSettings(epochs=2, batch_size=32, lr=0.05, augmentation=_VIEW),
        tuning=TrainSettings(epochs=2, batch_size=32, lr=0.02, augmentation=_VIEW),
        every=2,
    ),
    "small": Settings(
        network="resnet-8-8",
        stem_stride=2,
        resolution=32,
        train=2240,
        test=1000,
        seeds=2,  # a core for each; they decide nothing
        scored=256,
        score_batch=8,
        levels=(0.9, 0.8, 0.7, 0.6),
        tuned=(0.6, 0.3),
        criteria=("Taylor FO", "magnitude", "random"),
        training=TrainSettings(
            epochs=40, batch_size=64, lr=0.2, warmup_epochs=1, augmentation=_VIEW
        ),
        tuning=TrainSettings(epochs=4, batch_size=64, lr=0.05, augmentation=_VIEW),
        gradual=2,
    ),
    # Two blocks a stage, so that a stream has several of them; 64 minibatches of scores, since
    # rankings within a layer need many; some 2 % of the gates every 10 minibatches, as the paper.
    "evidence": Settings(
        network="resnet-14-12",
        stem_stride=2,
        resolution=32,
        train=5000,
        test=None,
        seeds=8,
        scored=512,
        score_batch=8,
        levels=(0.9, 0.8, 0.7, 0.6),
        tuned=(0.6, 0.3),
        training=TrainSettings(
            epochs=60, batch_size=64, lr=0.2, warmup_epochs=1, augmentation=_VIEW
        ),
        tuning=TrainSettings(epochs=12, batch_size=64, lr=0.05, augmentation=_VIEW),
        gradual=4,
    ),
    # CIFAR-10 as the paper has it: ResNet-20, some 2 % of the gates every 10 minibatches.
    "paper": Settings(
        network="resnet-20-16",
        stem_stride=1,
        resolution=32,
        train=None,
        test=None,
        seeds=5,
        scored=4096,
        score_batch=64,
        levels=(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3),
        tuned=(0.7, 0.6, 0.5, 0.3),
        training=TrainSettings(epochs=160, batch_size=128, lr=0.1, warmup_epochs=2),
        tuning=TrainSettings(epochs=40, batch_size=128, lr=0.01),
        gradual=10,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options(SizedOptions):
    """What a reader may ask for.

    Attributes:
        epochs: of the first training. The tuning has its share of them, if that is less than the
            preset has.
    """


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    dataset, settings = open_study(name, scale, PRESETS, options)
    if options.epochs is not None:
        settings = _of_epochs(settings, options.epochs)
    enough_images(dataset, settings.training.batch_size)
    enough_images(dataset, 2 * settings.score_batch)
    whole = len(dataset.y_train) // 2 // settings.score_batch * settings.score_batch
    fine = settings.network.startswith("resnet-") and min(dataset.size) >= FINE
    return dataset, replace(
        settings,
        scored=min(settings.scored, whole),
        stem_stride=settings.stem_stride if fine else 1,
    )


def _of_epochs(settings: Settings, epochs: int) -> Settings:
    """Settings with a first training of so many epochs, and no longer a tuning beside it."""
    training = settings.training.with_epochs(epochs)
    share = epochs / settings.training.epochs
    tuning = min(settings.tuning.epochs, max(2, round(share * settings.tuning.epochs)))
    return replace(
        settings,
        training=training,
        tuning=settings.tuning.with_epochs(tuning),
        gradual=min(settings.gradual, max(1, tuning // 2)),
    )
