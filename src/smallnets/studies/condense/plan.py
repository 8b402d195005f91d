"""Sizes and schedules of the study at four scales."""

from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from smallnets import checks
from smallnets.data import Dataset
from smallnets.studies.study import SizedOptions, SizedSettings, enough_images, open_study
from smallnets.synthesize.condense import (
    DIGITS,
    FULL,
    ConvNetSpec,
    DMSettings,
    EvalSettings,
    GradientMatchingSettings,
    convnet_space,
)

MULTIPLE = 8  # of a resolution: three poolings
PUBLISHED_LARGE = 100  # images a class from which on the published rate is ten times as large


@dataclass(frozen=True, kw_only=True)
class Settings(SizedSettings):
    """Sizes of the chapter's experiments. Every set is judged by one protocol.

    Attributes:
        network: name for `smallnets.synthesize.condense.network`, of embeddings and evaluation.
        matching: of distribution matching; its `lr` is that of 10 images a class.
        scaled: whether that rate grows with the images a class, as the gradient of an image falls
            with them; otherwise it is the same for all sizes, and ten times that from 100 images a
            class on, as published.
        gradients: of gradient matching, DC and DSA alike.
        from_noise: factor of their rate for DC, which starts from noise.
        budget: what these two may cost, as a multiple of what DM costs for a set of the same size;
            their iterations are then as many as fit, at least one. None takes those of `gradients`.
        judging: how networks are trained on a set.
        networks: how many on each.
        whole: how a network is trained on all images.
        sizes: images a class in the main comparison.
        matched: those of them for which DC and DSA are made, too.
        ipc: images a class in all other questions.
        looks: at sets while they are learned, in the race of DM with DC and DSA.
        thorough: whether sets are made that only claims of the evidence need.
        further: whether sets are made that decide no claim.
        further_seeds: repetitions of these.
        large: further sizes.
        long: the published schedule of evaluation, of one further judgement.
        learners: networks, besides `network`, of which a set of DM is learned.
        others: networks, besides `network`, that are trained on sets.
        batch_norm: the network with batch norm.
        trainings: from which trained embedding networks are taken.
        bands: of their accuracy.
        steps: in which classes come, in class-incremental learning.
        memory: images a class that are kept there.
        orders: of the classes there.
        remembered: methods that fill the memory.
        space: networks to search among.
        top: share of the best ones that are ranked alone.
        searching: how they are trained on a small set.
        searching_whole: how on all images.
        searched: images a class of the small sets.
        proxies: methods whose sets rank networks.
        held_out: training images that networks and rates are chosen by.
        factors: of the rates of the pixels, candidates.
    """

    matching: DMSettings
    gradients: GradientMatchingSettings
    judging: EvalSettings
    whole: EvalSettings
    scaled: bool = True
    from_noise: float = 1.0
    budget: float | None = None
    networks: int = 2
    sizes: tuple[int, ...] = (1, 10, 50)
    matched: tuple[int, ...] = (1, 10, 50)
    ipc: int = 10
    looks: int = 5
    thorough: bool = True
    further: bool = True
    further_seeds: int = 2
    large: tuple[int, ...] = ()
    long: EvalSettings = field(default_factory=EvalSettings)
    learners: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    batch_norm: str = "ConvNetBN"
    trainings: int = 3
    bands: int = 4
    steps: int = 5
    memory: int = 10
    orders: int = 1
    remembered: tuple[str, ...] = ("random", "herding", "DM")
    space: tuple[ConvNetSpec, ...] = ()
    top: float = 0.5
    searching: EvalSettings = field(default_factory=EvalSettings)
    searching_whole: EvalSettings = field(default_factory=EvalSettings)
    searched: int = 10
    proxies: tuple[str, ...] = ("DM", "random")
    held_out: int = 600
    factors: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sizes", "matched"):
            checks.each(name, getattr(self, name), checks.whole, 1)
        for name in ("networks", "ipc", "looks", "trainings", "bands", "steps", "memory", "orders",
                     "searched"):  # fmt: skip
            checks.whole(name, getattr(self, name), 1)
        for size in self.large:
            checks.whole("every one of large", size, 1)
        checks.each("factors", self.factors, checks.above, 0)
        checks.above("from_noise", self.from_noise, 0)
        checks.between("top", checks.above("top", self.top, 0), 0, 1)
        if self.budget is not None:
            checks.above("budget", self.budget, 0)
        if not {self.ipc, *self.matched} <= set(self.sizes):
            raise ValueError(
                f"ipc and matched must be among the sizes {self.sizes}; "
                f"got {self.ipc} and {self.matched}"
            )

    @property
    def largest(self) -> int:
        """The largest size of the main comparison."""
        return max(self.sizes)

    def rate(self, ipc: int) -> float:
        """The learning rate of the pixels with so many images a class."""
        if self.scaled:
            return self.matching.lr * ipc / 10
        return self.matching.lr * (10 if ipc >= PUBLISHED_LARGE else 1)


def _space(
    depths: tuple[int, ...], widths: tuple[int, ...], *norms: str
) -> tuple[ConvNetSpec, ...]:
    return tuple(
        ConvNetSpec(depth=depth, width=width, norm=norm)
        for depth, width, norm in product(depths, widths, norms)
    )


# Short evaluations at ten times the published rate keep the ranking of methods.
_SHORT = EvalSettings(epochs=100, lr=0.1)

_EVIDENCE = Settings(
    network="ConvNetW16",
    resolution=16,
    train=5000,
    test=2000,
    seeds=8,
    matching=DMSettings(iterations=300, lr=30.0, batch_real=64, precision="32-true"),
    gradients=GradientMatchingSettings(
        outer=5, inner=10, lr=1.0, batch_real=64, precision="32-true"
    ),
    from_noise=3.0,
    budget=2.0,
    judging=_SHORT,
    whole=EvalSettings(epochs=30, lr=0.03, batch_size=64),
    large=(5, 20, 100),
    long=EvalSettings(epochs=1000, lr=0.01),
    learners=("ConvNetW16BN", "MLP"),
    others=("ConvNetD2W16", "ConvNetW32", "ConvNetW16BN", "ConvNetW16MP", "MLP"),
    batch_norm="ConvNetW16BN",
    space=_space((1, 2, 3), (8, 16), "none", "batch", "instance"),
    searching=_SHORT,
    searching_whole=EvalSettings(epochs=15, lr=0.03, batch_size=64),
)

PRESETS = {
    "smoke": replace(
        _EVIDENCE,
        network="ConvNetW4",
        train=120,
        test=60,
        seeds=1,
        further_seeds=1,
        matching=DMSettings(iterations=4, lr=10.0, batch_real=8, precision="32-true"),
        gradients=GradientMatchingSettings(
            outer=2, inner=1, lr=1.0, batch_real=8, precision="32-true"
        ),
        judging=EvalSettings(epochs=2, lr=0.1),
        networks=1,
        whole=EvalSettings(epochs=3, lr=0.03, batch_size=32),
        sizes=(1, 2),
        matched=(1, 2),
        ipc=2,
        looks=2,
        large=(3,),
        long=EvalSettings(epochs=3, lr=0.01),
        learners=("MLP",),
        others=("MLP",),
        batch_norm="ConvNetW4BN",
        trainings=1,
        bands=2,
        memory=1,
        space=_space((1,), (4, 8), "none", "instance"),
        searching=EvalSettings(epochs=2, lr=0.1),
        searching_whole=EvalSettings(epochs=2, lr=0.03, batch_size=32),
        searched=2,
        held_out=20,
        factors=(1.0,),
    ),
    "small": replace(
        _EVIDENCE,
        seeds=2,
        matching=replace(_EVIDENCE.matching, iterations=100),
        judging=replace(_SHORT, epochs=60),
        networks=1,
        sizes=(1, 10),
        matched=(10,),
        looks=3,
        thorough=False,
        further=False,
    ),
    "evidence": _EVIDENCE,
    # The published sizes, for a GPU. Its others are those of the paper's table, with batch norm.
    "paper": replace(
        _EVIDENCE,
        network="ConvNet",
        resolution=32,
        train=None,
        test=None,
        seeds=5,
        further_seeds=1,
        matching=DMSettings(),
        scaled=False,
        gradients=GradientMatchingSettings(),
        from_noise=1.0,
        budget=None,
        judging=EvalSettings(),
        networks=20,
        whole=EvalSettings(epochs=100, lr=0.01),
        large=(100, 200, 500, 1000, 1250),
        learners=("ConvNetBN", "AlexNetBN", "VGG11BN", "ResNet18BN_AP"),
        others=("ConvNetBN", "AlexNetBN", "VGG11BN", "ResNet18BN_AP"),
        batch_norm="ConvNetBN",
        memory=20,
        orders=5,
        space=convnet_space(),
        top=0.05,
        searching=EvalSettings(epochs=200, lr=0.01),
        searching_whole=EvalSettings(epochs=100, lr=0.01),
        searched=50,
        held_out=5000,
        factors=(0.1, 1.0, 10.0),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options(SizedOptions):
    """What a reader may ask for.

    Attributes:
        iterations: updates of DM; those of DC and DSA change in proportion.
        epochs: of the training on a small set; those of all other trainings change in proportion.
    """

    iterations: int | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Without flips where they change the label. Further sizes are left out where a class has fewer
    than twice as many images; classes come in at most `steps` equal steps.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    dataset, settings = open_study(name, scale, PRESETS, options, multiple=MULTIPLE)
    enough_images(dataset, 10 * dataset.num_classes)
    smallest = int(dataset.y_train.bincount(minlength=dataset.num_classes).min())
    checks.at_least("number of training images of the smallest class", smallest,
                    2 * settings.largest)  # fmt: skip
    strategy = FULL if dataset.flips else DIGITS
    share = share_of("iterations", options.iterations, settings.matching.iterations)
    learning: dict[str, Any] = {
        field: replace(
            one,
            iterations=max(1, round(one.iterations * share)),
            device=options.device,
            precision=one.precision if options.precision == "auto" else options.precision,
            strategy=strategy,
        )
        for field, one in vars(settings).items()
        if isinstance(one, DMSettings | GradientMatchingSettings)
    }
    share = share_of("epochs", options.epochs, settings.judging.epochs)
    trainings: dict[str, Any] = {
        field: replace(
            one,
            epochs=max(1, round(one.epochs * share)),
            strategy=strategy,
            device=options.device,
        )
        for field, one in vars(settings).items()
        if isinstance(one, EvalSettings)
    }
    return dataset, replace(
        settings,
        large=tuple(size for size in settings.large if 2 * size <= smallest),
        steps=max(n for n in range(1, settings.steps + 1) if dataset.num_classes % n == 0),
        **learning,
        **trainings,
    )


def share_of(name: str, asked: int | None, usual: int) -> float:
    """What is asked for as a multiple of the usual number; None is 1."""
    return 1.0 if asked is None else checks.whole(name, asked, 1) / usual
