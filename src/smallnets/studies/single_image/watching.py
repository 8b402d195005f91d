"""Trainings that are watched: a teacher's right answers on the images that it learns from, and a
student's on real images, of which it sees none.

With every step a student is asked about a few real images, in evaluation mode. The log of the
training, which holds the mean over the steps of an epoch, thus has the share of right answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smallnets.measure import evaluating
from smallnets.training import Batch

ASKED = 16  # images a step


class Questions(NamedTuple):
    """What a network is asked while it is trained."""

    images: Tensor  # (n, ...), as the network takes them
    labels: Tensor  # (n,)


@dataclass(frozen=True)
class Learning:
    """Cross-entropy with the labels, and "train", the share of right answers in the batch. No test
    image is looked at.

    Attributes:
        smoothing: probability spread evenly over the classes.
    """

    smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images).float()
        return {
            "loss": F.cross_entropy(logits, batch.labels, label_smoothing=self.smoothing),
            "train": (logits.argmax(1) == batch.labels).float().mean(),
        }


@dataclass(frozen=True, eq=False)
class Watched:
    """An objective that also logs "real", the share of real images that the network gets right.

    Which images are asked about follows from the batch, and nothing that is trained depends on it.

    Attributes:
        objective: what is minimised.
        questions: real images and their labels.
    """

    objective: Callable[[nn.Module, Batch], dict[str, Tensor]]
    questions: Questions

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        terms = self.objective(model, batch)
        images, labels = self.questions
        count = min(ASKED, len(labels))
        first = int(batch.images.sum(dtype=torch.float64) * 1e3) % len(labels)
        some = (first + torch.arange(count)) % len(labels)
        with torch.no_grad(), evaluating(model):
            answers = model(images[some].to(batch.images.device)).argmax(1)
        right = answers == labels[some].to(answers.device)
        return terms | {"real": right.float().mean()}
