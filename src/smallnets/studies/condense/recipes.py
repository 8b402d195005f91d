"""The sets of the study: how each is made. Each question changes one thing of one set."""

from dataclasses import dataclass

from smallnets import checks
from smallnets.studies.condense.plan import Settings
from smallnets.synthesize.condense import METHODS as CHOSEN
from smallnets.synthesize.condense.pixels import STARTS

LEARNED = ("DC", "DSA", "DM")
METHODS = (*CHOSEN, *LEARNED)
RANDOM, HERDING, DSA, DM, WHOLE = "random", "herding", "DSA", "DM", "whole"
FRESH, ONE, TEN, TRAINED = "fresh", "one", "ten", "trained"
EMBEDDINGS = (FRESH, ONE, TEN, TRAINED)
ALL_BANDS = "all bands"
NOISE, ONE_NETWORK, TEN_NETWORKS, PLAIN = "noise", "one network", "ten networks", "plain matching"
BATCH_NORM, CORNERS, FEW = "batch norm", "corners aligned", "few at a time"
FACTOR = 10.0  # by which the image rate is changed


@dataclass(frozen=True)
class Recipe:
    """How a set is made.

    Attributes:
        method: one of `METHODS`.
        ipc: images a class.
        init: what a set of DM starts from, "real" images or "noise".
        augmented: whether DM matches under siamese augmentation.
        network: name of the network of which DM takes embeddings; None is the settings'.
        embedding: where DM's networks come from: "fresh" ones in every update, "one" or "ten" that
            are random, too, or "trained" ones.
        band: which trained ones, from 1 (the least accurate) to the settings' number of bands; 0
            takes all.
        length: updates, as a multiple of the settings'.
        rate: of the pixels, as a multiple of the settings'.
        align_corners: see `smallnets.synthesize.condense.apply_dsa`.
        few: synthetic images a class that take part in an update of DM; None is all.

    Raises:
        ValueError: a name is unknown or a number out of range.
    """

    method: str = DM
    ipc: int = 10
    init: str = "real"
    augmented: bool = True
    network: str | None = None
    embedding: str = FRESH
    band: int = 0
    length: float = 1.0
    rate: float = 1.0
    align_corners: bool = False
    few: int | None = None

    def __post_init__(self) -> None:
        checks.one_of("method", self.method, METHODS)
        checks.whole("ipc", self.ipc, 1)
        checks.one_of("init", self.init, STARTS)
        checks.one_of("embedding", self.embedding, EMBEDDINGS)
        checks.whole("band", self.band, 0)
        checks.above("length", self.length, 0)
        checks.above("rate", self.rate, 0)
        if self.few is not None:
            checks.between("few", checks.whole("few", self.few, 1), 1, self.ipc)


def titled(method: str, ipc: int, what: str = "") -> str:
    """Name of a set, such as "DM, 10" or "DM, 10, noise"."""
    return f"{method}, {ipc}" + (f", {what}" if what else "")


def core_recipes(settings: Settings) -> dict[str, Recipe]:
    """The sets of the main comparison by name: every method at every size."""
    return {
        titled(method, ipc): Recipe(method, ipc)
        for ipc in settings.sizes
        for method in METHODS
        if method not in LEARNED[:2] or ipc in settings.matched
    }


def needed_recipes(settings: Settings) -> dict[str, Recipe]:
    """Sets of `settings.ipc` images a class that start or are matched otherwise, by name."""
    ipc = settings.ipc
    return {
        titled(DM, ipc, NOISE): Recipe(ipc=ipc, init="noise"),
        titled(DM, ipc, ONE_NETWORK): Recipe(ipc=ipc, embedding=ONE),
        titled(DM, ipc, TEN_NETWORKS): Recipe(ipc=ipc, embedding=TEN),
        titled(DM, ipc, PLAIN): Recipe(ipc=ipc, augmented=False),
    }


def band_recipes(settings: Settings) -> dict[str, Recipe]:
    """Sets whose embedding networks were trained, by their accuracy: the paper's ablation."""
    count, ipc = settings.bands, settings.ipc
    bands = {f"band {k} of {count}": k for k in range(1, count + 1)} | {ALL_BANDS: 0}
    return {name: Recipe(ipc=ipc, embedding=TRAINED, band=band) for name, band in bands.items()}


def ablation_recipes(settings: Settings) -> dict[str, Recipe]:
    """What may explain that a published figure is not reached, at the largest size, by name."""
    ipc = settings.largest
    changed = {
        CORNERS: Recipe(ipc=ipc, align_corners=True),
        f"rate / {FACTOR:g}": Recipe(ipc=ipc, rate=1 / FACTOR),
        f"rate x {FACTOR:g}": Recipe(ipc=ipc, rate=FACTOR),
        "half the updates": Recipe(ipc=ipc, length=0.5),
        "twice the updates": Recipe(ipc=ipc, length=2.0),
        BATCH_NORM: Recipe(ipc=ipc, network=settings.batch_norm),
        PLAIN: Recipe(ipc=ipc, augmented=False),
        FEW: Recipe(ipc=ipc, few=max(1, ipc // 5)),
    }
    return {titled(DM, ipc, what): recipe for what, recipe in changed.items()}


def large_recipes(settings: Settings) -> dict[str, Recipe]:
    """Sets of DM and random ones of further sizes, by name."""
    return {
        titled(method, ipc): Recipe(method, ipc)
        for ipc in settings.large
        for method in (RANDOM, DM)
    }
