"""The two scenarios: new classes near to the old ones, and far from them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.data import Dataset, fine_groups, load, photograph
from smallnets.studies.replay.plan import Settings
from smallnets.synthesize import replay as r

NEAR, FAR = "near", "far"
SCENARIOS = (NEAR, FAR)
# Photographs that lie behind characters of training images, too, and behind those of no test image.
PHOTOGRAPHS = ("brick", "grass", "china", "hubble", "retina", "tissue", "coins", "moon")
PATCH = 32  # pixels of a photograph, shrunk or enlarged to the size of the images


def scenario(dataset: Dataset, settings: Settings, name: str) -> r.HeldOut:
    """The old task and the new one, with training images held out for choosing.

    Args:
        dataset: all images.
        settings: of the study; they name the classes.
        name: "near", whose new classes are other classes of the same data set, or "far", whose new
            images show nothing of what the old classes are about. Both have the same old task, and
            as many new classes and training images, as far as there are as many.

    Raises:
        ValueError: another name.
    """
    checks.one_of("scenario", name, SCENARIOS)
    old, near = r.task_split(dataset, groups=[settings.old, settings.new])
    new = near if name == NEAR else far_task(old, near, settings.far)
    return r.hold_out([old, new], settings.held_share)


def far_task(old: r.Task, near: r.Task, source: str) -> r.Task:
    """A task that takes the place of the near one, of photographs or of handwritten digits.

    As the near one it has no images of an old class, and is normalised as the old task is.
    """
    like = near.train
    assert isinstance(like, Dataset)
    assert isinstance(old.train, Dataset)
    first, known = near.classes[0], len(PHOTOGRAPHS if source == "photographs" else range(10))
    count = min(len(near.classes), known)
    if source == "photographs":
        whole = patches(count, len(like.y_train) // len(near.classes), like)
    else:
        whole = handwritten(count, len(like.y_train), like)
    columns = tuple(range(first, first + count))
    names = (*old.train.class_names, *whole.class_names)
    return r.Task(columns, moved(whole, first, names, (old.train.mean, old.train.std)))


def moved(
    dataset: Dataset, by: int, names: tuple[str, ...], moments: tuple[Tensor, Tensor]
) -> Dataset:
    """A data set whose labels, of both parts, are `by` columns further, normalised as is said."""
    return replace(
        dataset, y_train=dataset.y_train + by, y_test=dataset.y_test + by, class_names=names,
        moments=moments,
    )  # fmt: skip


def patches(classes: int, each: int, like: Dataset) -> Dataset:
    """Patches of photographs, as large as the images of a data set; which photograph is the class.

    Training patches come from the left half of a photograph, test patches from the right half; no
    patch shows a character.

    Args:
        classes: photographs, the first of `PHOTOGRAPHS`.
        each: training patches of each; there are half as many test patches.
        like: for the size and the channels.
    """
    generator = torch.Generator().manual_seed(0)
    parts: list[list[Tensor]] = [[], []]
    for name in PHOTOGRAPHS[:classes]:
        picture = photograph(name)
        middle = picture.shape[2] // 2
        for part, half, count in (
            (parts[0], picture[..., :middle], each),
            (parts[1], picture[..., middle:], max(1, each // 2)),
        ):
            part.append(_cut(half, count, generator))
    images = [resized(torch.cat(part), like) for part in parts]
    labels = [torch.arange(classes).repeat_interleave(len(part[0])) for part in parts]
    return Dataset(
        "photographs", images[0], labels[0], images[1], labels[1], PHOTOGRAPHS[:classes], like.flips
    )


def _cut(picture: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random patches (count, 3, PATCH, PATCH) of a picture (3, height, width)."""
    top = torch.randint(picture.shape[1] - PATCH + 1, (count,), generator=generator)
    left = torch.randint(picture.shape[2] - PATCH + 1, (count,), generator=generator)
    return torch.stack(
        [
            picture[:, y : y + PATCH, x : x + PATCH]
            for y, x in zip(top.tolist(), left.tolist(), strict=True)
        ]
    )


def handwritten(classes: int, train: int, like: Dataset) -> Dataset:
    """Digits written by hand, grey, as large as the images of a data set.

    Args:
        classes: 0, 1, ... of at most ten.
        train: training images, at most as many as there are.
        like: for the size and the channels.
    """
    digits = load("digits").classes(range(classes)).take(train=train)
    return digits.changed(lambda images: resized(images, like))


def resized(images: Tensor, like: Dataset) -> Tensor:
    """uint8 images with the size and the channels of a data set's."""
    grey = images.float().mean(dim=1, keepdim=True)
    pixels = images.float() if images.shape[1] == like.channels else grey
    pixels = pixels.expand(-1, like.channels, -1, -1)
    shrinks = images.shape[2] >= like.size[0] and images.shape[3] >= like.size[1]
    fitted = (
        F.interpolate(pixels, like.size, mode="area")
        if shrinks
        else F.interpolate(pixels, like.size, mode="bilinear", align_corners=False)
    )
    return fitted.round().clamp(0, 255).to(torch.uint8)


def sequence(dataset: Dataset, settings: Settings, order: int | None) -> list[r.Task]:
    """All classes of the near scenario as several tasks of about one size, without the images that
    are held out.

    Args:
        dataset: all images.
        settings: of the study.
        order: seed of the classes' order; None is the fixed one.
    """
    classes = (*settings.old, *settings.new)
    order_of = r.class_order(len(classes), order)
    later = len(classes) // settings.steps
    checks.at_least("classes of a task in a sequence", later, 1)
    sizes = r.group_sizes(len(classes), len(classes) - later * (settings.steps - 1), later)
    tasks = r.task_split(dataset, sizes, order=[classes[one] for one in order_of])
    return r.hold_out(tasks, settings.held_share).training


def alike(dataset: Dataset, settings: Settings, similarity: Tensor, pairs: Tensor) -> Tensor:
    """Which pairs of old classes are fine-grained, bool (pairs,).

    Of characters those of one of `FINE_GROUPS`; of other data sets, the quarter of the pairs with
    the most similar rows in the head.

    Args:
        dataset: for the names of its classes.
        settings: they name the old classes.
        similarity: of each pair, (pairs,).
        pairs: (pairs, 2), columns of the head.
    """
    names = [dataset.class_names[one] for one in settings.old]
    if are_characters(names):
        groups = fine_groups(torch.arange(len(names)), names)
        same = groups[pairs[:, 0]] == groups[pairs[:, 1]]
        if bool(same.any()) and not bool(same.all()):
            return same
    most = similarity.argsort(descending=True)[: max(1, len(pairs) // 4)]
    fine = torch.zeros(len(pairs), dtype=torch.bool)
    fine[most] = True
    return fine


def groups_of(dataset: Dataset, settings: Settings) -> Tensor:
    """Groups by which the classes of the near scenario are sorted in a confusion matrix; each class
    is its own where they are no characters.
    """
    names = [dataset.class_names[one] for one in (*settings.old, *settings.new)]
    columns = torch.arange(len(names))
    if not are_characters(names):
        return columns
    last = torch.where(columns < len(settings.old), 0, 100)  # new classes stay behind old ones
    return fine_groups(columns, names) + last


def are_characters(names: Sequence[str]) -> bool:
    """Whether classes are called by a letter or a digit each, with letters among them: numbers
    alone may count anything.
    """
    single = all(len(one) == 1 and one.isalnum() and one.isascii() for one in names)
    return single and any(one.isalpha() for one in names)
