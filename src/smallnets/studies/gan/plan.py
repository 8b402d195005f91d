"""Sizes and schedules of the study at four scales."""

from dataclasses import dataclass, field, replace
from typing import Any

from smallnets import checks, gan
from smallnets.gan.networks import MOBILE, Channels, ConfigSpace, channels_of, resnet_cost
from smallnets.studies.gan.domain import MULTIPLE, Domain, open_domain
from smallnets.studies.study import Options as AnyOptions
from smallnets.studies.study import StudySettings, with_seeds
from smallnets.training import TrainSettings

SHARES = (1.0, 0.75, 0.5, 0.25)  # of the teacher's width, as the supernet may have them
PRECISION = "32-true"  # of all these trainings
FAMILY_SIDES = (64, 32)  # least sides of images, of GauGAN's network and of MUNIT's


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """Sizes of the chapter's experiments.

    Attributes:
        size: pixels a side of scenes; None leaves a file's own.
        held_out: training images of each set on which configurations are chosen; no network learns
            from them.
        ngf, n_blocks, kernel_size: of the teacher, a ResNet generator; ngf is also the width of its
            discriminator, and of the supernet.
        loose_ngf: the same of the unpaired teacher, which has two of everything.
        shares: widths of every layer of the supernet, as shares of ngf, descending.
        training: of every network that learns by itself from pairs.
        supernet, tuning: of a supernet, and of one configuration of it afterwards.
        loose: of the unpaired teacher.
        student: of its students.
        student_share: their width, and that of the students in ablations.
        ask, ask_loose: what students are asked for, with pairs and without.
        reading: of the network that reads label maps, by whose features FID is measured.
        reader_width: of that network.
        budget: largest cost of what is searched, as a share of the teacher's multiply-accumulates.
        search: evolution's settings.
        searches: how often each search is made, with other random numbers.
        coarse: shares to which the list of brute force is limited.
        average: random configurations within the budget that are judged on test pictures.
        scratch: widths, as shares, of networks that are trained from nothing for comparison.
        supernets: how many are trained from one teacher, to see what their random numbers do.
        timed: random configurations whose latency is measured.
        timed_side: pixels a side of the image that takes this time. Networks of convolutions take
            any size, and images as small as those that are learned from measure the calls alone.
        rounds: of timing.
        thorough: whether one seed of all ablations and of the full pipeline is run, too, and the
            families' pictures are shown.
        families: of the small networks of GauGAN and of MUNIT: teacher and supernet.
        family_train: scenes that they learn from, GauGAN's network and MUNIT's.
        family_sizes: pixels a side of these.
        family_ngf: width of their networks.
        own: of the generator that is not ours, and of its supernet.
    """

    size: int | None
    held_out: int
    ngf: int
    n_blocks: int = 3
    kernel_size: int = 5
    loose_ngf: int
    shares: tuple[float, ...] = SHARES
    training: gan.GANTraining
    supernet: gan.GANTraining
    tuning: gan.GANTraining
    loose: gan.GANTraining
    student: gan.GANTraining
    student_share: float = 0.5
    ask: gan.Objective = gan.PUBLISHED["edges2shoes"]
    ask_loose: gan.Objective = gan.PUBLISHED["horse2zebra"]
    reading: TrainSettings
    reader_width: int = 8
    budget: float = 0.1
    search: gan.Evolution
    searches: int = 3
    coarse: tuple[float, ...] = (0.5, 0.25)
    average: int = 10
    scratch: tuple[float, ...] = (0.5, 0.25)
    supernets: int = 3
    timed: int = 12
    timed_side: int = 128
    rounds: int = 7
    thorough: bool = False
    families: gan.GANTraining = field(default_factory=gan.GANTraining)
    family_train: tuple[int, int] = (60, 120)
    family_sizes: tuple[int, int] = (64, 32)
    family_ngf: int = 6
    own: gan.GANTraining = field(default_factory=gan.GANTraining)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (
            ("held_out", 2), ("ngf", 1), ("n_blocks", 3), ("loose_ngf", 1), ("searches", 1),
            ("average", 1), ("supernets", 1), ("timed", 3), ("rounds", 1),
            ("reader_width", 1), ("timed_side", 16), ("family_ngf", 2),
        ):  # fmt: skip
            checks.whole(name, getattr(self, name), least)
        for name in ("shares", "coarse", "scratch"):
            checks.each(name, getattr(self, name), checks.above, 0)
            checks.each(name, getattr(self, name), checks.between, 0, 1)
        if self.timed_side % MULTIPLE:
            raise ValueError(f"timed_side must be a multiple of {MULTIPLE}; got {self.timed_side}")
        for name, bounds in (("family_train", (20, 20)), ("family_sizes", FAMILY_SIDES)):
            given = getattr(self, name)
            if len(given) != len(bounds):
                raise ValueError(f"{name} must be two numbers; got {given}")
            for one, bound in zip(given, bounds, strict=True):
                checks.whole(name, one, bound)
        if not set(self.coarse) <= set(self.shares):
            raise ValueError(f"coarse must be among shares, {self.shares}; got {self.coarse}")
        for name in ("student_share", "budget"):
            checks.between(name, checks.above(name, getattr(self, name), 0), 0, 1)


def width(share: float, ngf: int) -> int:
    """A share of a width, in channels; at least one."""
    return max(1, round(share * ngf))


def space_of(settings: Settings, shares: tuple[float, ...] | None = None) -> ConfigSpace:
    """Configurations of the supernet: each of eight widths is one of the shares."""
    chosen = settings.shares if shares is None else shares
    widths = sorted({width(share, settings.ngf) for share in chosen}, reverse=True)
    return ConfigSpace((tuple(widths),) * 8)


def uniform(settings: Settings, share: float) -> tuple[int, ...]:
    """One width everywhere, as a share of ngf."""
    return (width(share, settings.ngf),) * 8


def _gan(epochs: int, batch_size: int = 4, lr: float = 1e-3) -> gan.GANTraining:
    """Half of the epochs with a constant rate and half with a falling one, as the published ones of
    CycleGAN; batches as those of edges to shoes. The rate is higher than published, for all alike,
    since there are hundreds of times fewer steps.
    """
    return gan.GANTraining(
        epochs=epochs - epochs // 2, decay_epochs=epochs // 2, batch_size=batch_size, lr=lr
    )


def _reading(epochs: int) -> TrainSettings:
    return replace(gan.reading.READING, epochs=epochs, lr=4e-3, precision=PRECISION)


_SMALL = Settings(
    size=32,
    train=600,
    test=128,
    seeds=1,
    held_out=64,
    ngf=12,
    loose_ngf=8,
    training=_gan(4),
    supernet=_gan(6),
    tuning=_gan(2),
    loose=_gan(2),
    student=_gan(2),
    reading=_reading(12),
    search=gan.Evolution(population=12, generations=5),
    searches=2,
    average=6,
    scratch=(0.5,),
    timed=9,
    families=_gan(1, batch_size=2),
    own=_gan(1),
)

PRESETS = {
    "smoke": replace(
        _SMALL,
        train=40,
        test=8,
        held_out=8,
        ngf=4,
        loose_ngf=2,
        training=_gan(1),
        supernet=_gan(1),
        tuning=_gan(1),
        loose=_gan(1),
        student=_gan(1),
        reading=_reading(1),
        reader_width=4,
        budget=0.4,
        search=gan.Evolution(population=4, generations=1),
        coarse=(0.25,),
        average=2,
        supernets=2,
        timed=3,
        timed_side=64,
        rounds=1,
        families=_gan(1),
        family_train=(20, 20),
        family_ngf=4,
        own=_gan(1),
    ),
    "small": _SMALL,
    "evidence": replace(
        _SMALL,
        size=48,
        train=1328,
        test=300,
        seeds=8,
        held_out=128,
        training=_gan(6),
        supernet=_gan(12),
        tuning=_gan(6),
        loose=_gan(4),
        student=_gan(4),
        search=gan.Evolution(population=16, generations=6, mutation=0.3),
        searches=3,
        average=10,
        scratch=(0.75, 0.5, 0.25),
        timed=12,
        thorough=True,
        families=_gan(16),
        family_train=(240, 240),
    ),
    # Edges to shoes at 256 pixels, the Fast pipeline: 46 thousand pairs of a file of your own.
    "paper": Settings(
        size=256,
        train=None,
        test=None,
        seeds=3,
        held_out=2048,
        ngf=64,
        n_blocks=9,
        kernel_size=7,
        loose_ngf=64,
        shares=(1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25),
        training=gan.GANTraining(epochs=5, decay_epochs=15, batch_size=4),
        supernet=gan.RECIPES["edges2shoes fast"].supernet,
        tuning=gan.GANTraining(epochs=5, decay_epochs=15, batch_size=4),
        loose=gan.GANTraining(),
        student=gan.GANTraining(),
        reading=_reading(12),
        reader_width=16,
        budget=0.0855,
        search=gan.Evolution(mutation=0.3),
        thorough=True,
        families=gan.GANTraining(),
        family_train=(1500, 1500),
        family_sizes=(256, 256),
        timed_side=256,
        family_ngf=64,
        own=gan.GANTraining(),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options(AnyOptions):
    """What a reader may ask for: also size, width, and whether a file holds pairs.

    Attributes:
        epochs: of a network that learns by itself from pairs; those of all other trainings change
            in proportion.
        size: pixels a side of scenes.
        ngf: width of teacher and supernet.
        paired: whether a file holds pairs; None is that it does.
    """

    size: int | None = None
    ngf: int | None = None
    paired: bool | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Domain, Settings]:
    """The domain and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, a budget below the smallest configuration,
            or too few images.
        FileNotFoundError: a file that is not there.
    """
    checks.one_of("scale", scale, PRESETS)
    checks.one_of("precision", options.precision, ("auto", PRECISION))
    if options.flips not in (True, False, None):
        raise ValueError(f"flips must be True, False or None; got {options.flips!r}")
    settings = with_seeds(PRESETS[scale], options.seeds)
    domain = open_domain(
        name,
        train=settings.train if options.train is None else options.train,
        test=settings.test if options.test is None else options.test,
        size=options.size if name != "scenes" or options.size is not None else settings.size,
        paired=options.paired,
    )
    if options.ngf is not None:
        checks.whole("ngf", options.ngf, 1)
        loose = max(1, round(settings.loose_ngf * options.ngf / settings.ngf))
        settings = replace(settings, ngf=options.ngf, loose_ngf=loose)
    fewest = min(
        len(one)
        for data in (domain.pairs, domain.loose)
        if data is not None
        for one in (data.a_train, data.b_train)
    )
    settings = replace(
        settings,
        size=None if not domain.drawn else domain.size[0],
        train=len((domain.pairs or domain.loose).a_train),
        test=len(domain.loose.a_test),
        held_out=min(settings.held_out, max(2, fewest // 5)),
        **_trainings(settings, options),
        reading=replace(settings.reading, device=options.device),
    )
    settings = _fitting(settings, fewest - settings.held_out)
    _check_budget(domain, settings)
    return domain, settings


TRAININGS = ("training", "supernet", "tuning", "loose", "student", "families", "own")


def _trainings(settings: Settings, options: Options) -> dict[str, Any]:
    """All trainings of networks that play, as long as was asked for, on that device."""
    share = 1.0
    if options.epochs is not None:
        asked = checks.whole("epochs", options.epochs, 1)
        share = asked / (settings.training.epochs + settings.training.decay_epochs)
    return {
        name: replace(
            one,
            epochs=max(1, round(one.epochs * share)),
            decay_epochs=round(one.decay_epochs * share),
            flip=options.flips,
            device=options.device,
        )
        for name, one in ((name, getattr(settings, name)) for name in TRAININGS)
    }


def _fitting(settings: Settings, images: int) -> Settings:
    """Batches that the smallest set can fill."""
    changes: dict[str, Any] = {
        name: replace(one, batch_size=min(one.batch_size, images))
        for name, one in ((name, getattr(settings, name)) for name in TRAININGS)
    }
    return replace(settings, **changes)


def _check_budget(domain: Domain, settings: Settings) -> None:
    """Raise ValueError if the smallest configuration costs more than the budget."""
    data = domain.pairs or domain.loose
    smallest, whole = (
        resnet_cost(
            channels, domain.size, data.a_channels, data.b_channels, separable=separable,
            kernel_size=settings.kernel_size,
        ).exact
        for channels, separable in (
            (_channels(settings, space_of(settings).smallest()), MOBILE),
            (_channels(settings, (settings.ngf,) * 8), ()),
        )
    )  # fmt: skip
    if smallest > settings.budget * whole:
        raise ValueError(
            f"budget must be at least {smallest / whole:.3f} of the teacher's cost, that of the "
            f"smallest configuration; got {settings.budget}: a larger ngf leaves more room"
        )


def _channels(settings: Settings, config: tuple[int, ...]) -> Channels:
    return channels_of(config, settings.n_blocks)
