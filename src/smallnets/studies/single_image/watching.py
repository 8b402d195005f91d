"""A student that is watched: how often it is right on real images while it sees none.

With every step the student is asked about a few real images, in evaluation mode. The log of the
training, which holds the mean over the steps of an epoch, thus has the share of right answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smallnets.measure import evaluating
from smallnets.training import Batch

ASKED = 16  # images a step


class Questions(NamedTuple):
    """What a network is asked while it is trained."""

    images: Tensor  # (n, ...), as the network takes them
    labels: Tensor  # (n,)


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
