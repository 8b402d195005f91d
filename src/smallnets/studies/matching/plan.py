"""Sizes of the experiments, at three scales, and what a reader asked for in their place."""

from dataclasses import dataclass, replace
from pathlib import Path

from smallnets import checks
from smallnets.data import Dataset, load
from smallnets.data.sets import RESIZED
from smallnets.distill.matching.objective import Matching
from smallnets.studies.matching.recipes import GRID, Recipe, recipe
from smallnets.training import TrainSettings, with_seeds


@dataclass(frozen=True)
class StudySettings:
    """Sizes of the chapter's experiments.

    Attributes:
        teacher, student, other: network names, see `smallnets.models.named`; `other` is a student
            of another family.
        train, test: images of each part; None is all. The teacher learns from the training part.
        transfer: how many of the training images students may look at; None is all.
        held_out: training images set aside for choosing settings.
        seeds: repetitions of the main comparison.
        side_seeds: repetitions of everything else.
        lengths: passes over the transfer images, from impatient to patient.
        side_length: passes of the side experiments.
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
    train: int | None
    test: int | None
    transfer: int | None
    held_out: int
    seeds: int
    side_seeds: int
    lengths: tuple[int, ...]
    side_length: int
    teaching: TrainSettings
    training: TrainSettings
    matching: Matching
    warmup: float = 0.1
    temperatures: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    decays: tuple[float, ...] = (0.0, 1e-4, 1e-3)
    rates: tuple[float, ...] = (3e-3, 1e-2, 2e-2)
    evaluation_side: float = 1.0
    published: str | None = None

    def __post_init__(self) -> None:
        for name in ("seeds", "side_seeds", "side_length"):
            checks.whole(name, getattr(self, name), 1)
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

PRESETS = {
    "smoke": StudySettings(
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
    "small": StudySettings(
        teacher="convnet-32",
        student="convnet-8",
        other="mobile-8",
        train=4000,
        test=1500,
        transfer=1000,
        held_out=400,
        seeds=3,
        side_seeds=3,
        lengths=(3, 10, 40),
        side_length=7,
        teaching=replace(_STUDENT, epochs=12),
        training=replace(_STUDENT, lr=1e-2),  # of 3e-3, 1e-2, 2e-2, on held-out images
        matching=Matching(resolution=16, area=(0.3, 1.0), crops=32),
    ),
    # Pets, "fast": other data sets take their own recipe in `prepare`.
    "paper": StudySettings(
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


def prepare(
    name: str,
    scale: str,
    *,
    seeds: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    train: int | None = None,
    transfer: int | None = None,
    resolution: int | None = None,
    epochs: int | None = None,
    flips: bool | None = None,
    patience: str = "fast",
    published: str | None = None,
) -> tuple[Dataset, StudySettings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Args:
        name: of the data set, for `smallnets.data.load`.
        scale: name of a preset.
        seeds: repetitions of every experiment.
        device, precision: of all trainings.
        train: training images, all of which the teacher gets.
        transfer: how many of them students get.
        resolution: at which networks see images, at most that of the data set.
        epochs: passes of the most patient student; shorter lengths keep their share of it.
        flips: whether mirrored images keep their label; None asks the data set.
        patience: "fast", "medium" or "long", which of the published recipes (scale "paper").
        published: npz file with a published BiT checkpoint of the teacher's shape.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
        FileNotFoundError: `published` is not there.
    """
    checks.one_of("scale", scale, PRESETS)
    preset, size = with_seeds(PRESETS[scale], seeds), None
    schedule = recipe(name, patience)
    if published is not None and not Path(published).is_file():
        raise FileNotFoundError(f"published must be an npz file; got {published!r}")
    if scale == "paper" and name in RESIZED:
        size = schedule.stored
    train = preset.train if train is None else train
    dataset = load(name, train=train, test=preset.test, size=size, flips=flips)
    if scale == "paper":
        preset = _published_schedule(preset, schedule, dataset)
    if epochs is not None:
        share = checks.whole("epochs", epochs, 1) / preset.lengths[-1]
        lengths = tuple(max(1, round(passes * share)) for passes in preset.lengths)
        side = max(1, round(preset.side_length * share))
        preset = replace(preset, lengths=lengths, side_length=side)

    images = len(dataset.y_train)
    held_out = min(preset.held_out, images // 5)
    if transfer is not None:
        checks.between("transfer", checks.whole("transfer", transfer, 1), 1, images - held_out)
    elif preset.transfer is None:
        transfer = images - held_out
    else:  # where there are few images, students still get fewer than the teacher
        transfer = min(preset.transfer, max(1, (images - held_out) // 3))
    smallest = max(preset.training.batch_size, preset.teaching.batch_size)
    checks.at_least("number of training images", images, smallest + held_out)
    checks.at_least("number of training images for students", transfer, preset.training.batch_size)
    largest = min(dataset.size)
    if resolution is not None:
        checks.between("resolution", checks.whole("resolution", resolution, 1), 1, largest)
    resolution = resolution or min(preset.matching.resolution or largest, largest)
    matching = replace(preset.matching, flip=dataset.flips, resolution=resolution)
    settings = replace(
        preset,
        train=images,
        test=len(dataset.y_test),
        transfer=transfer,
        held_out=held_out,
        matching=matching,
        evaluation_side=1.0 if size is None else resolution / size,
        teaching=replace(preset.teaching, device=device, precision=precision),
        training=replace(preset.training, device=device, precision=precision),
        published=published,
    )
    return dataset, settings


def _published_schedule(preset: StudySettings, schedule: Recipe, dataset: Dataset) -> StudySettings:
    """The preset with a data set's own published recipe, and two shorter lengths beside it."""
    images = len(dataset.y_train)
    held_out = int(schedule.held_out * images)
    longest = schedule.epochs
    return replace(
        preset,
        held_out=held_out,
        lengths=(max(1, longest // 10), max(1, longest * 3 // 10), longest),
        side_length=max(1, longest * 3 // 10),
        training=schedule.training(images - held_out),
        matching=replace(
            preset.matching, resolution=schedule.resolution, temperature=schedule.temperature
        ),
    )
