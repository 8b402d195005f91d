"""A training that is watched: how often the network is right, epoch by epoch."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smallnets.data import Dataset
from smallnets.measure import evaluating
from smallnets.training import TrainSettings, fit
from smallnets.training.checkpoint import History
from smallnets.training.loop import Batch

SHOWN = 512  # test images of a training curve


@dataclass(frozen=True, eq=False)
class Watched:
    """Cross-entropy with the labels, and how a training goes: the share of right answers among the
    images of the batch, and among a quarter as many test images, others at every step.

    Looking changes nothing that is trained.

    Attributes:
        images: (n, channels, height, width), as the network takes them.
        labels: (n,).
    """

    images: Tensor
    labels: Tensor

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """ "loss", "train" and "test" of a step; the log has their means over an epoch."""
        logits = model(batch.images).float()
        first = 0 if batch.which is None else int(batch.which[0])
        some = (first + torch.arange(max(1, len(batch.labels) // 4))) % len(self.labels)
        with torch.no_grad(), evaluating(model):
            answers = model(self.images[some].to(logits.device)).argmax(1)
        return {
            "loss": F.cross_entropy(logits, batch.labels),
            "train": (logits.argmax(1) == batch.labels).float().mean(),
            "test": (answers.cpu() == self.labels[some]).float().mean(),
        }


def watched(dataset: Dataset) -> Watched:
    """The objective of a training whose curve is shown; its test images choose nothing."""
    return Watched(dataset.normalise(dataset.x_test[:SHOWN]), dataset.y_test[:SHOWN])


def train_watched(
    network: nn.Module,
    dataset: Dataset,
    training: TrainSettings,
    seed: int,
    cache_dir: Path | None = None,
    label: str = "network",
) -> History:
    """Train a network in place on the labels, and return the log that `curve` reads.

    Args: as those of `smallnets.training.fit`.
    """
    return fit(
        network, dataset, training, seed=seed, objective=watched(dataset), cache_dir=cache_dir,
        label=label,
    )  # fmt: skip


def curve(history: History) -> dict[str, list[float]]:
    """Shares of right answers in every epoch of a watched training, means over its steps: "train"
    on the augmented images that it learns from, "test" on others.
    """
    return {part: [epoch[part] for epoch in history] for part in ("train", "test")}
