"""Sizes and schedules of the study at four scales."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.studies.study import SizedOptions, SizedSettings, enough_images, open_study
from smallnets.synthesize import replay as r
from smallnets.training import TrainSettings

FAR = ("photographs", "digits")  # where the images of the far task come from
GROUPS, OTHERS = ("OQ0C", "Il1J", "B8RP", "S5Z2"), "AEHKMTXY"  # the characters of glyphs62
CORE = ("finetune", "lwf", "mfgr", "noise_replay", "real_replay", "joint")
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
LOWER = (0.0003, 0.001, 0.003, 0.01)
# Of EWC's and MAS's penalties: of 1, 0.1, 0.01 and 0.001 of the library's, at rates from 0.003 to
# 0.1, those that were best on held-out images of glyphs62, near, with one seed and 36 epochs.
EWC_STRENGTH, MAS_STRENGTH = 100.0, 0.1
# Of a sweep of one seed at the scale "small", with steps of 8 epochs: what it does not try again.
FOUND = (
    *(("near, finetune", 0.1), ("near, noise_replay", 0.3)),
    *(("near, real_replay", 1.0), ("near, joint", 1.0)),
    *(("far, finetune", 0.1), ("far, noise_replay", 0.03)),
    *(("far, real_replay", 1.0), ("far, joint", 0.3)),
)


@dataclass(frozen=True, kw_only=True)
class Settings(SizedSettings):
    """Sizes of the chapter's experiments.

    Attributes:
        first: training of the first network, on the old classes.
        training: of a later step. Its learning rate is that of methods for which none was chosen.
        generator: how one is trained.
        old, new: classes of the old task, and of the near one.
        far: where the far task's images come from, one of `FAR`.
        held_share: share of every task's training images that is held out, by class: rates are
            chosen on them, and no network is trained on them.
        rates: candidates of the learning rate.
        lower: further ones below them for methods that hold on to weights ("ewc", "mas"), and
            where BatchNorm's averages are left alone. With one softmax over all classes the total
            may be best where a network hardly learns, and without averages of its own it diverges
            early; the end of the list must not decide what they are worth.
        swept: methods for which they are tried, and the number of seeds, `sweep_seeds`.
        chosen: name of a condition -> rate that an earlier sweep chose, for methods not in `swept`.
        thorough: whether conditions are run that only claims need.
        further: whether one seed of everything else is run, too.
        diversities: weights of the diversity term; the first is that of the main comparison.
        replay_factor: how many times as many images are replayed in one further condition.
        steps: tasks of the sequences.
        orders: seeds of their class orders beside the fixed one.
        images: that analyses look at, of each kind.
    """

    first: TrainSettings
    training: TrainSettings
    generator: r.GeneratorSettings
    old: tuple[int, ...] = ()
    new: tuple[int, ...] = ()
    far: str = "photographs"
    held_share: float = 0.15
    rates: tuple[float, ...] = RATES
    lower: tuple[float, ...] = ()
    swept: tuple[str, ...] = ("lwf", "mfgr")
    sweep_seeds: int = 1
    chosen: tuple[tuple[str, float], ...] = ()
    thorough: bool = True
    further: bool = True
    diversities: tuple[float, ...] = (0.1, 1.0)
    replay_factor: float = 4.0
    steps: int = 3
    orders: tuple[int, ...] = (0, 1)
    images: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("far", self.far, FAR)
        checks.between("held_share", checks.above("held_share", self.held_share, 0), 0, 0.5)
        for name in ("rates", "diversities"):
            checks.each(name, getattr(self, name), checks.above, 0)
        for rate in self.lower:
            checks.between("every one of lower", checks.above("lower", rate, 0), 0, min(self.rates))
        for method in self.swept:
            checks.one_of("every one of swept", method, r.METHODS)
        checks.above("replay_factor", self.replay_factor, 0)
        checks.whole("steps", self.steps, 2)
        checks.whole("images", self.images, 16)


def _quick(epochs: int, lr: float) -> TrainSettings:
    """A training with a warm-up. For networks as small as these, bfloat16 is no faster."""
    return TrainSettings(
        epochs=epochs,
        batch_size=64,
        lr=lr,
        weight_decay=5e-4,
        warmup_epochs=epochs / 8,
        augmentation=Augmentation(crop=1),
        precision="32-true",
    )


def _making(iterations: int) -> r.GeneratorSettings:
    """The shipped weights on a narrow generator."""
    return r.GeneratorSettings(
        latent=64,
        widths=(32, 32, 16),
        crop=True,
        epochs=10,
        steps=iterations // 10,
        batch=64,
        pairs=32,
    )


_SMALL = Settings(
    network="resnet-8-8",
    resolution=16,
    train=4960,
    test=2480,
    seeds=1,
    thorough=False,
    further=False,
    rates=(0.1, 0.3, 1.0),
    swept=("lwf", "mfgr"),
    chosen=FOUND,
    first=_quick(30, 0.2),
    training=_quick(6, 0.1),
    generator=_making(200),
)

PRESETS = {
    "smoke": Settings(
        network="resnet-8-4",
        resolution=16,
        train=620,
        test=310,
        seeds=1,
        thorough=False,
        further=False,
        rates=(0.1,),
        swept=("lwf",),
        diversities=(0.1, 1.0),
        orders=(0,),
        images=64,
        first=_quick(2, 0.1),
        training=_quick(1, 0.1),
        generator=replace(_making(20), epochs=2, steps=5, batch=32, pairs=16),
    ),
    "small": _SMALL,
    "evidence": replace(
        _SMALL,
        train=9300,
        test=3720,
        seeds=8,
        thorough=True,
        further=True,
        diversities=(0.1, 1.0, 10.0),
        rates=RATES,
        lower=LOWER,
        swept=(*CORE, "replay_only", "lwf_full", "ewc", "mas", "abd"),
        sweep_seeds=1,
        chosen=(),
        first=_quick(40, 0.2),
        training=_quick(36, 0.1),
        generator=_making(1000),
    ),
    # CIFAR-100 in five steps of twenty, as published; here also with a far task.
    "paper": Settings(
        network="resnet-34",
        resolution=32,
        train=None,
        test=None,
        seeds=3,
        held_share=0.1,
        lower=LOWER,
        swept=tuple(r.METHODS),
        sweep_seeds=1,
        steps=5,
        images=2048,
        first=replace(r.PUBLISHED_TRAINING, precision="auto"),
        training=r.PUBLISHED_TRAINING,
        generator=r.GeneratorSettings(),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options(SizedOptions):
    """What a reader may ask for: also which classes come first, and what is far from them.

    Attributes:
        epochs: of a later step; those of the first network and of the generator change in
            proportion.
        old: classes of the old task, as labels; the others are new.
        far: one of `FAR`.
        sweep: whether rates are tried for every method that is compared. None is the scale's.
    """

    old: tuple[int, ...] | None = None
    far: str | None = None
    sweep: bool | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images or classes.
    """
    dataset, settings = open_study(name, scale, PRESETS, options)
    enough_images(dataset, 100)
    old, new = _classes(dataset, options.old)
    characters = name.startswith("glyphs") or name == "digits"
    settings = replace(
        settings,
        old=old,
        new=new,
        far=options.far or ("photographs" if characters else "digits"),
        generator=replace(settings.generator, device=options.device),
    )
    if options.epochs is not None:
        share = checks.whole("epochs", options.epochs, 1) / settings.training.epochs
        longer = max(1, round(settings.generator.epochs * share))
        settings = replace(
            settings,
            first=settings.first.with_epochs(max(1, round(settings.first.epochs * share))),
            training=settings.training.with_epochs(options.epochs),
            generator=replace(settings.generator, epochs=longer),
        )
    if options.sweep is not None:
        settings = replace(settings, swept=compared(settings) if options.sweep else ())
    return dataset, _fitting(dataset, settings)


def compared(settings: Settings) -> tuple[str, ...]:
    """The methods that are compared at these settings."""
    more = ("replay_only", "lwf_full", "ewc", "mas", "abd") if settings.thorough else ()
    return (*CORE, *more)


def _classes(
    dataset: Dataset, old: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The old classes and the near ones. Of the characters of glyphs62 the old ones come in groups
    that look alike; of other sets the first 60 % are old.
    """
    names, known = list(dataset.class_names), dataset.num_classes
    if old is None and set("".join((*GROUPS, OTHERS))) <= set(names):
        characters = "".join(GROUPS)
        return tuple(map(names.index, characters)), tuple(map(names.index, OTHERS))
    first = tuple(range(round(0.6 * known))) if old is None else tuple(old)
    for one in first:
        checks.between("every one of old", checks.whole("every one of old", one, 0), 0, known - 1)
    rest = tuple(one for one in range(known) if one not in first)
    if len(set(first)) < max(3, len(first)) or len(rest) < 2:
        raise ValueError(
            "old must name three different classes or more and leave two others; "
            f"got {list(first)} of {known}"
        )
    return first, rest


def _fitting(dataset: Dataset, settings: Settings) -> Settings:
    """The settings with batches that the smallest task can fill."""
    counts = [
        sum(int((dataset.y_train == one).sum()) for one in group)
        for group in (settings.old, settings.new)
    ]
    smallest = int(min(counts) * (1 - settings.held_share))
    checks.at_least("training images of the smaller task", smallest, 16)
    first, training = (
        replace(one, batch_size=min(one.batch_size, smallest))
        for one in (settings.first, settings.training)
    )
    return replace(settings, first=first, training=training)
