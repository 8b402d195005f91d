"""Sizes of the chapter's experiments, at three scales, and what a reader asked for instead."""

from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.data import Augmentation, Dataset, load
from smallnets.data.resolution import at_resolution
from smallnets.quantize.genie.reconstruct import ReconstructionSettings
from smallnets.quantize.genie.synthesis import SynthesisSettings, shorter
from smallnets.training import TrainSettings, with_seeds

PUBLISHED = {
    "W4A4": {"Genie": 69.66, "QDrop, real images": 69.13},
    "W3A3": {"Genie": 66.84, "QDrop, real images": 65.68},
    "W2A4": {"Genie": 65.10, "QDrop, real images": 64.38},
    "W2A2": {"Genie": 54.01, "QDrop, real images": 51.69},
}
"""Top-1 accuracy (%) of ResNet-18 on ImageNet, 71.06 in full precision, as reported."""


@dataclass(frozen=True)
class StudySettings:
    """Sizes of the chapter's experiments.

    Attributes:
        network: a name of `smallnets.models.named`, "resnet-DEPTH-WIDTH", or one of torchvision's.
        resolution: side of the images that networks see, a multiple of 4.
        train, test: images of each part; None is all.
        seeds: repetitions of everything, the trained network included.
        images: calibration images, real or made.
        counts: smaller numbers of them.
        widths: (bits of weights, bits of activations) at which sources are compared.
        main: the widths at which methods are compared.
        training: of the network.
        synthesis: of images.
        reconstruction: of the quantised network.
        sample: values that decide where an activation's step starts; None is all.
    """

    network: str
    resolution: int
    train: int | None
    test: int | None
    seeds: int
    images: int
    counts: tuple[int, ...]
    widths: tuple[tuple[int, int], ...]
    main: tuple[int, int]
    training: TrainSettings
    synthesis: SynthesisSettings
    reconstruction: ReconstructionSettings
    sample: int | None = 16_384


_VIEW = Augmentation(crop=1)
PRESETS = {
    "smoke": StudySettings(
        network="resnet-8-4",
        resolution=16,
        train=192,
        test=100,
        seeds=2,
        images=16,
        counts=(8,),
        widths=((4, 4), (2, 4)),
        main=(2, 4),
        training=TrainSettings(epochs=2, batch_size=32, lr=0.05, augmentation=_VIEW),
        synthesis=SynthesisSettings(iterations=3, batch_size=16, widths=(8, 4), latent_dim=32),
        reconstruction=ReconstructionSettings(
            iterations=3, batch_size=8, lr_bit=3e-2, lr_step=1e-3, lr_activation=4e-4, opening=8
        ),
    ),
    "small": StudySettings(
        network="resnet-8-12",
        resolution=16,
        train=2500,
        test=1500,
        seeds=3,
        images=128,
        counts=(32, 64),
        widths=((4, 4), (3, 3), (2, 4), (2, 2)),
        main=(2, 4),
        training=TrainSettings(
            epochs=12, batch_size=64, lr=0.1, warmup_epochs=2, augmentation=_VIEW
        ),
        synthesis=SynthesisSettings(
            iterations=150, batch_size=128, widths=(32, 16), patience=20, decay_every=5
        ),
        # of 60 and 100 steps, rates of 1e-2 and 3e-2, lambda of 0.1 and 1, on held-out images
        reconstruction=ReconstructionSettings(
            iterations=60, lr_bit=3e-2, lr_step=1e-3, lr_activation=4e-4
        ),
    ),
    # Published numbers, on CIFAR-10 in place of ImageNet.
    "paper": StudySettings(
        network="resnet-20-16",
        resolution=32,
        train=None,
        test=None,
        seeds=3,
        images=1024,
        counts=(128, 256, 512),
        widths=((4, 4), (3, 3), (2, 4), (2, 2)),
        main=(2, 4),
        training=TrainSettings(epochs=160, batch_size=128, lr=0.1, warmup_epochs=2),
        synthesis=SynthesisSettings(),
        reconstruction=ReconstructionSettings(),
        sample=None,
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
    images: int | None = None,
    synthesis_steps: int | None = None,
    unit_steps: int | None = None,
) -> tuple[Dataset, StudySettings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Args:
        name: of the data set, for `smallnets.data.load`.
        scale: name of a preset.
        seeds: repetitions.
        device, precision: of the network's training.
        train: training images.
        network: see `StudySettings`.
        resolution: side of the images, a multiple of 4, at most that of the data set.
        epochs: of the training.
        flips: whether mirrored images keep their label; None asks the data set.
        images: calibration images.
        synthesis_steps: of each batch of images.
        unit_steps: of each unit's reconstruction.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    checks.one_of("scale", scale, PRESETS)
    preset = with_seeds(PRESETS[scale], seeds)
    if network is not None:
        preset = replace(preset, network=network)
    count = preset.train if train is None else train
    dataset = load(name, train=count, test=preset.test, flips=flips)
    side = min(preset.resolution, *dataset.size) // 4 * 4
    if resolution is not None:
        checks.whole("resolution", resolution, 8)
        side = int(checks.between("resolution", resolution, 8, min(dataset.size)))
        if side % 4:
            raise ValueError(f"resolution must be a multiple of 4; got {side}")
    dataset = at_resolution(dataset, side)
    count = preset.images if images is None else checks.whole("images", images, 2)
    least = max(preset.training.batch_size, count)
    checks.at_least("number of training images", len(dataset.y_train), least)
    checks.at_least("images", count, preset.reconstruction.batch_size)
    view = replace(preset.training.augmentation, flip=dataset.flips)
    training = replace(preset.training, device=device, precision=precision, augmentation=view)
    if epochs is not None:
        training = training.with_epochs(epochs)
    synthesis = replace(preset.synthesis, batch_size=min(preset.synthesis.batch_size, count))
    if synthesis_steps is not None:
        synthesis = shorter(synthesis, checks.whole("synthesis_steps", synthesis_steps, 1))
    reconstruction = preset.reconstruction
    if unit_steps is not None:
        reconstruction = replace(reconstruction, iterations=unit_steps)
    return dataset, replace(
        preset,
        resolution=side,
        train=len(dataset.y_train),
        test=len(dataset.y_test),
        images=count,
        counts=tuple(n for n in preset.counts if n < count),
        training=training,
        synthesis=synthesis,
        reconstruction=reconstruction,
    )
