r"""Phase 2c: judging the chosen networks, and fine-tuning one with the teacher's answers.

.. math::

    \mathcal{L} = (1 - \alpha)\,\mathrm{CE}(z_S, y) + \alpha\, T^2\,
    \mathrm{KL}\big(p^{(T)}_T \,\|\, p^{(T)}_S\big)

The paper fine-tunes with the original objective and distillation; its weights are not published.
Equal ones at temperature 1 are ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.batches import Batches, Source, check_labelled
from smallnets.data import TrainingData, as_batches
from smallnets.losses import check_pair, kl_divergence
from smallnets.measure import (
    accuracy,
    evaluating,
    negative_log_likelihood,
    one_tensor,
    predict,
)
from smallnets.surgery import batch_norms
from smallnets.training import (
    Batch,
    TrainSettings,
    check_apart,
    check_networks,
    fit,
    teaching,
)


def tuning_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """(1 - alpha) cross-entropy + alpha T^2 KL(teacher || student); sums over classes, mean over
    the batch.

    Args:
        student_logits, teacher_logits: (batch, classes).
        labels: (batch,).
        alpha: weight of the teacher, in [0, 1].
        temperature: above 0.

    Raises:
        ValueError: numbers are out of range, or shapes differ.
    """
    checks.between("alpha", alpha, 0, 1)
    checks.above("temperature", temperature, 0)
    check_pair(student_logits, teacher_logits)
    soft = kl_divergence(student_logits, teacher_logits, temperature)
    return (1 - alpha) * F.cross_entropy(student_logits, labels) + alpha * temperature**2 * soft


@dataclass(frozen=True)
class FineTuning:
    """`tuning_loss` under a frozen teacher, for `smallnets.training.fit`."""

    teacher: nn.Module
    alpha: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.between("alpha", self.alpha, 0, 1)
        checks.above("temperature", self.temperature, 0)

    def __call__(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad(), evaluating(self.teacher):
            teacher_logits = self.teacher(batch.images).float()
        student_logits = student(batch.images).float()
        return {
            "loss": tuning_loss(
                student_logits,
                teacher_logits,
                batch.labels,
                alpha=self.alpha,
                temperature=self.temperature,
            )
        }


def fine_tune(
    student: nn.Module,
    teacher: nn.Module,
    dataset: TrainingData,
    settings: TrainSettings,
    *,
    seed: int,
    alpha: float = 0.5,
    temperature: float = 1.0,
    cache_dir: Path | None = None,
) -> list[dict[str, float]]:
    """Train a stitched student end to end, in place, and return the log.

    Args:
        student: starts from the candidates' weights.
        teacher: stays as it is, in its mode and place.
        dataset: its training part is used; or batches (inputs, labels) of your own, see `fit`.
        settings: of the training.
        seed: of the order of images and their augmentation.
        alpha, temperature: of `tuning_loss`; alpha 0 is training on labels alone.
        cache_dir: folder for the finished training.

    Raises:
        ValueError: a network does not take the inputs, or they have different classes or share
            parameters; numbers are out of range; and as `fit`.
    """
    data, objective = as_batches(dataset), FineTuning(teacher, alpha, temperature)
    if alpha < 1:
        check_labelled(data)
    both = {"teacher": teacher, "student": student}
    data = data.of_classes(check_networks(both, data.glance(), data.num_classes))
    check_apart(student, teacher)
    with teaching([teacher], settings.accelerator):
        return fit(
            student,
            data,
            settings,
            seed=seed,
            objective=objective,
            cache_dir=cache_dir,
            label="tuned",
        )


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Evaluation, but with BatchNorm statistics of the batch at hand; nothing is remembered.

    On all images in one batch this is `smallnets.surgery.recalibrate` and evaluation in a single
    pass (up to the factor n / (n - 1) in variances).
    """
    norms = batch_norms(network)
    before = [norm.track_running_stats for norm in norms]
    with evaluating(network):
        for norm in norms:
            norm.train()
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm, tracked in zip(norms, before, strict=True):
                norm.track_running_stats = tracked


def labelled(x: Tensor | Batches | Source, y: Tensor | None) -> Batches:
    """Batches (inputs, labels) that were given in the place of inputs `x` and labels `y`.

    Raises:
        ValueError: inputs without labels, also batches, or labels besides batches.
    """
    if isinstance(x, Tensor) or y is not None:
        raise ValueError(
            "give inputs and labels as two tensors, or batches (inputs, labels) alone; "
            f"got {type(x).__name__} and {type(y).__name__}"
        )
    check_labelled(x)
    return x if isinstance(x, Batches) else Batches(x)


def evaluate_network(
    network: nn.Module,
    x: Tensor | Batches | Source,
    y: Tensor | None = None,
    *,
    recalibrate: bool = False,
) -> dict[str, float]:
    """ "loss" (cross-entropy) and "accuracy" of a network on inputs as it takes them.

    Args:
        network: left as it is.
        x: inputs (n, ...); or batches (inputs, labels) of your own, without `y`.
        y: labels (n,).
        recalibrate: all inputs are one batch and BatchNorm uses its statistics; with batches of
            your own, of every batch those of that batch.

    Raises:
        ValueError: there are no inputs, inputs without labels, or the network returns no tensor.
    """
    if y is None or not isinstance(x, Tensor):
        batches = labelled(x, y).on(network)
        with batch_statistics(network) if recalibrate else evaluating(network), torch.no_grad():
            pairs = [
                (one_tensor(network(part)).float().cpu(), labels.cpu()) for part, labels in batches
            ]
        logits, y = (torch.cat(side) for side in zip(*pairs, strict=True))
    elif recalibrate:
        with batch_statistics(network), torch.no_grad():
            logits = one_tensor(network(x)).float()
    else:
        logits = predict(network, x)
    return {"loss": negative_log_likelihood(logits, y), "accuracy": accuracy(logits, y)}
