"""What a classifier knows after a step: accuracies with and without the task's name, and errors.

*Task-agnostic*: all classes seen so far compete. *Task-aware*: only those of the image's own task.
The first mixes knowledge with the balance between old and new classes, the second does not. Shown
alone, each hides what the other tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.data import Batches, Dataset
from smallnets.measure import predict, predict_with_labels
from smallnets.synthesize.replay.supervision import check_finite
from smallnets.synthesize.replay.tasks import Task


@dataclass(frozen=True, eq=False)
class StepAccuracies:
    """Accuracies from 0 to 1, and the confusions, after a step t with tasks 0 to t.

    Attributes:
        agnostic: of every task, (t + 1,), all classes competing.
        aware: of every task, (t + 1,), its own classes competing.
        among_old: of every old task, (t,), all old classes competing, and no new one.
        sizes: classes of every task.
        confusion: (classes, classes) int64; row: true class, column: predicted one.
    """

    agnostic: Tensor
    aware: Tensor
    among_old: Tensor
    sizes: tuple[int, ...]
    confusion: Tensor

    @property
    def total(self) -> float:
        """On all classes, each counting alike: a_t."""
        return self._mean(self.agnostic, self.sizes)

    @property
    def old(self) -> float:
        """On the classes of earlier tasks; NaN in the first step."""
        return self._mean(self.agnostic[:-1], self.sizes[:-1])

    @property
    def new(self) -> float:
        """On the classes of the latest task."""
        return float(self.agnostic[-1])

    @property
    def old_among_old(self) -> float:
        """On the classes of earlier tasks if no new class competes: knowledge that is left, apart
        from any bias towards new classes. NaN in the first step.
        """
        return self._mean(self.among_old, self.sizes[:-1])

    @property
    def total_aware(self) -> float:
        """Task-aware, on all classes, each counting alike."""
        return self._mean(self.aware, self.sizes)

    @staticmethod
    def _mean(values: Tensor, sizes: Sequence[int]) -> float:
        weights = torch.tensor(sizes, dtype=torch.float64)
        return float((values.double() * weights).sum() / weights.sum())


def logits_of_test(model: nn.Module, task: Task) -> tuple[Tensor, Tensor]:
    """Logits (n, classes) of a task's test images, float32 on the CPU, and labels (n,).

    Raises:
        ValueError: labels that are none of the task's classes, or logits that are not finite.
    """
    data = task.test
    if isinstance(data, Dataset):
        logits, labels = predict(model, data.x_test, data.normalise), data.y_test.cpu()
    else:
        assert isinstance(data, Batches)
        logits, labels = predict_with_labels(model, data)
    check_finite("logits", logits)
    task.check_labels("test", labels)
    return logits, labels


def evaluate(model: nn.Module, tasks: Sequence[Task]) -> StepAccuracies:
    """Accuracies of a classifier on the test images of tasks 0 to t, the last of which is new.

    Args:
        model: with a column for every class of the tasks.
        tasks: all seen so far.

    Raises:
        ValueError: other numbers of classes, or see `logits_of_test`.
    """
    sizes = tuple(len(task.classes) for task in tasks)
    classes = sum(sizes)
    n_old = classes - sizes[-1]
    agnostic, aware, among_old = [], [], []
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for task in tasks:
        logits, labels = logits_of_test(model, task)
        if logits.shape[1] != classes:
            raise ValueError(
                f"the classifier must have the {classes} classes of its tasks; "
                f"got {logits.shape[1]}"
            )
        guess = logits.argmax(dim=1)
        agnostic.append(_share(guess, labels))
        aware.append(_share(_among(logits, task.classes), labels))
        if task is not tasks[-1]:
            among_old.append(_share(_among(logits, range(n_old)), labels))
        confusion += torch.bincount(labels * classes + guess, minlength=classes**2).view(
            classes, classes
        )
    known, own, old = (
        torch.tensor(one, dtype=torch.float64) for one in (agnostic, aware, among_old)
    )
    return StepAccuracies(known, own, old, sizes, confusion)


def _among(logits: Tensor, columns: Sequence[int]) -> Tensor:
    """The largest of some columns, as a column of all."""
    chosen = torch.tensor(list(columns))
    return chosen[logits[:, chosen].argmax(dim=1)]


def _share(guess: Tensor, labels: Tensor) -> float:
    checks.whole("number of test images", len(labels), 1)
    return float((guess == labels).double().mean())
