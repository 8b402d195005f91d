"""Phase 2a: what each candidate does to the network when it alone replaces its layer.

    a_ij = L(teacher with t_i -> s_ij) - L(teacher),    a of the teacher's own layer = 0

The sum of these numbers predicts the loss of a network with several replacements.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.batches import Batches, Source
from smallnets.losses import check_finite, kl_divergence
from smallnets.measure import evaluating
from smallnets.search.lana.candidates import feature_loss
from smallnets.search.lana.layers import ReplaceableLayers, Replay
from smallnets.search.lana.pool import Pool, Table, check_choices
from smallnets.search.lana.tuning import batch_statistics, labelled

SCORES = ("loss", "accuracy", "kl", "mse")


def score_pool(
    layered: ReplaceableLayers,
    pool: Pool,
    x: Tensor | Batches | Source,
    y: Tensor | None = None,
    *,
    batch_size: int = 250,
    recalibrate: bool = False,
) -> dict[str, Table]:
    """The four scores of every candidate, lower is better, from one pass.

    The teacher runs once a batch. For a candidate only the layers behind it run again: those before
    it replay what they gave.

    Args:
        layered: the teacher.
        pool: its candidates; all run in evaluation mode.
        x: inputs as the network takes them, normalised; training images, not test images. Or
            batches (inputs, labels) of your own, without `y`.
        y: labels (n,).
        batch_size: inputs a pass; does not change the result beyond rounding. Batches of your own
            keep their size.
        recalibrate: take BatchNorm statistics of the inputs (all in one pass; of your own batches
            those of each) everywhere.

    Returns:
        "loss": cross-entropy minus the teacher's; "accuracy": what is lost of it, in [-1, 1]; "kl":
        of the teacher's prediction and the replaced network's, batch mean; "mse": of the features.
        0 for the teacher's own layer; may be negative.

    Raises:
        ValueError: there are no inputs, labels do not fit, or logits are not finite.
    """
    checks.whole("batch_size", batch_size, 1)
    batches: Iterable[tuple[Tensor, Tensor]]
    total = 1 if y is None else len(y)
    if y is None or not isinstance(x, Tensor):
        batches = labelled(x, y).on(layered.network)
    elif len(x) == 0 or len(x) != len(y):
        raise ValueError(
            f"x and y must be equally many and at least one; got {len(x)} and {len(y)}"
        )
    else:
        batch_size = len(x) if recalibrate else batch_size
        batches = zip(x.split(batch_size), y.split(batch_size), strict=True)
    tables = {kind: [np.zeros(len(names)) for names in pool.names] for kind in SCORES}
    mode = batch_statistics if recalibrate else evaluating
    count = 0
    with mode(layered.network), mode(pool), torch.no_grad():
        for images, labels in batches:
            count += len(labels)
            seen = layered.passed(images)
            before = _sums(seen.logits, seen.logits, labels)
            replays = {i: Replay(output) for i, output in enumerate(seen.outputs)}
            for layer, choice in pool.pairs:
                output = pool.module(layered, layer, choice)(seen.inputs[layer])
                earlier = {i: replays[i] for i in range(layer)} | {layer: Replay(output)}
                with layered.replaced(earlier) as network:
                    after = _sums(network(images), seen.logits, labels)
                error = feature_loss(output, seen.outputs[layer]).item() * len(images)
                for kind, value in zip(SCORES, (*(after - before), error), strict=True):
                    tables[kind][layer][choice] += value / total
    if y is None:
        tables = {kind: [row / count for row in rows] for kind, rows in tables.items()}
    return tables


def _sums(logits: Tensor, teacher_logits: Tensor, y: Tensor) -> np.ndarray:
    """Cross-entropy, errors and KL(teacher || network), summed over a batch."""
    check_finite("logits of the teacher and of every candidate", logits)
    classes = logits.shape[1]
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise ValueError(
            f"labels must be between 0 and {classes - 1}; got {int(y.min())} to {int(y.max())}"
        )
    student, teacher = logits.double(), teacher_logits.double()
    return np.array(
        [
            F.cross_entropy(student, y, reduction="sum").item(),
            (logits.argmax(dim=1) != y).sum().item(),
            kl_divergence(student, teacher, reduction="sum").item(),
        ]
    )


def predicted_loss(base: float, score: Table, choices: Sequence[int]) -> float:
    """L(teacher) plus the scores of what is replaced: exact for one replacement.

    Raises:
        ValueError: the choices do not fit the table.
    """
    check_choices([[""] * len(row) for row in score], choices)
    return base + float(sum(row[c] for row, c in zip(score, choices, strict=True)))


def rank_agreement(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """Kendall's tau, Spearman's and Pearson's correlation of predictions and measurements.

    Raises:
        ValueError: fewer than two pairs, lengths that differ, or numbers that are not finite.
    """
    if len(predicted) != len(measured) or len(predicted) < 2:
        raise ValueError(
            "predicted and measured must be equally many and at least two; "
            f"got {len(predicted)} and {len(measured)}"
        )
    if not np.isfinite([*predicted, *measured]).all():
        raise ValueError("predicted and measured must be finite; got NaN or infinity")
    return {
        "kendall": float(stats.kendalltau(predicted, measured).statistic),
        "spearman": float(stats.spearmanr(predicted, measured).statistic),
        "pearson": float(stats.pearsonr(predicted, measured).statistic),
    }
