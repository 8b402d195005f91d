"""Sizes of the experiments, at three scales, and what a reader asked for in their place."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.data import Augmentation, Dataset, load
from smallnets.data.resolution import at_resolution
from smallnets.quantize.layered.codes import check_widths
from smallnets.training import TrainSettings, with_seeds

# ImageNet top-1 of ResNet-18 with weights and activations of 4, 3 and 2 bits, in per cent: the
# paper's, as quoted by the authors of Double Rounding, and full precision there.
PUBLISHED = {"float": 70.5, 4: 69.2, 3: 68.8, 2: 66.6}
VARIANTS = (
    "layered",
    "weighted",
    "plain",
    "shared norm",
    "raw",
    "tied",
    "round",
    "highest only",
    "min-norm",
    "min-norm, normalised",
    "pcgrad",
    "random width",
    "scratch",
    "soft",
    "recursive",
    "direct",
    "Any-Precision",
    "AdaBits",
)


@dataclass(frozen=True)
class StudySettings:
    """Sizes of the chapter's experiments.

    Attributes:
        network: "resnet-DEPTH-WIDTH" for a CIFAR ResNet, or torchvision's name of a network.
        resolution: side of the images that networks see.
        train, test: images of each part; None is all.
        seeds: repetitions of layered ("layered", "weighted") and dedicated networks.
        variant_seeds: repetitions of other variants, with the first of those seeds.
        widths: trained ones, from high to low.
        variants: names among `VARIANTS`; "layered" must be one of them.
        training: of the float network.
        tuning: of the quantised ones, which start from it ("scratch" trains as long as both).
        narrow_lr: learning rate of dedicated networks of 2 bits.
        per_channel: one weight step for each output channel, or one for the tensor.
        calibration: training images on which BatchNorm is recalibrated.
    """

    network: str
    resolution: int
    train: int | None
    test: int | None
    seeds: int
    variant_seeds: int
    widths: tuple[int, ...]
    variants: tuple[str, ...]
    training: TrainSettings
    tuning: TrainSettings
    narrow_lr: float = 0.05
    per_channel: bool = True
    calibration: int = 500

    def __post_init__(self) -> None:
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
_SHOWN = ("layered", "weighted")
PRESETS = {
    "smoke": StudySettings(
        network="resnet-8-4",
        resolution=16,
        train=160,
        test=100,
        seeds=2,
        variant_seeds=2,
        widths=(8, 6, 4, 2),
        variants=_SHOWN,
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
    "small": StudySettings(
        network="resnet-8-12",
        resolution=16,
        train=2000,
        test=2000,
        seeds=3,
        variant_seeds=3,
        widths=(8, 6, 4, 2),
        variants=_SHOWN,
        training=TrainSettings(
            epochs=20, batch_size=64, lr=0.1, warmup_epochs=2, augmentation=_VIEW
        ),
        # 0.1, but 0.05 for two bits alone; steps by channel: chosen on images held out of training
        tuning=TrainSettings(
            epochs=4,
            batch_size=64,
            lr=0.1,
            weight_decay=2e-4,
            augmentation=_VIEW,
            precision="32-true",
        ),
    ),
    # For CIFAR-100, one of the paper's data sets; its network and schedule are not known to us.
    "paper": StudySettings(
        network="resnet-20-16",
        resolution=32,
        train=None,
        test=None,
        seeds=3,
        variant_seeds=3,
        widths=(8, 6, 4, 2),
        variants=VARIANTS,
        training=TrainSettings(epochs=160, batch_size=128, lr=0.1, warmup_epochs=2),
        tuning=TrainSettings(
            epochs=100, batch_size=128, lr=0.05, weight_decay=1e-4, precision="32-true"
        ),
        calibration=5000,
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
    test: int | None = None,
    network: str | None = None,
    resolution: int | None = None,
    widths: str | Sequence[int] | None = None,
    variants: str | Sequence[str] | None = None,
    epochs: int | None = None,
    flips: bool | None = None,
) -> tuple[Dataset, StudySettings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Args:
        name: of the data set, for `smallnets.data.load`.
        scale: name of a preset.
        seeds: repetitions.
        device, precision: of all trainings; quantised ones have float32 where it is "auto", since
            codes of 8 bits do not fit the eight digits of bfloat16.
        train, test: images of each part.
        network: "resnet-DEPTH-WIDTH", or one of torchvision's classification networks.
        resolution: side of the images, at most that of the data set.
        widths: trained bit widths, at least two; a sequence, or text such as "4,3,2".
        variants: names among `VARIANTS`; a sequence, or text such as "layered/plain/direct".
        epochs: of the tuning of quantised networks.
        flips: whether mirrored images keep their label; None asks the data set.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    checks.one_of("scale", scale, PRESETS)
    preset = with_seeds(PRESETS[scale], seeds)
    dataset = load(
        name,
        train=preset.train if train is None else train,
        test=preset.test if test is None else test,
        flips=flips,
    )
    side = min(preset.resolution, *dataset.size) if resolution is None else resolution
    dataset = at_resolution(dataset, side)
    images = len(dataset.y_train)
    checks.at_least("number of training images", images, preset.training.batch_size)
    view = replace(preset.training.augmentation, flip=dataset.flips)
    training, tuning = (
        replace(
            one,
            device=device,
            precision=one.precision if precision == "auto" else precision,
            augmentation=view,
        )
        for one in (preset.training, preset.tuning)
    )
    chosen = preset.widths if widths is None else listed(widths)
    ways = [way for way in preset.variants if way != "random width" or len(chosen) > 3]
    settings = replace(
        preset,
        network=preset.network if network is None else network,
        resolution=side,
        train=images,
        test=len(dataset.y_test),
        widths=chosen,
        variants=tuple(ways) if variants is None else named(variants),
        training=training,
        tuning=tuning if epochs is None else tuning.with_epochs(epochs),
        calibration=min(preset.calibration, images),
    )
    return dataset, settings


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


def named(variants: str | Sequence[str]) -> tuple[str, ...]:
    """Variants from text with slashes between them."""
    return tuple(variants.split("/") if isinstance(variants, str) else variants)
