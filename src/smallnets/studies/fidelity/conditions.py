"""The students of the study. Each experiment of the paper changes one thing of one student."""

from dataclasses import dataclass, field, replace

from smallnets import checks
from smallnets.distill.fidelity.objective import Objective
from smallnets.studies.fidelity.plan import Settings

STARTS = ("random", "own teacher", "another teacher", "teacher's first weights")
SHOWN = ("own", "fresh", "both")
STUDENT, STRANGER, FEW, BOTH = "student", "stranger", "few images", "own and fresh images"
LONG, ADAM, FRESH, FIRST = "long", "Adam", "fresh images", "teacher's first weights"
FULL = "full rate"


@dataclass(frozen=True)
class Condition:
    """What a student is taught by, where it starts, what it is shown, and how it is trained.

    Attributes:
        teacher: the first of the seed's teachers that teach it; 0 is its own, 1 is another.
        objective: how many teachers, at which temperature, with which loss and share of labels.
        network: name of its architecture; None is the teacher's.
        start: what lies at lam = 1, among `STARTS`.
        lam: where it starts, between random weights (0) and those (1).
        rate: factor of the learning rate.
        length: of the training, as a multiple of the settings' epochs.
        optimizer: "sgd", or "adam" at the settings' rate for it.
        shown: the teacher's own half of the images, the other half ("fresh"), or both; always for
            the same number of steps.
        amount: share of these images.
        view: name of a data policy, see `policies`.

    Raises:
        ValueError: a name is unknown or a number out of range.
    """

    teacher: int = 0
    objective: Objective = field(default_factory=Objective)
    network: str | None = None
    start: str = "random"
    lam: float = 0.0
    rate: float = 1.0
    length: float = 1.0
    optimizer: str = "sgd"
    shown: str = "own"
    amount: float = 1.0
    view: str = "baseline"

    def __post_init__(self) -> None:
        checks.one_of("start", self.start, STARTS)
        checks.one_of("shown", self.shown, SHOWN)
        checks.one_of("optimizer", self.optimizer, ("sgd", "adam"))
        for name in ("lam", "amount", "rate"):
            checks.between(name, getattr(self, name), 0, 1)
        checks.above("length", self.length, 0)


def near(lam: float, start: str = "own teacher") -> Condition:
    """A start near a teacher. As in the published code, the learning rate is multiplied by 1 - lam,
    of which the paper does not speak.
    """
    return Condition(start=start, lam=lam, rate=1 - lam)


def core_conditions(settings: Settings) -> dict[str, Condition]:
    """The students of every seed by name: the plain one, and one for each question."""
    lam = f"λ = {settings.lam:g}"
    students = {
        STUDENT: Condition(),
        STRANGER: Condition(teacher=1),
        FEW: Condition(amount=settings.few, view="none"),
        lam: near(settings.lam),
        f"{lam}, another teacher": near(settings.lam, "another teacher"),
        f"random, rate of {lam}": Condition(rate=1 - settings.lam),
    }
    if settings.thorough:
        students |= {
            LONG: Condition(length=settings.length),
            BOTH: Condition(shown="both", length=settings.length),
            f"α = {settings.alpha:g}": Condition(objective=Objective(alpha=settings.alpha)),
        }
    return with_temperature(students, settings.temperature)


def further_conditions(settings: Settings) -> dict[str, Condition]:
    """Every other student of the paper's experiments, by name."""
    students = {f"λ = {lam:g}": near(lam) for lam in settings.lams}
    students |= {
        f"λ = {lam:g}, another teacher": near(lam, "another teacher") for lam in settings.lams
    }
    students |= {
        f"λ = {settings.lam:g}, {FULL}": Condition(start="own teacher", lam=settings.lam),
        FIRST: Condition(start=FIRST, lam=1.0),
        ADAM: Condition(optimizer="adam"),
        FRESH: Condition(shown="fresh"),
    }
    students |= {f"{length:g} x as long": Condition(length=length) for length in settings.lengths}
    students |= {f"α = {a:g}": Condition(objective=Objective(alpha=a)) for a in settings.alphas}
    students |= {loss: Condition(objective=Objective(loss=loss)) for loss in settings.losses}
    students |= {network: Condition(network=network) for network in settings.others}
    students |= {f"m = {m}": Condition(objective=Objective(members=m)) for m in settings.members}
    students |= {name: Condition(view=name) for name in views_of(settings)}
    hot = {
        f"τ = {tau:g}": Condition(objective=Objective(temperature=tau))
        for tau in settings.temperatures
    }
    return with_temperature(students, settings.temperature) | hot


def views_of(settings: Settings) -> list[str]:
    """The data policies to be compared; "baseline" is the plain student's."""
    known = ["none", "rotation", "vertical flip", "colour jitter", "CombAug", "MixUp", "noise"]
    known += ["generated"] + ["out of domain"] * (settings.foreign is not None)
    return [one for one in known if settings.views is None or one in settings.views]


def with_temperature(students: dict[str, Condition], temperature: float) -> dict[str, Condition]:
    """The same students at the settings' temperature."""
    return {
        name: replace(one, objective=replace(one.objective, temperature=temperature))
        for name, one in students.items()
    }


def kinds(settings: Settings) -> dict[str, str]:
    """What each student changes, by name: "start", "labels or loss", "images", "length or
    optimiser", or "teacher or size". The plain one is left out, and so are the stranger, which
    has another teacher, and the student of few images, which is bad at everything.
    """
    students = core_conditions(settings) | further_conditions(settings)
    return {
        name: _kind(one) for name, one in students.items() if name not in (STUDENT, STRANGER, FEW)
    }


def _kind(one: Condition) -> str:
    if one.start != "random" or one.rate < 1:
        return "start"
    if one.objective.alpha or one.objective.loss != "soft":
        return "labels or loss"
    if one.shown != "own" or one.view != "baseline":
        return "images"
    if one.length != 1 or one.optimizer != "sgd":
        return "length or optimiser"
    return "teacher or size"
