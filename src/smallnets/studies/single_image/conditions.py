"""The students of the study. Each question changes one thing of one student."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from smallnets import checks
from smallnets.distill.single_image import NO_VIEW, Imitation
from smallnets.studies.single_image.plan import Settings

SHOWN = ("patches", "real", "patchified", "labelled", "foreign")
TEACHERS = ("own", "heavily augmented", "short")
STUDENT, ARGMAX, NARROW, WIDE, LONG = "student", "argmax", "narrower", "wider", "longer"
FEW, MANY, ALL, CUT = "few images", "many images", "all images", "patchified"
PAGE, UNTRAINED = "page of print", "untrained"


@dataclass(frozen=True)
class Condition:
    """What a student is shown, what it is asked for, and how large it is.

    Attributes:
        source: name of a picture, see `source_image`; None shows no picture but real images.
        shown: "patches" of the picture; "real" training images, whole or "patchified"; "labelled"
            ones, with their labels instead of a teacher; or those of the "foreign" data set.
        images: real images; None is all.
        pool: patches that are shown again and again; None never shows one twice.
        jpeg: whether the pool passes through JPEG files, as the published one does.
        patches: changes of the settings' patches.
        imitation: what is asked for; None is the settings'.
        network: name of the student's architecture; None is the settings'.
        length: of the training, as a multiple of the settings'; 0 is no training.
        teacher: which of `TEACHERS` it is asked to imitate.

    Raises:
        ValueError: a name is unknown or a number out of range.
    """

    source: str | None = None
    shown: str = "patches"
    images: int | None = None
    pool: int | None = None
    jpeg: bool = False
    patches: Mapping[str, Any] = field(default_factory=dict)
    imitation: Imitation | None = None
    network: str | None = None
    length: float = 1.0
    teacher: str = "own"

    def __post_init__(self) -> None:
        checks.one_of("shown", self.shown, SHOWN)
        checks.one_of("teacher", self.teacher, TEACHERS)
        checks.at_least("length", self.length, 0)
        for name in ("images", "pool"):
            if getattr(self, name) is not None:
                checks.whole(name, getattr(self, name), 1)
        if (self.source is None) == (self.shown == "patches"):
            raise ValueError(
                f"patches are those of a source, and real images of none; got {self.shown!r} of "
                f"{self.source!r}"
            )


def core_conditions(settings: Settings, source: str) -> dict[str, Condition]:
    """The students of every seed by name: one a source, and one for each question about the
    chosen one.
    """
    students = {title(name): Condition(name) for name in with_source(settings, source)}
    ask = settings.imitation
    students |= {
        STUDENT: Condition(source),
        ARGMAX: Condition(source, imitation=replace(ask, loss="argmax")),
        NARROW: Condition(source, network=settings.narrow),
        WIDE: Condition(source, network=settings.wide),
        PAGE: Condition(settings.page),
    }
    students |= {pooled(count): Condition(source, pool=count) for count in settings.pools}
    for name, count in ((FEW, settings.few), (MANY, settings.many)):
        students[name] = Condition(shown="real", images=count)
        students[f"{name}, {CUT}"] = Condition(shown="patchified", images=count)
    students[ALL] = Condition(shown="real")
    if settings.thorough:
        students[LONG] = Condition(source, length=settings.length)
    return students


def further_conditions(settings: Settings, source: str) -> dict[str, Condition]:
    """Every other student of the paper's experiments, by name."""
    ask, classes_kept = settings.imitation, 3

    def asked(**changes: Any) -> Condition:
        return Condition(source, imitation=replace(ask, **changes))

    def cut(**changes: Any) -> Condition:
        return Condition(source, patches=changes)

    students = {
        UNTRAINED: Condition(source, length=0),
        "no rotation": cut(degrees=0.0),
        "no shear": cut(shear=0.0),
        "no colours changed": cut(jitter_probability=0.0),
        "no first square": cut(initial_crop=None),
        "large boxes only": cut(inverse_scale=(8.0, 1.0)),
        "upside down, too": cut(vertical_flip=True),
        "random interpolation": cut(interpolation="random"),
        "no light view": asked(view=NO_VIEW),
        "T² in the loss": asked(squared=True),
        "JPEG files": Condition(source, pool=max(settings.pools), jpeg=True),
    }
    students |= {f"mixing: {one}": asked(mixing=one) for one in settings.mixings}
    students |= {f"T = {t:g}": asked(temperature=t) for t in settings.temperatures}
    students |= {f"loss: {one}": asked(loss=one, k=classes_kept) for one in settings.losses}
    students |= {name: Condition(source, network=name) for name in settings.others}
    students |= {
        f"{teacher} teacher": Condition(source, teacher=teacher) for teacher in TEACHERS[1:]
    }
    for count in settings.counts:
        students[f"{count} images"] = Condition(shown="real", images=count)
        students[f"{count} images, {CUT}"] = Condition(shown="patchified", images=count)
    for count in sorted({settings.few, *settings.counts, settings.many}):
        students[f"{count} labelled images"] = Condition(shown="labelled", images=count)
    if settings.foreign is not None:
        students["another data set"] = Condition(shown="foreign")
    return students


def pooled(count: int) -> str:
    """Name of the student that is shown so many patches again and again."""
    return f"pool of {count}"


def with_source(settings: Settings, source: str) -> tuple[str, ...]:
    """The sources that are compared, and the chosen one among them."""
    return settings.sources if source in settings.sources else (source, *settings.sources)


def title(source: str) -> str:
    """A source's name in tables: of a file only the name, wherever it lies."""
    return source.replace("\\", "/").rpartition("/")[2].removeprefix("file:")
