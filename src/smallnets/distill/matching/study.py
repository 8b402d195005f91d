"""The paper's experiments at three sizes: one lesson and seed a call, to run side by side.

The situation is the paper's. A teacher has learnt from many images, its students may look at only a
few of them, and have time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.data import Dataset, load
from smallnets.data.photographs import photograph
from smallnets.data.sets import RESIZED
from smallnets.distill.matching.diagnostics import measures
from smallnets.distill.matching.objective import Matching, match, unlabelled
from smallnets.distill.matching.recipes import Recipe, recipe
from smallnets.models import StagedNetwork, load_published, named
from smallnets.training import TrainSettings, seeded, side_by_side

Measures = dict[str, dict[str, float]]
IMAGES = ("own", "photographs", "noise")
STARTS = ("random", "pretrained")


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
        temperatures, decays: candidates of the search.
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
    published: str | None = None


@dataclass(frozen=True)
class Lesson:
    """One student's training.

    Attributes:
        matching: what is asked.
        passes: over the transfer images.
        network: of the student; None is the settings'.
        optimizer: "adam" or "shampoo".
        weight_decay: None is the settings'.
        teachers: how many are matched at once.
        start: "random" weights, or those of a training on labels with the images that the lesson
            lacks ("pretrained").
        images: matched on: the data set's "own", or crops of "photographs", or "noise".

    Raises:
        ValueError: a field is out of range.
    """

    matching: Matching
    passes: int
    network: str | None = None
    optimizer: str = "adam"
    weight_decay: float | None = None
    teachers: int = 1
    start: str = "random"
    images: str = "own"

    def __post_init__(self) -> None:
        checks.whole("passes", self.passes, 1)
        checks.whole("teachers", self.teachers, 1)
        checks.one_of("start", self.start, STARTS)
        checks.one_of("images", self.images, IMAGES)


_STUDENT = TrainSettings(
    epochs=1, batch_size=64, lr=3e-3, weight_decay=1e-4, optimizer="adam", clip=1.0,
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
    ),
    "small": StudySettings(
        teacher="convnet-32",
        student="convnet-8",
        other="mobile-8",
        train=4000,
        test=2000,
        transfer=1000,
        held_out=400,
        seeds=3,
        side_seeds=3,
        lengths=(3, 12, 42),
        side_length=12,
        teaching=replace(_STUDENT, epochs=15),
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
            epochs=100, batch_size=128, lr=1e-3, weight_decay=1e-4, optimizer="adam", clip=1.0,
            warmup_epochs=5, across_epochs=True,
        ),
        training=recipe("pets").training(3312),
        matching=Matching(resolution=128, temperature=5.0, flip=True),
        decays=(1e-5, 1e-4, 1e-3),
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
    preset, size = PRESETS[scale], None
    schedule = recipe(name, patience)
    if published is not None and not Path(published).is_file():
        raise FileNotFoundError(f"published must be an npz file; got {published!r}")
    if scale == "paper" and name in RESIZED:
        size = schedule.stored
    if seeds is not None:
        checks.whole("seeds", seeds, 1)
        preset = replace(preset, seeds=seeds, side_seeds=min(seeds, preset.side_seeds))
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


def regimes(settings: StudySettings) -> dict[str, Matching]:
    """The main comparison: function matching, consistency without mixing, the ways to be
    inconsistent, and labels.
    """
    names = {
        "function matching": "mix",
        "same crop": "same/ic",
        "fixed teacher": "fix/cc",
        "independent noise": "ind/rc",
        "independent crops": "ind/ic",
    }
    asked = {name: replace(settings.matching, view=view) for name, view in names.items()}
    return asked | {"labels": replace(settings.matching, view="same/ic", labels=1.0)}


def patience(settings: StudySettings) -> dict[str, Lesson]:
    """Every regime at every length, named "same crop, 25"."""
    return {
        f"{name}, {passes}": Lesson(matching, passes)
        for name, matching in regimes(settings).items()
        for passes in settings.lengths
    }


def variants(settings: StudySettings) -> dict[str, Lesson]:
    """One thing changed at a time, from function matching: what the paper makes claims about."""
    ask, passes = settings.matching, settings.side_length
    plain = Lesson(ask, passes)
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


def details(settings: StudySettings) -> dict[str, Lesson]:
    """The other choices: views, mixing, distances, labels, and a student of another family."""
    ask, plain = settings.matching, Lesson(settings.matching, settings.side_length)
    asked = {
        # what the two see
        "same crop": replace(ask, view="same/ic"),
        "same mild crop": replace(ask, view="same/rc"),
        "mixed, teacher central": replace(ask, view="mix/cc"),
        "whole images, fixed": replace(ask, view="fix/rs"),
        "mean of crops, fixed": replace(ask, view="fix/ic_ens"),
        # how they are mixed
        "share an image": replace(ask, per_image=True),
        "little mixing": replace(ask, alpha=0.1),
        # what is matched
        "hard answers": replace(ask, distance="hard"),
        "logits (L2)": replace(ask, distance="l2"),
        "labels and soft targets": replace(ask, view="same/ic", labels=0.1, temperature=4.0),
        "labels, mixed": replace(ask, labels=1.0),
        "labels, mild crop": replace(ask, view="same/rc", labels=1.0),
    }
    lessons = {"function matching": plain}
    lessons |= {name: replace(plain, matching=matching) for name, matching in asked.items()}
    return lessons | {"mobile student": replace(plain, network=settings.other)}


def starts(settings: StudySettings) -> dict[str, Lesson]:
    """A random start against a trained one, short and long, and the latter with labels."""
    short, long = settings.lengths[0], settings.side_length
    labels = replace(settings.matching, view="same/rc", labels=1.0)
    return {
        f"{start}, {passes}": Lesson(settings.matching, passes, start=start)
        for start in STARTS
        for passes in (short, long)
    } | {f"fine-tuned on labels, {long}": Lesson(labels, long, start="pretrained")}


def resolutions(settings: StudySettings, largest: int) -> dict[str, Lesson]:
    """Teachers that see more pixels than their student."""
    ask = settings.matching
    lessons = {"both at one resolution": Lesson(ask, settings.side_length)}
    if largest > (ask.resolution or largest):
        finer = replace(ask, teacher_resolution=largest)
        lessons["teacher sees more"] = Lesson(finer, settings.side_length)
    return lessons


def search(settings: StudySettings) -> dict[str, Lesson]:
    """The study of temperature and weight decay, named "T 5" and "wd 0.001"."""
    plain = Lesson(settings.matching, settings.side_length)
    lessons = {
        f"T {value:g}": replace(plain, matching=replace(settings.matching, temperature=value))
        for value in settings.temperatures
    }
    return lessons | {f"wd {v:g}": replace(plain, weight_decay=v) for v in settings.decays}


def learn(
    lessons: Mapping[str, Lesson],
    dataset: Dataset,
    settings: StudySettings,
    seeds: int,
    keep: Path | None = None,
    description: str = "students",
) -> list[Measures]:
    """Teach every lesson with every seed, side by side.

    Returns:
        One dictionary a seed: the measures of the "teacher" and of every lesson's student.
    """
    common = {"dataset": dataset, "settings": settings, "keep": keep}
    ordered = sorted(lessons, key=lambda name: -lessons[name].passes)
    order = [(name, seed) for name in ordered for seed in range(seeds)]
    jobs = [{**common, "lesson": lessons[name], "seed": seed} for name, seed in order]
    finished = side_by_side(taught, jobs, description=description)
    by_job = dict(zip(order, finished, strict=True))
    return [
        {"teacher": by_job[ordered[0], seed]["teacher"]}
        | {name: by_job[name, seed]["student"] for name in lessons}
        for seed in range(seeds)
    ]


def by_length(
    results: Sequence[Measures], measure: str, settings: StudySettings
) -> dict[str, list[list[float]]]:
    """One measure of the lessons of `patience`: regime -> one list a seed, one value a length."""
    return {
        name: [
            [seed[f"{name}, {passes}"][measure] for passes in settings.lengths] for seed in results
        ]
        for name in regimes(settings)
    }


def taught(
    dataset: Dataset, lesson: Lesson, settings: StudySettings, seed: int, keep: Path | None = None
) -> Measures:
    """Measures of one lesson's "student" with one seed, and of its "teacher"."""
    teacher, student = teach(dataset, lesson, settings, seed, keep)
    at = settings.matching.seen_at(dataset.x_train)[0]
    finer = lesson.matching.seen_at(dataset.x_train)
    return measures(
        {"teacher": teacher, "student": student},
        transfer_set(dataset, settings),
        {"teacher": max(at, finer[1]), "student": finer[0]},
    )


def teach(
    dataset: Dataset, lesson: Lesson, settings: StudySettings, seed: int, keep: Path | None = None
) -> tuple[StagedNetwork, StagedNetwork]:
    """The teacher and the taught student of one lesson and seed.

    Args:
        dataset: all that the teacher knows; the student gets a part of it.
        lesson: what is done.
        settings: networks and trainings.
        seed: of teacher, student and training; students of one seed start alike.
        keep: folder for finished trainings.
    """
    ask = lesson.matching
    resolution = ask.seen_at(dataset.x_train)[1]
    teachers = [
        train_teacher(dataset, settings, seed + i, keep, resolution) for i in range(lesson.teachers)
    ]
    network = lesson.network or settings.student
    student = new_network(network, dataset, seed)
    if lesson.start == "pretrained":
        student = pretrained(dataset, settings, network, seed, keep)
    own = transfer_set(dataset, settings)
    if lesson.images != "own":
        own = unlabelled(own, other_images(lesson.images, dataset, len(own.x_train), seed))
    training = replace(
        settings.training,
        epochs=lesson.passes,
        warmup_epochs=_warmup(settings, lesson.passes),
        optimizer=lesson.optimizer,
        batch_size=min(settings.training.batch_size, len(own.x_train)),
    )
    if lesson.weight_decay is not None:
        training = replace(training, weight_decay=lesson.weight_decay)
    match(student, teachers, own, ask, training, seed=seed, keep=keep, label="student")
    return teachers[0], student


def _warmup(settings: StudySettings, passes: int) -> float:
    """Epochs of warm-up: the recipe's where it has some, else a share of the training."""
    fixed = settings.training.warmup_epochs
    return min(fixed, passes / 2) if fixed else settings.warmup * passes


def train_teacher(
    dataset: Dataset,
    settings: StudySettings,
    seed: int,
    keep: Path | None = None,
    resolution: int | None = None,
) -> StagedNetwork:
    """The teacher of a seed, trained on the labels of all training images, or read from the
    settings' published checkpoint.

    Args:
        dataset, settings: what it learns and how.
        seed: of its start and training.
        keep: folder for finished trainings.
        resolution: at which it sees images; None is the students'.
    """
    teacher = new_network(settings.teacher, dataset, 1000 + seed)
    if settings.published is not None:
        with np.load(settings.published, allow_pickle=False) as arrays:
            load_published(teacher, dict(arrays))
        return teacher.eval()
    view = replace(settings.matching, view="same/rc", labels=1.0)
    view = replace(view, resolution=resolution or view.resolution, teacher_resolution=None)
    steps = settings.teaching
    training = replace(steps, warmup_epochs=steps.warmup_epochs or settings.warmup * steps.epochs)
    match(teacher, (), dataset, view, training, seed=1000 + seed, keep=keep, label="teacher")
    return teacher


def pretrained(
    dataset: Dataset, settings: StudySettings, network: str, seed: int, keep: Path | None = None
) -> StagedNetwork:
    """A student that has learnt labels of the images that students do not get."""
    student = new_network(network, dataset, seed)
    size = len(transfer_set(dataset, settings).y_train)
    rest = replace(
        dataset,
        x_train=dataset.x_train[size:],
        y_train=dataset.y_train[size:],
        moments=(dataset.mean, dataset.std),
    )
    if len(rest.y_train) < settings.training.batch_size:
        rest = dataset  # nothing is left out, as in the published recipes
    view = replace(settings.matching, view="same/rc", labels=1.0)
    training = replace(
        settings.training,
        epochs=settings.side_length,
        warmup_epochs=_warmup(settings, settings.side_length),
    )
    match(student, (), rest, view, training, seed=seed, keep=keep, label="pretrained")
    return student


def new_network(name: str, dataset: Dataset, seed: int) -> StagedNetwork:
    """An untrained network for the dataset's images and classes."""
    with seeded(seed):
        return named(name, dataset.num_classes, dataset.channels)


def transfer_set(dataset: Dataset, settings: StudySettings) -> Dataset:
    """What students may look at: the first of the training images, on the teacher's scale."""
    count = min(settings.transfer or len(dataset.y_train), len(dataset.y_train))
    part = dataset.take(train=count)
    return replace(part, moments=(dataset.mean, dataset.std))


def other_images(kind: str, dataset: Dataset, count: int, seed: int) -> Tensor:
    """Images that have nothing to do with a dataset: uint8 (count, channels, height, width).

    Args:
        kind: "photographs" cuts windows out of three photographs, "noise" draws every pixel with
            the mean and deviation of the dataset's channel.
        dataset: for size and channels.
        count: how many.
        seed: of the random numbers.
    """
    checks.one_of("images", kind, IMAGES[1:])
    generator = torch.Generator().manual_seed(seed)
    height, width = dataset.size
    shape = (count, dataset.channels, height, width)
    if kind == "noise":
        mean, std = (x.view(-1, 1, 1) * 255 for x in (dataset.mean, dataset.std))
        noise = mean + std * torch.randn(shape, generator=generator)
        return noise.round().clamp(0, 255).to(torch.uint8)
    images = torch.empty(shape, dtype=torch.uint8)
    sources = [photograph(name) for name in ("china", "flower", "chelsea")]
    drawn = torch.rand(count, 3, generator=generator)
    for place, (which, down, right) in enumerate(drawn.tolist()):
        source = sources[int(which * len(sources))]
        tall, wide = source.shape[1:]
        side = min(tall, wide, 4 * max(height, width))
        top, left = int(down * (tall - side)), int(right * (wide - side))
        window = source[None, :, top : top + side, left : left + side].float()
        small = F.interpolate(window, (height, width), mode="area")[0]
        if dataset.channels == 1:
            small = small.mean(dim=0, keepdim=True)
        images[place] = small.round().to(torch.uint8)
    return images


def chosen(results: Sequence[Measures], kind: str) -> float:
    """The temperature ("T") or weight decay ("wd") whose students were right most often."""
    names = [name for name in results[0] if name.startswith(f"{kind} ")]
    checks.one_of("kind", kind, {name.split()[0] for name in results[0] if " " in name})
    means = {name: sum(seed[name]["accuracy"] for seed in results) for name in names}
    return float(max(means, key=lambda name: means[name]).split()[1])
