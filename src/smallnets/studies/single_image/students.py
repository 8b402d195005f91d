"""Teachers, and students as a `Condition` says."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from smallnets.batches import Batches
from smallnets.data import Augmentation, Dataset, load
from smallnets.data.resolution import at_resolution
from smallnets.distill.single_image import (
    Imitation,
    Normalise,
    PatchGenerator,
    PatchSettings,
    SingleImageDistillation,
    fresh_batches,
    patchified,
    pool_batches,
    pool_of,
    real_images,
    source_image,
)
from smallnets.studies.networks import build_network
from smallnets.studies.questions import Questioned, Questions
from smallnets.studies.seeds import teacher_seed
from smallnets.studies.single_image.conditions import Condition
from smallnets.studies.single_image.learning import Learning
from smallnets.studies.single_image.plan import Settings
from smallnets.training import TrainSettings, fit, run_parallel, teaching
from smallnets.training.checkpoint import History

TEACHER, TWIN, HEAVY, SHORT, CLIPS, SPEECH = range(6)  # whose seed it is
HELD_OUT = 999  # seed of patches that no student is shown
ASKED = 16  # real images about which a student is asked in a step
REAL = 512  # real images about which a student is asked while it is trained, at most
LARGEST = 512  # pixels, longer side of a source: larger photographs would only take memory


class Trained(NamedTuple):
    """A network and the log of its training."""

    network: nn.Module
    history: History


def train_teacher(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    kind: int = TEACHER,
    cache_dir: Path | None = None,
) -> Trained:
    """A network that learned the labels of the real images, or the kept one.

    Args:
        dataset: real images.
        settings: of the study.
        seed: of the repetition.
        kind: TEACHER; TWIN, the same with another start; HEAVY, with images cut, blanked and
            smoothed labels; SHORT, trained for a tenth of the time.
        cache_dir: folder for finished trainings.
    """
    training = settings.teaching
    if kind == HEAVY:
        side = min(dataset.size)
        view = Augmentation(crop=side // 4, flip=dataset.flips, cutout=side // 2)
        training = replace(training, augmentation=view)
    if kind == SHORT:
        training = training.with_epochs(max(1, training.epochs // 10))
    network = build_network(settings.network, dataset, teacher_seed(seed, kind))
    history = fit(
        network, dataset, training, seed=teacher_seed(seed, kind),
        objective=Learning(0.1 if kind == HEAVY else 0.0),
        cache_dir=cache_dir, label="teacher",
    )  # fmt: skip
    return Trained(network, history)


def patches_of(
    source: str, settings: Settings, seed: int, changes: Mapping[str, Any] | None = None
) -> PatchGenerator:
    """The patches of a picture, as the settings cut them.

    Args:
        source: name of the picture.
        settings: of the study.
        seed: of the patches.
        changes: of the settings' patches.
    """
    cut: PatchSettings = replace(settings.patches, **(changes or {}))
    return PatchGenerator(source_image(source, at_most=LARGEST), cut, seed)


def held_out_patches(source: str, settings: Settings, seed: int) -> PatchGenerator:
    """Patches of the same picture that no student is shown."""
    return patches_of(source, settings, teacher_seed(seed, HELD_OUT))


def shown_batches(dataset: Dataset, settings: Settings, seed: int, condition: Condition) -> Batches:
    """What a student is shown: unlabelled batches from 0 to 1."""
    size, steps = settings.training.batch_size, settings.steps
    if condition.shown == "patches":
        assert condition.source is not None  # a condition of patches has one
        cut = patches_of(condition.source, settings, seed, condition.patches)
        if condition.pool is None:
            return fresh_batches(cut, size, steps)
        return pool_batches(pool_of(cut, condition.pool, jpeg=condition.jpeg), size, steps)
    if condition.shown == "foreign":
        return pool_batches(foreign_pool(dataset, settings), size, steps)
    some = few_images(dataset, condition, seed)
    if condition.shown == "patchified":
        return fresh_batches(patchified(some, settings.patches, seed), size, steps)
    return pool_batches(some.x_train, size, steps)


def few_images(dataset: Dataset, condition: Condition, seed: int) -> Dataset:
    """The data set with a condition's number of real images."""
    images = len(dataset.y_train)
    return real_images(dataset, min(condition.images or images, images), seed)


def foreign_pool(dataset: Dataset, settings: Settings) -> Tensor:
    """Images of another data set, at the size and with the channels of this one."""
    other = at_resolution(load(str(settings.foreign), train=1000, test=1), min(dataset.size))
    pixels = other.x_train
    if dataset.channels == pixels.shape[1]:
        return pixels
    if dataset.channels == 1:
        return pixels.float().mean(1, keepdim=True).round().to(pixels.dtype)
    return pixels.repeat(1, dataset.channels, 1, 1)


def asked_on_test(dataset: Dataset) -> Questions:
    """Some test images, prepared, and their labels: to report, not to choose."""
    return Questions(dataset.normalise(dataset.x_test[:REAL]), dataset.y_test[:REAL])


def train_student(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    condition: Condition,
    cache_dir: Path | None = None,
) -> Trained:
    """A student as a condition says, or the kept one."""
    network = build_network(condition.network or settings.network, dataset, seed)
    training = settings.training
    if condition.length == 0:
        return Trained(network.eval(), [])
    training = training.with_epochs(max(1, round(condition.length * training.epochs)))
    if condition.shown == "labelled":
        return Trained(network, _on_labels(network, dataset, settings, seed, condition, cache_dir))
    kind = {"own": TEACHER, "heavily augmented": HEAVY, "short": SHORT}[condition.teacher]
    teacher = train_teacher(dataset, settings, seed, kind, cache_dir).network
    history = imitate(
        network, teacher, shown_batches(dataset, settings, seed, condition), dataset, training,
        condition.imitation or settings.imitation, seed, cache_dir,
    )  # fmt: skip
    return Trained(network, history)


def imitate(
    student: nn.Module,
    teacher: nn.Module,
    batches: Batches,
    dataset: Dataset,
    training: TrainSettings,
    imitation: Imitation,
    seed: int,
    cache_dir: Path | None = None,
    label: str = "student",
    real: Dataset | None = None,
) -> History:
    """`smallnets.distill.single_image.distill_from_image` of a student that is watched.

    Args:
        student: trained in place.
        teacher: left as it is.
        batches: what is shown, from 0 to 1, without labels.
        dataset: real examples, for their normalisation, and for what the log has of them.
        training: how.
        imitation: what is asked for.
        seed: of the repetition.
        cache_dir: folder for finished trainings.
        label: of the kept file and of the progress bar.
        real: examples that the log is about, where they are not the data set's.
    """
    normalise = Normalise(dataset.mean, dataset.std)
    objective = SingleImageDistillation(teacher, normalise, imitation)
    questions = {"real": asked_on_test(real or dataset)}
    with teaching([teacher], training.accelerator):
        return fit(
            student, batches.without_labels(), replace(training, augmentation=None), seed=seed,
            objective=Questioned(objective, questions, ASKED), cache_dir=cache_dir, label=label,
        )  # fmt: skip


def _on_labels(
    network: nn.Module,
    dataset: Dataset,
    settings: Settings,
    seed: int,
    condition: Condition,
    cache_dir: Path | None,
) -> History:
    """The supervised baseline: a few images with their labels, for as many steps as a student."""
    some = few_images(dataset, condition, seed)
    training, view = settings.training, settings.teaching.augmentation
    size = min(training.batch_size, len(some.y_train))
    steps = training.epochs * settings.steps
    epochs = max(1, round(steps / (len(some.y_train) // size)))
    training = replace(training.with_epochs(epochs), batch_size=size, augmentation=view)
    return fit(network, some, training, seed=seed, cache_dir=cache_dir, label="labelled")


def train_side_by_side(jobs: list[Callable[..., Any]], description: str) -> None:
    """Train and keep networks, as many at a time as there are cores."""
    run_parallel(_train_only, [{"train": job} for job in jobs], description=description)


def student_jobs(conditions: Mapping[str, Condition], **common: Any) -> list[Callable[..., Any]]:
    """One job for each different student of the conditions, the longest first."""
    different: list[Condition] = []
    for one in conditions.values():
        if one not in different:
            different.append(one)
    longest = sorted(different, key=lambda one: -one.length)
    return [partial(train_student, condition=one, **common) for one in longest]


def _train_only(train: Callable[..., Any]) -> None:
    """What is trained is kept on disk, and need not be sent to the process that waits for it."""
    train()
