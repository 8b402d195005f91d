"""Sizes of the experiments, at three scales, and what a reader asked for in their place."""

from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.data import Augmentation, Dataset, load
from smallnets.data.resolution import at_resolution
from smallnets.prune.importance.schedule import Schedule
from smallnets.training import TrainSettings, with_seeds

# Published schedules (official configurations): 25 epochs of SGD, momentum 0.9, batches of 256,
# rate 1e-3 with a tenth of it after every 10 epochs, no weight decay. Keys: network, share of gates
# that stays. The last of ResNet-50 does not fit its name: 5,500 of 11,392 leaves 52 %.
PUBLISHED = {
    "resnet50": {
        0.91: Schedule(30, 100, 10, 1000),
        0.81: Schedule(30, 100, 22, 2200),
        0.72: Schedule(30, 100, 32, 3200),
        0.56: Schedule(30, 100, 55, 5500),
    },
    "resnet101": {
        0.75: Schedule(30, 100, 50, 5000),
        0.55: Schedule(30, 100, 90, 9000),
        0.50: Schedule(30, 100, 100, 10000),
        0.40: Schedule(30, 100, 120, 12000),
    },
}


@dataclass(frozen=True)
class StudySettings:
    """Sizes of the chapter's experiments.

    Attributes:
        network: "resnet-DEPTH-WIDTH" for a CIFAR ResNet, or torchvision's name of a network.
        resolution: side of the images that networks see.
        train, test: images of each part; None is all.
        held_out: training images set aside for choosing settings.
        seeds: repetitions of everything.
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

    network: str
    resolution: int
    train: int | None
    test: int | None
    held_out: int
    seeds: int
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
    "smoke": StudySettings(
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
    "small": StudySettings(
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
    "paper": StudySettings(
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


def prepare(
    name: str,
    scale: str,
    *,
    seeds: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    train: int | None = None,
    network: str | None = None,
    resolution: int | None = None,
    epochs: int | None = None,
    flips: bool | None = None,
) -> tuple[Dataset, StudySettings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Args:
        name: of the data set, for `smallnets.data.load`.
        scale: name of a preset.
        seeds: repetitions.
        device, precision: of all trainings.
        train: training images.
        network: "resnet-DEPTH-WIDTH", or one of torchvision's classification networks.
        resolution: side of the images, at most that of the data set.
        epochs: of the first training.
        flips: whether mirrored images keep their label; None asks the data set.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    checks.one_of("scale", scale, PRESETS)
    preset = with_seeds(PRESETS[scale], seeds)
    if network is not None:
        preset = replace(preset, network=network)
    train = preset.train if train is None else train
    dataset = load(name, train=train, test=preset.test, flips=flips)
    side = min(preset.resolution, *dataset.size)
    if resolution is not None:
        checks.whole("resolution", resolution, 8)
        side = int(checks.between("resolution", resolution, 8, min(dataset.size)))
    dataset = at_resolution(dataset, side)
    images = len(dataset.y_train)
    held_out = min(preset.held_out, images // 5)
    checks.at_least("number of training images", images, preset.training.batch_size + held_out)
    view = replace(preset.training.augmentation, flip=dataset.flips)
    training = replace(preset.training, device=device, precision=precision, augmentation=view)
    if epochs is not None:
        training = training.with_epochs(epochs)
    settings = replace(
        preset,
        resolution=side,
        train=images,
        test=len(dataset.y_test),
        held_out=held_out,
        scored=min(preset.scored, images // preset.score_batch * preset.score_batch),
        training=training,
        tuning=replace(preset.tuning, device=device, precision=precision, augmentation=view),
    )
    return dataset, settings
