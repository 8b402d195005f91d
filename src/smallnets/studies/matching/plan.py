"""Sizes of the experiments, at four scales, and what a reader asked for in their place."""

from dataclasses import dataclass, replace
from pathlib import Path

from smallnets import checks
from smallnets.data import Dataset
from smallnets.data.sets import RESIZED
from smallnets.distill.matching.objective import Matching
from smallnets.studies.matching.recipes import GRID, Recipe, recipe
from smallnets.studies.study import Options as StudyOptions
from smallnets.studies.study import StudySettings, enough_images, open_study
from smallnets.training import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """Sizes of the chapter's experiments.

    Attributes:
        teacher, student, other: network names, see `build_network`; `other` is a student
            of another family.
        transfer: how many of the training images students may look at, while the teacher learns
            from all; None is all.
        held_out: training images set aside for choosing settings.
        side_seeds: repetitions of the side experiments.
        lengths: passes over the transfer images, from impatient to patient.
        side_length: passes of the side experiments.
        sides: whether there are side experiments: the search, variants, starts and details.
        teaching: training of teachers, on labels.
        training: of students; its epochs are replaced by a length.
        warmup: share of a training in which the learning rate rises.
        matching: what all students are asked alike, such as the resolution and size of crops.
        temperatures, decays, rates: candidates of the search.
        evaluation_side: of the middle on which networks are judged, as a share of the image.
        published: file with the arrays of a published checkpoint for the teacher.
    """

    teacher: str
    student: str
    other: str
    transfer: int | None
    held_out: int
    side_seeds: int
    lengths: tuple[int, ...]
    side_length: int
    teaching: TrainSettings
    training: TrainSettings
    matching: Matching
    sides: bool = True
    warmup: float = 0.1
    temperatures: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    decays: tuple[float, ...] = (0.0, 1e-4, 1e-3)
    rates: tuple[float, ...] = (3e-3, 1e-2, 2e-2)
    evaluation_side: float = 1.0
    published: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("side_length", self.side_length, 1)
        checks.each("lengths", self.lengths, checks.whole, 1)
        for name in ("temperatures", "rates"):
            checks.each(name, getattr(self, name), checks.above, 0)
        checks.each("decays", self.decays, checks.at_least, 0)
        checks.between("warmup", self.warmup, 0, 1)
        checks.between("evaluation_side", self.evaluation_side, 1e-6, 1)


_STUDENT = TrainSettings(
    epochs=1, batch_size=64, lr=3e-3, weight_decay=1e-4, optimizer="adamw", clip=1.0,
    across_epochs=True,
)  # fmt: skip

# A hundred images, and time. With `digits` teachers are right on 98 test images of 100.
_HERE = Settings(
    teacher="convnet-16",
    student="convnet-8",
    other="mobile-8",
    train=4000,
    test=1500,
    transfer=100,
    held_out=200,
    seeds=1,
    side_seeds=1,
    lengths=(10, 40, 160, 640),
    side_length=160,
    sides=False,
    teaching=replace(_STUDENT, epochs=20, lr=1e-2),
    training=replace(_STUDENT, batch_size=50, lr=1e-2),
    matching=Matching(resolution=32, area=(0.3, 1.0), crops=32),
)

PRESETS = {
    "smoke": Settings(
        teacher="convnet-8",
        student="convnet-4",
        other="mobile-4",
        train=192,
        test=100,
        transfer=64,
        held_out=32,
        seeds=2,
        side_seeds=1,
        lengths=(1, 2),
        side_length=1,
        teaching=replace(_STUDENT, epochs=2, batch_size=32),
        training=replace(_STUDENT, batch_size=32),
        matching=Matching(resolution=16, area=(0.3, 1.0), crops=2),
        temperatures=(1.0, 5.0),
        decays=(1e-3,),
        rates=(1e-2,),
    ),
    "small": _HERE,
    "evidence": replace(
        _HERE,
        seeds=8,
        side_seeds=8,
        lengths=(10, 40, 160, 640, 2560),
        side_length=640,
        sides=True,
    ),
    # Pets, "fast": other data sets take their own recipe in `prepare`.
    "paper": Settings(
        teacher="bit-152-2",
        student="bit-50-1",
        other="mobilenet-3",
        train=None,
        test=None,
        transfer=None,
        held_out=0,
        seeds=3,
        side_seeds=1,
        lengths=(100, 300, 1000),
        side_length=300,
        teaching=TrainSettings(
            epochs=100, batch_size=128, lr=1e-3, weight_decay=1e-4, optimizer="adamw", clip=1.0,
            warmup_epochs=5, across_epochs=True,
        ),
        training=recipe("pets").training(3312),
        matching=Matching(resolution=128, temperature=5.0, flip=True),
        decays=GRID["weight_decay"],
        rates=GRID["lr"],
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """What a reader may ask for: also what students may look at, and how.

    Attributes:
        epochs: passes of the most patient student; shorter lengths keep their share of it.
        transfer: how many of the training images students get; the teacher gets all.
        resolution: at which networks see images, at most that of the data set.
        patience: "fast", "medium" or "long", which of the published recipes (scale "paper").
        published: npz file with a published BiT checkpoint of the teacher's shape.
    """

    transfer: int | None = None
    resolution: int | None = None
    patience: str = "fast"
    published: str | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
        FileNotFoundError: `options.published` is not there.
    """
    schedule = recipe(name, options.patience)
    if options.published is not None and not Path(options.published).is_file():
        raise FileNotFoundError(f"published must be an npz file; got {options.published!r}")
    size = schedule.stored if scale == "paper" and name in RESIZED else None
    dataset, settings = open_study(name, scale, PRESETS, options, size=size)
    if scale == "paper":
        settings = _published_schedule(settings, schedule, dataset)
    if options.epochs is not None:
        share = checks.whole("epochs", options.epochs, 1) / settings.lengths[-1]
        settings = replace(
            settings,
            lengths=tuple(max(1, round(passes * share)) for passes in settings.lengths),
            side_length=max(1, round(settings.side_length * share)),
        )
    batch_size = settings.training.batch_size
    enough_images(dataset, max(batch_size, settings.teaching.batch_size) + settings.held_out)
    transfer = _transfer(settings, len(dataset.y_train) - settings.held_out, options.transfer)
    checks.at_least("number of training images for students", transfer, batch_size)
    largest = min(dataset.size)
    resolution = options.resolution
    if resolution is not None:
        checks.between("resolution", checks.whole("resolution", resolution, 1), 1, largest)
    resolution = resolution or min(settings.matching.resolution or largest, largest)
    return dataset, replace(
        settings,
        transfer=transfer,
        matching=replace(settings.matching, flip=dataset.flips, resolution=resolution),
        evaluation_side=1.0 if size is None else resolution / size,
        published=options.published,
    )


def _transfer(settings: Settings, images: int, wanted: int | None) -> int:
    if wanted is not None:
        return int(checks.between("transfer", checks.whole("transfer", wanted, 1), 1, images))
    if settings.transfer is None:
        return images
    # where there are few images, students still get fewer than the teacher
    return min(settings.transfer, max(1, images // 3))


def _published_schedule(preset: Settings, schedule: Recipe, dataset: Dataset) -> Settings:
    """The preset with a data set's own published recipe, and two shorter lengths beside it."""
    images = len(dataset.y_train)
    held_out = int(schedule.held_out * images)
    longest = schedule.epochs
    return replace(
        preset,
        held_out=held_out,
        lengths=(max(1, longest // 10), max(1, longest * 3 // 10), longest),
        side_length=max(1, longest * 3 // 10),
        training=schedule.training(
            images - held_out, device=preset.training.device, precision=preset.training.precision
        ),
        matching=replace(
            preset.matching, resolution=schedule.resolution, temperature=schedule.temperature
        ),
    )
