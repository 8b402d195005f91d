"""Classes that come in groups: the sequence of tasks, and images held out for choosing.

The columns of the head are in the order in which classes come: task 0 has the first ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from smallnets import checks
from smallnets.data import Dataset, TrainingData, as_batches


@dataclass(frozen=True, eq=False)
class Task:
    """One group of classes.

    Attributes:
        classes: columns of the head, consecutive; the labels of its images.
        train: a `Dataset`, whose training part is used, or batches (inputs, labels) of your own.
        test: a `Dataset`, whose test part is used, or batches; by default the same `Dataset`.

    Raises:
        ValueError: no class, labels that are not its classes, or batches without a test set.
    """

    classes: tuple[int, ...]
    train: TrainingData
    test: TrainingData | None = None

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("a task must have at least one class; got none")
        for one in self.classes:
            checks.whole("every one of classes", one, 0)
        train = as_batches(self.train)
        test = train if self.test is None else as_batches(self.test)
        if self.test is None and not isinstance(train, Dataset):
            raise ValueError("test must be given for a task of batches; got None")
        object.__setattr__(self, "train", train)
        object.__setattr__(self, "test", test)
        for part, data in (("train", train), ("test", test)):
            if isinstance(data, Dataset):
                self.check_labels(part, data.y_train if part == "train" else data.y_test)

    def check_labels(self, part: str, labels: Tensor) -> None:
        """Raise ValueError unless all labels of its "train" or "test" part are its classes."""
        strange = set(labels.unique().tolist()) - set(self.classes)
        if strange:
            raise ValueError(
                f"labels of a task must be among its classes {list(self.classes)}; "
                f"its {part} part has {sorted(strange)}"
            )


def check_tasks(tasks: Sequence[Task]) -> list[int]:
    """The number of classes of each task, if together they are columns 0, 1, ... in order.

    Raises:
        ValueError: no task, a class in two tasks, or columns that are left out or out of order.
    """
    if not tasks:
        raise ValueError("tasks must hold at least one task; got none")
    seen: dict[int, int] = {}
    for number, task in enumerate(tasks):
        for one in task.classes:
            if one in seen:
                raise ValueError(
                    f"tasks must have different classes; class {one} is in tasks {seen[one]} "
                    f"and {number}"
                )
            seen[one] = number
    if list(seen) != list(range(len(seen))):
        raise ValueError(
            "classes of tasks must be the columns of the head in order, 0, 1, 2, ...; "
            f"got {list(seen)}"
        )
    return [len(task.classes) for task in tasks]


def group_sizes(classes: int, first: int, later: int) -> list[int]:
    """A first group, then groups of `later`: (classes - first) / later + 1 of them.

    Raises:
        ValueError: groups that do not divide the classes; a number out of range.
    """
    checks.whole("classes", classes, 1)
    checks.between("first", checks.whole("first", first, 1), 1, classes)
    checks.whole("later", later, 1)
    if (classes - first) % later:
        raise ValueError(
            f"groups must divide the classes: {classes} - {first} must be a multiple of later; "
            f"got {later}"
        )
    return [first, *[later] * ((classes - first) // later)]


def class_order(classes: int, seed: int | None = None) -> tuple[int, ...]:
    """0, 1, ..., classes - 1, as the official code has them, or shuffled by a seed.

    Results depend on the order by several points: take the fixed one, or several and their spread.
    """
    checks.whole("classes", classes, 1)
    if seed is None:
        return tuple(range(classes))
    generator = torch.Generator().manual_seed(checks.whole("seed", seed, 0))
    return tuple(torch.randperm(classes, generator=generator).tolist())


def task_split(
    dataset: Dataset,
    sizes: Sequence[int] | None = None,
    *,
    groups: Sequence[Sequence[int]] | None = None,
    order: Sequence[int] | None = None,
    moments: str = "first",
) -> list[Task]:
    """Cut a data set into tasks by class.

    Args:
        dataset: any.
        sizes: classes of each task, taken in `order`; classes that are left over are left out.
        groups: or the classes of each task themselves.
        order: of the classes, see `class_order`; by default that of their labels.
        moments: of the normalisation of all tasks: "first", those of the first task's training
            images, which is all that a learner knows when it starts; or "all", those of the whole
            data set, as is usual in published code.

    Raises:
        ValueError: sizes and groups, or neither; more tasks than classes, a task without classes
            or images, classes that occur twice or do not exist.
    """
    checks.one_of("moments", moments, ("first", "all"))
    known = dataset.num_classes
    if (sizes is None) == (groups is None) or (groups is not None and order is not None):
        raise ValueError("give sizes, with or without an order, or groups; got both or neither")
    if groups is None:
        assert sizes is not None
        groups = _by_sizes(sizes, known, order)
    given = [one for group in groups for one in group]
    if len(groups) > known:
        raise ValueError(f"there must be at most as many tasks as classes, {known}; "
                         f"got {len(groups)}")  # fmt: skip
    for number, group in enumerate(groups):
        if not group:
            raise ValueError(f"every task must have a class; task {number} has none")
    if len(set(given)) < len(given) or not set(given) <= set(range(known)):
        twice = sorted({one for one in given if given.count(one) > 1 or not 0 <= one < known})
        raise ValueError(
            f"tasks must have different classes from 0 to {known - 1}; got {twice} twice or beyond"
        )
    column = torch.full((known,), -1)
    column[given] = torch.arange(len(given))
    y_train, y_test = (column[y.cpu()] for y in (dataset.y_train, dataset.y_test))
    names = tuple(dataset.class_names[one] for one in given)
    tasks, common, first = [], None if moments == "first" else (dataset.mean, dataset.std), 0
    for number, group in enumerate(groups):
        columns = range(first, first + len(group))
        train, test = ((y >= columns.start) & (y < columns.stop) for y in (y_train, y_test))
        if not bool(train.any()) or not bool(test.any()):
            raise ValueError(
                f"every task must have training and test images; task {number} lacks some"
            )
        part = replace(
            dataset, x_train=dataset.x_train[train], y_train=y_train[train],
            x_test=dataset.x_test[test], y_test=y_test[test],
            class_names=names[: columns.stop], moments=common,
        )  # fmt: skip
        if common is None:
            common = (part.mean, part.std)
            part = replace(part, moments=common)
        tasks.append(Task(tuple(columns), part))
        first = columns.stop
    return tasks


def _by_sizes(
    sizes: Sequence[int], known: int, order: Sequence[int] | None
) -> list[tuple[int, ...]]:
    classes = tuple(range(known)) if order is None else tuple(order)
    for size in sizes:
        checks.whole("every one of sizes", size, 1)
    if len(sizes) > len(classes):
        raise ValueError(
            f"there must be at most as many tasks as classes, {len(classes)}; got {len(sizes)}"
        )
    if sum(sizes) > len(classes):
        raise ValueError(f"sizes must sum to at most the {len(classes)} classes; got {sum(sizes)}")
    return [classes[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The same tasks twice, both with the same training images.

    Attributes:
        training: tested on the real test images: for the runs that are compared.
        choosing: tested on training images that were held out, of all tasks: for choosing settings.
    """

    training: list[Task]
    choosing: list[Task]


def hold_out(tasks: Sequence[Task], share: float, seed: int = 0) -> HeldOut:
    """Take a share of every task's training images out, by class, for choosing settings.

    Choosing is not training: no run, neither to choose nor to compare, trains on them.

    Args:
        tasks: whose data are a `Dataset` each.
        share: between 0 and 1, exclusive.
        seed: which images.

    Raises:
        ValueError: batches of your own, or a share of which no image is left on one side.
    """
    if not 0 < checks.between("share", share, 0, 1) < 1:
        raise ValueError(f"share must be between 0 and 1, exclusive; got {share}")
    training, choosing = [], []
    for task in tasks:
        if not isinstance(task.train, Dataset):
            raise ValueError(
                "images can be held out of a Dataset; got batches of your own: hold them out "
                "before, and give two lists of tasks"
            )
        count = round(share * len(task.train.y_train))
        whole = replace(task.train, moments=(task.train.mean, task.train.std))
        judged = whole.held_out(count, seed)
        training.append(Task(task.classes, judged, task.test))
        choosing.append(Task(task.classes, judged, judged))
    return HeldOut(training, choosing)
