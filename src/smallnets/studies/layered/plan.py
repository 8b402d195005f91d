"""Sizes of the experiments, at four scales, and what a reader asked for in their place."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.quantize.layered.codes import check_widths
from smallnets.studies.layered.variants import JUDGED, VARIANTS
from smallnets.studies.study import SizedOptions, SizedSettings, enough_images, open_study
from smallnets.training import TrainSettings

# ImageNet top-1 of ResNet-18 with weights and activations of 4, 3 and 2 bits, in per cent: the
# paper's, as quoted by the authors of Double Rounding, and full precision there.
PUBLISHED = {"float": 70.5, 4: 69.2, 3: 68.8, 2: 66.6}


@dataclass(frozen=True, kw_only=True)
class Settings(SizedSettings):
    """Sizes of the chapter's experiments.

    Attributes:
        seeds: repetitions of dedicated networks and of the variants that claims are about.
        variant_seeds: repetitions of other variants, with the first of those seeds.
        widths: trained ones, from high to low.
        variants: names among `VARIANTS`; "layered" must be one of them.
        training: of the float network.
        tuning: of the quantised ones, which start from it ("scratch" trains as long as both).
        narrow_lr: learning rate of dedicated networks of 2 bits.
        per_channel: one weight step for each output channel, or one for the tensor.
        calibration: training images on which BatchNorm is recalibrated.
    """

    variant_seeds: int
    widths: tuple[int, ...]
    variants: tuple[str, ...]
    training: TrainSettings
    tuning: TrainSettings
    narrow_lr: float = 0.05
    per_channel: bool = True
    calibration: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "widths", check_widths(self.widths))
        if len(self.widths) < 2 or self.widths[-1] < 2:
            raise ValueError(
                f"widths must be two or more of at least 2 bits each; got {self.widths}"
            )
        for name in self.variants:
            checks.one_of("every one of variants", name, VARIANTS)
        if "random width" in self.variants and len(self.widths) < 4:
            raise ValueError(f"random width needs four widths or more; got {self.widths}")
        if "layered" not in self.variants:
            raise ValueError(f"variants must contain 'layered'; got {self.variants}")


_VIEW = Augmentation(crop=1)
# Rates of tuning, and a step for each channel, were chosen on images held out of training, for
# shorter trainings with smaller batches.
PRESETS = {
    "smoke": Settings(
        network="resnet-8-4",
        resolution=16,
        train=160,
        test=100,
        seeds=2,
        variant_seeds=2,
        widths=(8, 6, 4, 2),
        variants=("layered", "plain"),
        training=TrainSettings(epochs=1, batch_size=32, lr=0.05, augmentation=_VIEW),
        tuning=TrainSettings(
            epochs=1,
            batch_size=32,
            lr=0.05,
            weight_decay=2e-4,
            augmentation=_VIEW,
            precision="32-true",
        ),
        calibration=64,
    ),
    "small": Settings(
        network="resnet-8-8",
        resolution=16,
        train=2240,
        test=2000,
        seeds=2,
        variant_seeds=2,
        widths=(8, 6, 4, 2),
        variants=("layered",),
        training=TrainSettings(
            epochs=32, batch_size=128, lr=0.2, warmup_epochs=2, augmentation=_VIEW
        ),
        tuning=TrainSettings(
            epochs=9,
            batch_size=128,
            lr=0.1,
            weight_decay=2e-4,
            augmentation=_VIEW,
            precision="32-true",
        ),
    ),
    "evidence": Settings(
        network="resnet-8-12",
        resolution=16,
        train=5000,
        test=5000,
        seeds=8,
        variant_seeds=3,
        widths=(8, 6, 4, 2),
        variants=(
            *JUDGED,
            "weighted",
            "tied",
            "random width",
            "recursive",
            "Any-Precision",
        ),
        training=TrainSettings(
            epochs=60, batch_size=128, lr=0.2, warmup_epochs=2, augmentation=_VIEW
        ),
        tuning=TrainSettings(
            epochs=15,
            batch_size=128,
            lr=0.1,
            weight_decay=2e-4,
            augmentation=_VIEW,
            precision="32-true",
        ),
    ),
    # For CIFAR-100, one of the paper's data sets; its network and schedule are not known to us.
    "paper": Settings(
        network="resnet-20-16",
        resolution=32,
        train=None,
        test=None,
        seeds=3,
        variant_seeds=3,
        widths=(8, 6, 4, 2),
        variants=tuple(VARIANTS),
        training=TrainSettings(epochs=160, batch_size=128, lr=0.1, warmup_epochs=2),
        tuning=TrainSettings(
            epochs=100, batch_size=128, lr=0.05, weight_decay=1e-4, precision="32-true"
        ),
        calibration=5000,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options(SizedOptions):
    """What a reader may ask for: also the widths and the ways to train them.

    Attributes:
        precision: quantised networks are trained in float32 where it is "auto", since codes of 8
            bits do not fit the eight digits of bfloat16.
        epochs: of the tuning of quantised networks.
        widths: trained bit widths, at least two; a sequence, or text such as "4,3,2".
        variants: names among `VARIANTS`; a sequence, or text such as "layered/plain/direct".
    """

    widths: str | Sequence[int] | None = None
    variants: str | Sequence[str] | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    dataset, settings = open_study(name, scale, PRESETS, options)
    enough_images(dataset, settings.training.batch_size)
    if options.epochs is not None:
        settings = replace(settings, tuning=settings.tuning.with_epochs(options.epochs))
    widths = settings.widths if options.widths is None else listed(options.widths)
    variants = tuple(v for v in settings.variants if v != "random width" or len(widths) > 3)
    if options.variants is not None:
        variants = listed_variants(options.variants)
    calibration = min(settings.calibration, len(dataset.y_train))
    return dataset, replace(settings, widths=widths, variants=variants, calibration=calibration)


def listed(widths: str | Sequence[int]) -> tuple[int, ...]:
    """Widths from text such as "4,3,2".

    Raises:
        ValueError: something else than whole numbers between commas.
    """
    if not isinstance(widths, str):
        return tuple(widths)
    try:
        return tuple(int(part) for part in widths.split(","))
    except ValueError as error:
        raise ValueError(f"widths must be numbers such as 4,3,2; got {widths!r}") from error


def listed_variants(variants: str | Sequence[str]) -> tuple[str, ...]:
    """Variants from text with slashes between them."""
    return tuple(variants.split("/") if isinstance(variants, str) else variants)
