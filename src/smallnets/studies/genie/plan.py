"""Sizes of the chapter's experiments, by scale, and what a reader asked for instead."""

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
        stem_stride: of the first convolution of a CIFAR ResNet; other networks have their own.
        images: calibration images, real or made.
        counts: smaller numbers of them.
        widths: (bits of weights, bits of activations) at which real images and GENIE-D's are
            compared.
        main: the widths at which all else is compared.
        sources: ways of making images, names in `SOURCES`.
        taught_on: calibration images on which quantisers are compared, "real" or such a name.
        published_rate: whether the published rate of the soft bits is tried, too.
        training: of the network.
        synthesis: of images.
        reconstruction: of the quantised network.
        sample: values that decide where an activation's step starts; None is all.
    """

    stem_stride: int
    images: int
    counts: tuple[int, ...]
    widths: tuple[tuple[int, int], ...]
    main: tuple[int, int]
    sources: tuple[str, ...]
    taught_on: tuple[str, ...]
    published_rate: bool
    training: TrainSettings
    synthesis: SynthesisSettings
    reconstruction: ReconstructionSettings
    sample: int | None = 16_384


# name -> method, swing
SOURCES: dict[str, tuple[str, bool]] = {
    "GENIE-D": ("genie", True),
    "no swing": ("genie", False),
    "GBA": ("gba", True),
    "ZeroQ-like": ("pixels", True),
    "ZeroQ-like, no swing": ("pixels", False),
    "noise": ("noise", False),
}

_SMALL = Settings(
    network="resnet-8-8",
    stem_stride=2,
    resolution=32,
    train=2240,
    test=1000,
    seeds=2,
    images=64,
    counts=(),
    widths=((4, 4), (2, 4)),
    main=(2, 4),
    sources=("GENIE-D", "no swing", "GBA", "ZeroQ-like", "noise"),
    taught_on=("GENIE-D",),
    published_rate=False,
    training=TrainSettings(
        epochs=36, batch_size=64, lr=0.3, warmup_epochs=2, augmentation=Augmentation(crop=3)
    ),
    synthesis=SynthesisSettings(
        iterations=180, batch_size=64, widths=(32, 16), patience=22, decay_every=5
    ),
    # Published rates times 10 for steps and 30 for bits: after 200 steps a quarter of the soft
    # bits was undecided at ten times the rate, 6 % at thirty times. That needs no labels.
    reconstruction=ReconstructionSettings(
        iterations=150, lr_bit=3e-2, lr_step=1e-3, lr_activation=4e-4
    ),
)
PRESETS = {
    "smoke": replace(
        _SMALL,
        network="resnet-8-4",
        resolution=16,
        train=192,
        test=100,
        images=16,
        counts=(4,),
        sources=tuple(SOURCES),
        taught_on=("real", "GENIE-D"),
        published_rate=True,
        training=TrainSettings(epochs=2, batch_size=32, lr=0.05, augmentation=Augmentation(crop=1)),
        synthesis=SynthesisSettings(iterations=3, batch_size=16, widths=(8, 4), latent_dim=32),
        reconstruction=ReconstructionSettings(
            iterations=3, batch_size=4, lr_bit=3e-2, lr_step=1e-3, lr_activation=4e-4, init_images=8
        ),
    ),
    "small": _SMALL,
    # Some 1,400 seconds a seed on one core of the plain path, half as many with AVX-512.
    "evidence": replace(
        _SMALL,
        test=4000,
        seeds=8,
        images=256,
        counts=(64,),
        sources=tuple(SOURCES),
        taught_on=("real", "GENIE-D"),
        published_rate=True,
        training=replace(_SMALL.training, epochs=60),
        synthesis=SynthesisSettings(
            iterations=500, batch_size=128, widths=(32, 16), patience=60, decay_every=14
        ),
        reconstruction=ReconstructionSettings(
            iterations=800, lr_bit=1e-2, lr_step=5e-4, lr_activation=2e-4
        ),
    ),
    # Published numbers, on CIFAR-10 in place of ImageNet.
    "paper": Settings(
        network="resnet-20-16",
        stem_stride=1,
        resolution=32,
        train=None,
        test=None,
        seeds=3,
        images=1024,
        counts=(128, 256, 512),
        widths=((4, 4), (3, 3), (2, 4), (2, 2)),
        main=(2, 4),
        sources=tuple(SOURCES),
        taught_on=("real", "GENIE-D"),
        published_rate=False,
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
