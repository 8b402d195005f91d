"""What is compared: a method, in a scenario, with a generator."""

from dataclasses import dataclass, replace

from smallnets import checks
from smallnets.studies.replay.plan import Settings, compared
from smallnets.studies.replay.scenarios import FAR, NEAR, SCENARIOS
from smallnets.synthesize import replay as r

SHIPPED, NO_BN, DREAMT = "shipped", "no BN", "abd"
AT_RATE_OF_LWF, FROZEN = "rate of lwf", "frozen BN"
TRUE, NEITHER = "true variation", "no BN, true variation"


@dataclass(frozen=True)
class Condition:
    """How a new task is learned.

    Attributes:
        scenario: "near" or "far".
        method: a name of `METHODS`.
        generator: a name of `generators`; used by methods that replay generated images.
        replay_factor: factor of the number of replayed images.
        joint_pass, freeze_bn: see `IncrementalSettings`.
        like: method whose learning rate it has; None is its own method.

    Raises:
        ValueError: a name is unknown or a number out of range.
    """

    scenario: str
    method: str
    generator: str = SHIPPED
    replay_factor: float = 1.0
    joint_pass: bool = False
    freeze_bn: bool = False
    like: str | None = None

    def __post_init__(self) -> None:
        checks.one_of("scenario", self.scenario, SCENARIOS)
        checks.one_of("method", self.method, r.METHODS)
        checks.one_of("like", self.like or self.method, r.METHODS)
        checks.above("replay_factor", self.replay_factor, 0)

    @property
    def plain(self) -> str:
        """Name of the condition of the same scenario whose learning rate it has: that of its own
        method, or of the one that it is to be like. With BatchNorm's averages left alone a network
        diverges at rates that suit it otherwise, so such a condition has a rate of its own.
        """
        name = f"{self.scenario}, {self.like or self.method}"
        return f"{name}, {FROZEN}" if self.freeze_bn else name

    @property
    def generates(self) -> bool:
        """Whether generated images are replayed."""
        return r.METHODS[self.method].replay == "generator"


def diversity(weight: float) -> str:
    """Name of the generator with a weight on diversity."""
    return f"diversity {weight:g}"


def core_conditions(settings: Settings) -> dict[str, Condition]:
    """The conditions of every seed by name: near first, then far.

    Where the study is thorough, replay also has the learning rate of LwF. Rates are chosen for the
    total, and a larger one buys new classes with what is known of old ones; so what replay does to
    that knowledge is asked at one rate. And generated images and noise are replayed with the
    running averages of BatchNorm left alone, which noise would spoil more.
    """
    found = {}
    for scenario in SCENARIOS:
        for method in compared(settings):
            found[f"{scenario}, {method}"] = _plain(scenario, method)
    for name in (NO_BN, diversity(settings.diversities[0])):
        found[f"{NEAR}, mfgr, {name}"] = Condition(NEAR, "mfgr", name)
    if settings.thorough:
        for method in ("mfgr", "noise_replay"):
            for scenario in SCENARIOS:
                name = f"{scenario}, {method}, {AT_RATE_OF_LWF}"
                found[name] = Condition(scenario, method, like="lwf")
            found[f"{NEAR}, {method}, {FROZEN}"] = Condition(NEAR, method, freeze_bn=True)
    return found


def further_conditions(settings: Settings) -> dict[str, Condition]:
    """Every other condition, by name; near, if nothing else is said."""
    found = {
        f"{NEAR}, {method}": Condition(NEAR, method)
        for method in ("gnkdcecut_ncecut", "gnkdce_nce", "gnce", "ndkd", "gdkd")
    }
    names = (TRUE, *(diversity(weight) for weight in settings.diversities[1:]))
    found |= {f"{NEAR}, mfgr, {name}": Condition(NEAR, "mfgr", name) for name in names}
    found[f"{FAR}, mfgr, {NO_BN}"] = Condition(FAR, "mfgr", NO_BN)
    return found | {
        f"{NEAR}, mfgr, {settings.replay_factor:g} x as many images": Condition(
            NEAR, "mfgr", replay_factor=settings.replay_factor
        ),
        f"{NEAR}, mfgr, one batch": Condition(NEAR, "mfgr", joint_pass=True),
    }


def _plain(scenario: str, method: str) -> Condition:
    return Condition(scenario, method, DREAMT if method == "abd" else SHIPPED)


def swept_conditions(settings: Settings) -> dict[str, Condition]:
    """The conditions whose learning rate is tried, by name."""
    return {
        name: one
        for name, one in core_conditions(settings).items()
        if name == one.plain and one.method in settings.swept
    }


def generators(settings: Settings) -> dict[str, r.GeneratorSettings]:
    """How generators are trained, by name. Each differs from the shipped one in what it is called;
    "abd" is that of Always Be Dreaming.
    """
    base = settings.generator
    dreaming = r.DreamingSettings()
    found = {SHIPPED: base, NO_BN: _weighing(base, bn=0.0)}
    for weight in settings.diversities:
        found[diversity(weight)] = _weighing(base, diversity=weight)
    return found | {
        TRUE: replace(base, variation="l1"),
        NEITHER: replace(_weighing(base, bn=0.0), variation="l1"),
        DREAMT: replace(base, weights=dreaming.weights, lr=dreaming.generator_lr),
    }


def _weighing(base: r.GeneratorSettings, **weights: float) -> r.GeneratorSettings:
    assert isinstance(base.weights, r.GeneratorWeights)
    return replace(base, weights=replace(base.weights, **weights))


def generators_of_every_seed(settings: Settings) -> list[str]:
    """Names of the generators that `core_conditions` need, the shipped one first, and of the most
    diverse one, which is looked at.
    """
    needed = [one.generator for one in core_conditions(settings).values() if one.generates]
    return list(dict.fromkeys([SHIPPED, *needed, diversity(settings.diversities[-1])]))
