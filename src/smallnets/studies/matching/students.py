"""What is compared: every student of the chapter's experiments, by name."""

from dataclasses import dataclass, replace

from smallnets import checks, measure
from smallnets.data import Dataset
from smallnets.distill.matching.objective import Matching
from smallnets.studies.matching.plan import Settings
from smallnets.studies.networks import build_network
from smallnets.training import OPTIMIZERS

IMAGES = ("own", "photographs", "noise")
STARTS = ("random", "pretrained")


@dataclass(frozen=True)
class StudentConfig:
    """One student's training.

    Attributes:
        matching: what is asked.
        passes: over the transfer images.
        network: of the student; None is the settings'.
        optimizer: of `smallnets.training`.
        lr, weight_decay: None is the settings'.
        teachers: how many are matched at once.
        start: "random" weights, or those of a training on labels with the images that the student
            lacks ("pretrained").
        images: matched on: the data set's "own", or crops of "photographs", or "noise".

    Raises:
        ValueError: a field is out of range.
    """

    matching: Matching
    passes: int
    network: str | None = None
    optimizer: str = "adamw"
    lr: float | None = None
    weight_decay: float | None = None
    teachers: int = 1
    start: str = "random"
    images: str = "own"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("passes", self.passes, 1)
        checks.whole("teachers", self.teachers, 1)
        checks.one_of("optimizer", self.optimizer, OPTIMIZERS)
        if self.lr is not None:
            checks.above("lr", self.lr, 0)
        if self.weight_decay is not None:
            checks.at_least("weight_decay", self.weight_decay, 0)
        checks.one_of("start", self.start, STARTS)
        checks.one_of("images", self.images, IMAGES)


def regimes(settings: Settings) -> dict[str, Matching]:
    """The main comparison: function matching; the same views, independent ones and a fixed teacher,
    each with heavy and with mild crops; and labels with mild ones.
    """
    names = {
        "function matching": "mix",
        "same heavy crop": "same/ic",
        "independent heavy crops": "ind/ic",
        "fixed teacher, heavy crops": "fix/ic_ens",
        "same mild crop": "same/rc",
        "independent mild crops": "ind/rc",
        "fixed teacher": "fix/cc",
    }
    asked = {name: replace(settings.matching, view=view) for name, view in names.items()}
    return asked | {"labels": replace(settings.matching, view="same/rc", labels=1.0)}


def patience(settings: Settings) -> dict[str, StudentConfig]:
    """Every regime at every length, named "same mild crop, 25"."""
    return {
        f"{name}, {passes}": StudentConfig(matching, passes)
        for name, matching in regimes(settings).items()
        for passes in settings.lengths
    }


def costs(settings: Settings, dataset: Dataset) -> dict[str, list[int]]:
    """Multiply-accumulates a transfer image of every regime, one number a length.

    A step is three forward passes of the student (forward and backward) and, where the teacher is
    asked in every step, one of the teacher's. A fixed teacher is asked once in all, or once for
    each of the crops of which it says the mean.
    """
    side = settings.matching.resolution or max(dataset.size)
    student, teacher = (
        measure.macs(build_network(name, dataset, 0), (dataset.channels, side, side))
        for name in (settings.student, settings.teacher)
    )

    def asked(matching: Matching, passes: int) -> int:
        if matching.labels == 1:
            return 0
        if matching.teaching.relation != "fixed":
            return passes
        return matching.crops if matching.teaching.teacher == "ic_ens" else 1

    return {
        name: [3 * student * n + teacher * asked(matching, n) for n in settings.lengths]
        for name, matching in regimes(settings).items()
    }


def variants(settings: Settings) -> dict[str, StudentConfig]:
    """One thing changed at a time, from function matching: what the paper makes claims about."""
    ask, passes = settings.matching, settings.side_length
    plain = StudentConfig(ask, passes)
    half = max(1, passes // 2)
    return {
        "function matching": plain,
        "answers mixed": replace(plain, matching=replace(ask, mix_outputs=True)),
        "two teachers": replace(plain, teachers=2),
        "photographs": replace(plain, images="photographs"),
        "noise": replace(plain, images="noise"),
        "Adam, half as long": replace(plain, passes=half),
        "Shampoo, half as long": replace(plain, passes=half, optimizer="shampoo"),
    }


def details(settings: Settings) -> dict[str, StudentConfig]:
    """The other choices: views, mixing, distances, labels, and a student of another family."""
    ask, plain = settings.matching, StudentConfig(settings.matching, settings.side_length)
    asked = {
        # what the two see
        "mixed, teacher central": replace(ask, view="mix/cc"),
        "whole images, fixed": replace(ask, view="fix/rs"),
        # how they are mixed
        "share an image": replace(ask, per_image=True),
        "little mixing": replace(ask, alpha=0.1),
        # what is matched
        "hard answers": replace(ask, distance="hard"),
        "logits (L2)": replace(ask, distance="l2"),
        "labels and soft targets": replace(ask, view="same/ic", labels=0.1, temperature=4.0),
        "labels, mixed": replace(ask, labels=1.0),
        "labels, heavy crop": replace(ask, view="same/ic", labels=1.0),
    }
    configs = {"function matching": plain}
    configs |= {name: replace(plain, matching=matching) for name, matching in asked.items()}
    return configs | {"mobile student": replace(plain, network=settings.other)}


def starts(settings: Settings) -> dict[str, StudentConfig]:
    """A random start against a trained one, short and long, and the latter with labels."""
    short, long = settings.lengths[0], settings.side_length
    labels = replace(settings.matching, view="same/rc", labels=1.0)
    return {
        f"{start}, {passes}": StudentConfig(settings.matching, passes, start=start)
        for start in STARTS
        for passes in (short, long)
    } | {f"fine-tuned on labels, {long}": StudentConfig(labels, long, start="pretrained")}


def resolutions(settings: Settings, largest: int) -> dict[str, StudentConfig]:
    """Teachers that see more pixels than their student, and both at the student's; none where the
    images have no more.
    """
    ask, passes = settings.matching, settings.side_length
    if largest <= (ask.resolution or largest):
        return {}
    finer = replace(ask, teacher_resolution=largest)
    return {
        "both at one resolution": StudentConfig(ask, passes),
        "teacher sees more": StudentConfig(finer, passes),
    }


def search(settings: Settings) -> dict[str, StudentConfig]:
    """The search for temperature, rate, weight decay and length, named "T 5", "lr 0.01",
    "wd 0.001", "passes 20".
    """
    plain = StudentConfig(settings.matching, settings.side_length)
    configs = {
        f"T {value:g}": replace(plain, matching=replace(settings.matching, temperature=value))
        for value in settings.temperatures
    }
    configs |= {f"lr {value:g}": replace(plain, lr=value) for value in settings.rates}
    configs |= {f"wd {v:g}": replace(plain, weight_decay=v) for v in settings.decays}
    lengths = (max(1, settings.side_length // 2), 2 * settings.side_length)
    return configs | {f"passes {n}": replace(plain, passes=n) for n in lengths}
