r"""Phase 1: every candidate learns to do what one layer of the teacher does.

.. math::

    \min_W \sum_{i,j} \mathbb{E}_x \big\| t_i(x_{i-1}) - s_{ij}(x_{i-1}; w_{ij}) \big\|^2

Candidates share no weight, so the gradient of the sum is each one's own gradient. All of them hang
off one pass of the teacher and are trained by one optimiser that treats every parameter by itself
(SGD, Adam); the result is that of as many trainings one after the other.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smallnets import checks
from smallnets.data import Batches, TrainingData, as_batches
from smallnets.measure import evaluating
from smallnets.search.lana.layers import ReplaceableLayers
from smallnets.search.lana.pool import Pool, Table, same_pool
from smallnets.training import Batch, TrainSettings, check_network, fit, teaching

REDUCTIONS = ("mean", "sum")


def feature_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error between two feature maps.

    Args:
        student, teacher: (batch, ...) of one shape.
        reduction: "mean" over all elements, whose gradient is 2 (s - t) / numel; or "sum" over an
            example's elements and mean over the batch, which weighs large layers more under SGD and
            changes nothing under Adam.

    Raises:
        ValueError: shapes differ or are empty, or the reduction is unknown.
    """
    checks.one_of("reduction", reduction, REDUCTIONS)
    if student.shape != teacher.shape or student.numel() == 0:
        raise ValueError(
            "student and teacher features must have one shape and not be empty; "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    wide = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    squares = (student.to(wide) - teacher.to(wide)).square()
    return squares.mean() if reduction == "mean" else squares.flatten(1).sum(dim=1).mean()


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error over the variance of the teacher's channels, each around its own mean over
    batch and positions: 0 is perfect, 1 no better than a constant.

    Raises:
        ValueError: shapes differ or are empty, or every channel of the teacher is constant.
    """
    others = [dim for dim in range(teacher.ndim) if dim != 1]
    variance = (teacher - teacher.mean(dim=others, keepdim=True)).square().mean()
    error = feature_loss(student, teacher)
    if not bool(variance > 0):
        raise ValueError("the teacher's features must vary in some channel; all are constant")
    return error / variance


@dataclass(frozen=True)
class LayerwiseDistillation:
    """The objective of phase 1, for `smallnets.training.fit` and a pool.

    Attributes:
        teacher: stays as it is, in evaluation mode.
        reduction: see `feature_loss`.
    """

    teacher: ReplaceableLayers
    reduction: str = "mean"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.one_of("reduction", self.reduction, REDUCTIONS)

    def __call__(self, pool: Any, batch: Batch) -> dict[str, Tensor]:
        """ "loss", the sum over candidates, and "layer/choice" of each."""
        last = pool.pairs[-1][0]  # the last layer that has candidates: the teacher runs no further
        with torch.no_grad(), evaluating(self.teacher.network):
            inputs, wanted = zip(*self.teacher.passed_until(batch.images, last), strict=True)
        terms = {
            f"{layer}/{choice}": feature_loss(output, wanted[layer], self.reduction)
            for layer, row in enumerate(pool(inputs))
            for choice, output in enumerate(row, start=1)
        }
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def distil_candidates(
    layered: ReplaceableLayers,
    pool: Pool,
    dataset: TrainingData,
    settings: TrainSettings,
    *,
    seed: int,
    reduction: str = "mean",
    together: bool = True,
    cache_dir: Path | None = None,
) -> Table:
    """Train all candidates in place, each against the teacher's layer on the teacher's input.

    Args:
        layered: the teacher; it stays as it is, bit for bit, in its mode and place.
        pool: its candidates.
        dataset: its training images are used, and no label; or batches of your own, with or
            without labels, see `fit`.
        settings: of the training. Weight decay would shrink candidates whose loss is small.
        seed: of the order of images and their augmentation.
        reduction: see `feature_loss`.
        together: one training of all, or one after the other with the same result.
        cache_dir: folder for the finished training, see `fit`.

    Returns:
        The mean loss of every trained candidate in the last epoch, 0 for teacher and identity.

    Raises:
        ValueError: the pool does not fit the layers or has nothing to train, or the teacher does
            not take the inputs; and as `fit`.
    """
    same_pool(layered, pool)
    if not any(True for _ in pool.parameters()):
        raise ValueError("the pool must have a candidate with weights to train; it has none")
    data = as_batches(dataset)
    data = data.without_labels() if isinstance(data, Batches) else data
    check_network("teacher", layered.network, data.glance())
    objective = LayerwiseDistillation(layered, reduction)
    parts = [pool] if together else [pool.part([pair]) for pair in pool.pairs]
    losses = [np.zeros(len(names)) for names in pool.names]
    for number, part in enumerate(parts):
        if not any(True for _ in part.parameters()):
            continue  # an identity has nothing to learn
        with teaching([layered.network], settings.accelerator):
            history = fit(
                part,
                data,
                settings,
                seed=seed,
                objective=objective,
                cache_dir=cache_dir,
                label="candidates",
            )
        last = {key: value for key, value in history[-1].items() if key != "loss"}
        for key, value in last.items():
            layer, choice = map(int, key.split("/"))
            choice = choice if together else pool.pairs[number][1]
            if any(True for _ in pool.rows[layer][choice - 1].parameters()):
                losses[layer][choice] = value
    return losses
