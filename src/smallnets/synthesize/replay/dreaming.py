"""Always Be Dreaming (Smith et al., ICCV 2021), the modern memory-free reference.

Generator: CE(o / 1000, argmax o) + balance + 50 * Gaussian BatchNorm loss + 1e-3 * smoothness.
Classifier: a softmax over the new classes alone, a second one over all classes that moves only the
head, and distances of features as the old head sees them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.losses import to_float32
from smallnets.synthesize.replay.losses import LEAST, class_balance_loss
from smallnets.synthesize.replay.supervision import local_cross_entropy

SMOOTHING = 5  # pixels of the filter's side


@dataclass(frozen=True)
class DreamingWeights:
    """Weights of the generator's terms.

    Attributes:
        content: of the cross-entropy with the own largest class, of logits / `temperature`.
        balance: of `relative_balance_loss`.
        bn: of the Gaussian BatchNorm loss.
        smooth: of `smoothness_loss`.
        temperature: see `content`.

    Raises:
        ValueError: a number out of range.
    """

    content: float = 1.0
    balance: float = 1.0
    bn: float = 50.0
    smooth: float = 1e-3
    temperature: float = 1000.0

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in ("content", "balance", "bn", "smooth"):
            checks.at_least(name, getattr(self, name), 0)
        checks.above("temperature", self.temperature, 0)


@dataclass(frozen=True)
class DreamingSettings:
    """The method's own settings.

    Attributes:
        weights: of the generator's terms.
        generator_lr: of Adam.
        mu: weight of the distances between features.

    Raises:
        ValueError: a number out of range.
    """

    weights: DreamingWeights = DreamingWeights()
    generator_lr: float = 1e-3
    mu: float = 0.1

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.above("generator_lr", self.generator_lr, 0)
        checks.at_least("mu", self.mu, 0)


PUBLISHED_DREAMING = DreamingSettings()


def relative_balance_loss(logits: Tensor, eps: float = LEAST) -> Tensor:
    """1 + sum_c p_c ln p_c / ln K with the mean prediction p: 0 if balanced, 1 for one class.

    Args:
        logits: (batch, K), K at least 2.
        eps: see `class_balance_loss`.
    """
    classes = checks.whole("number of classes", logits.shape[-1], 2)
    return 1 + class_balance_loss(logits, math.e, eps) / math.log(classes)


def smoothness_loss(images: Tensor) -> Tensor:
    """Mean squared distance of images (batch, channels, height, width) from themselves smoothed by
    a 5x5 filter, mirrored at the edges.

    The filter's weights are exp(-(d / 2)^2), normalised, in rows and columns, as the official code
    has them: a Gaussian of deviation sqrt(2).

    Raises:
        ValueError: images with fewer than 3 pixels a side.
    """
    margin = SMOOTHING // 2
    if images.dim() != 4 or min(images.shape[2:]) <= margin:
        raise ValueError(
            f"images must be (batch, channels, height, width) of {margin + 1} x {margin + 1} "
            f"pixels or more; got {tuple(images.shape)}"
        )
    distance = torch.arange(SMOOTHING, dtype=images.dtype, device=images.device) - margin
    line = torch.exp(-(distance / 2).square())
    line = line / line.sum()
    padded = F.pad(images, (margin,) * 4, mode="reflect").flatten(0, 1)[:, None]
    rows = F.conv2d(padded, line.view(1, 1, -1, 1))
    smooth = F.conv2d(rows, line.view(1, 1, 1, -1))[:, 0].view_as(images)
    return F.mse_loss(smooth, images)


def dreaming_terms(
    logits: Tensor,
    features: Tensor,
    old_features: Tensor,
    labels: Tensor,
    replayed: Tensor,
    head: nn.Linear,
    old_head: nn.Linear,
    n_old: int,
    mu: float,
) -> dict[str, Tensor]:
    """The classifier's loss on one batch of new images followed by replayed ones.

        L = N_new / N CE_local(new) + mean_i w_i CE(head(stop(phi_i)), y_i)
            + mu / N_old mean_i |old_head(phi_i) - old_head(phi_old,i)|^2

    with w_i = N_new / N for images of new classes and N_old / N for replayed ones.

    Args:
        logits: of the new model on new images, (new, N).
        features: of the new model on new images, then on replayed ones, (new + replayed, d).
        old_features: of the old model, of the same shape.
        labels: of the new images, (new,).
        replayed: hard labels of the replayed ones, the old model's largest class.
        head: the new model's, with N classes.
        old_head: the old model's, with N_old.
        n_old: N_old.
        mu: weight of the last term.

    Returns:
        "loss" and its parts "local", "head" and "features".
    """
    classes = logits.shape[1]
    share = n_old / classes
    local = (1 - share) * local_cross_entropy(logits, labels, n_old)
    targets = torch.cat([labels, replayed])
    each = F.cross_entropy(to_float32(head(features.detach())), targets, reduction="none")
    weight = torch.where(targets < n_old, share, 1 - share).to(each)
    full = (weight * each).mean()
    weights, bias = old_head.weight.detach(), old_head.bias
    bias = None if bias is None else bias.detach()
    seen = [to_float32(F.linear(one, weights, bias)) for one in (features, old_features.detach())]
    distance = (seen[0] - seen[1]).square().sum(dim=1).mean() / n_old
    return {
        "loss": local + full + mu * distance,
        "local": local,
        "head": full,
        "features": distance,
    }
