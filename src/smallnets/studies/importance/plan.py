"""Sizes of the experiments, at three scales, and what a reader asked for in their place."""

from dataclasses import dataclass, replace

from smallnets.data import Augmentation, Dataset
from smallnets.studies.study import SizedOptions, SizedSettings, enough_images, open_study
from smallnets.training import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Settings(SizedSettings):
    """Sizes of the chapter's experiments.

    Attributes:
        held_out: training images set aside for choosing settings.
        scored: training images on which channels are scored.
        score_batch: images of a scoring minibatch.
        levels: shares of the multiply-accumulates at which networks are cut without training.
        tuned: shares at which they are fine-tuned.
        training: of the network.
        tuning: after pruning.
        least: share of each group's channels that is never removed.
        divide: whether scores of shared gates are divided by their number of places.
        every: minibatches between two prunings of the iterative schedule.
        gradual: epochs of the tuning in which the iterative schedule prunes.
    """

    held_out: int
    scored: int
    score_batch: int
    levels: tuple[float, ...]
    tuned: tuple[float, ...]
    training: TrainSettings
    tuning: TrainSettings
    least: float = 0.25
    divide: bool = False
    every: int = 10
    gradual: int = 1


_VIEW = Augmentation(crop=1)
PRESETS = {
    "smoke": Settings(
        network="resnet-8-4",
        resolution=16,
        train=192,
        test=100,
        held_out=32,
        seeds=2,
        scored=32,
        score_batch=8,
        levels=(0.8, 0.5),
        tuned=(0.6,),
        training=TrainSettings(epochs=2, batch_size=32, lr=0.05, augmentation=_VIEW),
        tuning=TrainSettings(epochs=2, batch_size=32, lr=0.02, augmentation=_VIEW),
        every=2,
    ),
    "small": Settings(
        network="resnet-8-12",
        resolution=16,
        train=2500,
        test=1500,
        held_out=600,
        seeds=3,
        # 64 minibatches, as at the paper's size: rankings within layers need many
        scored=512,
        score_batch=8,
        levels=(0.9, 0.8, 0.7, 0.6),
        tuned=(0.6, 0.4),
        training=TrainSettings(
            epochs=12, batch_size=64, lr=0.1, warmup_epochs=2, augmentation=_VIEW
        ),
        # of 0.03 and 0.1, on held-out images
        tuning=TrainSettings(epochs=3, batch_size=64, lr=0.1, augmentation=_VIEW),
        gradual=2,
    ),
    # CIFAR-10 as the paper has it: ResNet-20, some 2 % of the gates every 10 minibatches.
    "paper": Settings(
        network="resnet-20-16",
        resolution=32,
        train=None,
        test=None,
        held_out=5000,
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
        epochs: of the first training.
    """


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    dataset, settings = open_study(name, scale, PRESETS, options)
    if options.epochs is not None:
        settings = replace(settings, training=settings.training.with_epochs(options.epochs))
    enough_images(dataset, settings.training.batch_size + settings.held_out)
    whole = len(dataset.y_train) // settings.score_batch * settings.score_batch
    return dataset, replace(settings, scored=min(settings.scored, whole))
