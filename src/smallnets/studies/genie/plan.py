"""Sizes of the chapter's experiments, at three scales, and what a reader asked for instead."""

from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.quantize.genie.reconstruct import ReconstructionSettings
from smallnets.quantize.genie.synthesis import SynthesisSettings, shorter
from smallnets.studies.study import SizedOptions, SizedSettings, enough_images, open_study
from smallnets.training import TrainSettings

PUBLISHED = {
    "W4A4": {"Genie": 69.66, "QDrop, real images": 69.13},
    "W3A3": {"Genie": 66.84, "QDrop, real images": 65.68},
    "W2A4": {"Genie": 65.10, "QDrop, real images": 64.38},
    "W2A2": {"Genie": 54.01, "QDrop, real images": 51.69},
}
"""Top-1 accuracy (%) of ResNet-18 on ImageNet, 71.06 in full precision, as reported."""


@dataclass(frozen=True, kw_only=True)
class Settings(SizedSettings):
    """Sizes of the chapter's experiments.

    Attributes:
        images: calibration images, real or made.
        counts: smaller numbers of them.
        widths: (bits of weights, bits of activations) at which sources are compared.
        main: the widths at which methods are compared.
        training: of the network.
        synthesis: of images.
        reconstruction: of the quantised network.
        sample: values that decide where an activation's step starts; None is all.
    """

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
    "smoke": Settings(
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
            iterations=3, batch_size=8, lr_bit=3e-2, lr_step=1e-3, lr_activation=4e-4, init_images=8
        ),
    ),
    "small": Settings(
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
    "paper": Settings(
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


@dataclass(frozen=True, kw_only=True)
class Options(SizedOptions):
    """What a reader may ask for: also the calibration images, and how long is learned on them.

    Attributes:
        resolution: a multiple of 4.
        epochs: of the network's training.
        images: calibration images.
        synthesis_steps: of each batch of images.
        unit_steps: of each unit's reconstruction.
    """

    images: int | None = None
    synthesis_steps: int | None = None
    unit_steps: int | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    dataset, settings = open_study(name, scale, PRESETS, options, multiple=4)
    count = options.images
    count = settings.images if count is None else checks.whole("images", count, 2)
    enough_images(dataset, max(settings.training.batch_size, count))
    checks.at_least("images", count, settings.reconstruction.batch_size)
    training, synthesis = settings.training, settings.synthesis
    if options.epochs is not None:
        training = training.with_epochs(options.epochs)
    synthesis = replace(synthesis, batch_size=min(synthesis.batch_size, count))
    if options.synthesis_steps is not None:
        steps = checks.whole("synthesis_steps", options.synthesis_steps, 1)
        synthesis = shorter(synthesis, steps)
    reconstruction = settings.reconstruction
    if options.unit_steps is not None:
        reconstruction = replace(reconstruction, iterations=options.unit_steps)
    return dataset, replace(
        settings,
        images=count,
        counts=tuple(n for n in settings.counts if n < count),
        training=training,
        synthesis=synthesis,
        reconstruction=reconstruction,
    )
