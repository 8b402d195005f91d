"""A training in which the network is asked: how often it gives the wanted answer, epoch by epoch.

With every step the network is asked about a few images, in evaluation mode. The log of the
training, which holds the mean over the steps of an epoch, thus has the share of wanted answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from smallnets.measure import evaluating
from smallnets.training import Batch


class Questions(NamedTuple):
    """What a network is asked while it is trained."""

    images: Tensor  # (n, ...), as the network takes them
    answers: Tensor  # (n,) the wanted classes: labels, or a teacher's first choices


@dataclass(frozen=True, eq=False)
class Questioned:
    """An objective that also logs the share of wanted answers of each part, by name.

    Nothing that is trained depends on it: which images are asked about follows from the batch, and
    no random number is drawn.

    Attributes:
        objective: what is minimised.
        parts: name of the term in the log -> questions.
        count: images of every part that are asked about in a step.
    """

    objective: Callable[[nn.Module, Batch], dict[str, Tensor]]
    parts: Mapping[str, Questions]
    count: int = 8

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        terms = self.objective(model, batch)
        with torch.no_grad(), evaluating(model):
            for name, (images, answers) in self.parts.items():
                some = (self._numbers(batch) % len(answers)).to(images.device)
                said = model(images[some].to(batch.images.device))
                logits = said if isinstance(said, Tensor) else next(iter(said.values())).logits
                right = logits.argmax(1) == answers[some].to(logits.device)
                terms[name] = right.float().mean()
        return terms

    def _numbers(self, batch: Batch) -> Tensor:
        """Those of the batch's images; where they have none, as many in a row from one that
        follows from what they show.
        """
        if batch.which is not None:
            return batch.which[: self.count]
        return int(batch.images.sum(dtype=torch.float64) * 1e3) + torch.arange(self.count)


def thinned(history: Sequence[Mapping[str, float]], name: str, points: int = 12) -> list[float]:
    """A term of a log as means over equal parts of the training, at most `points` of them."""
    parts = np.array_split([epoch[name] for epoch in history], min(points, len(history)))
    return [float(part.mean()) for part in parts]
