"""What is asked of a generator's images (section 3 of the method): six terms.

    L_G = w_oh L_oh + w_ie L_ie + w_a L_a + w_tv L_tv + w_bn L_bn + w_kl L_kl

The first three are those of DAFL (Chen et al., 2019), statistics of BatchNorm (`statistics`) come
from DeepInversion (Yin et al., 2020), and diversity is the paper's own. Where the paper's words
leave a formula open, that of the official code is taken.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.losses import check_finite, to_float32

VARIATIONS = ("telescoped", "l1", "l2")
SPACES = ("pixels", "logits", "features")
LEAST = 1e-12  # probability that a logarithm is taken of


def one_hot_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of logits (batch, classes) with their own largest class, mean over the batch.

    No gradient passes through the choice of the class. 0 is approached with growing margins.

    Raises:
        ValueError: other shapes, or logits that are not finite.
    """
    logits = _logits(logits)
    return F.cross_entropy(logits, logits.detach().argmax(dim=1))


def class_balance_loss(logits: Tensor, base: float = 10.0, eps: float = LEAST) -> Tensor:
    """Minus the entropy of the mean prediction: sum_c p_c log p_c, p = mean_i softmax(o_i).

    The smallest value, -log(classes), is that of classes which are equally frequent.

    Args:
        logits: (batch, classes).
        base: of the logarithm; the official code has 10, which makes it 2.303 times smaller than in
            nats.
        eps: least probability in the logarithm. With 0, as in the official code, a class that
            never occurs makes every gradient NaN.

    Raises:
        ValueError: other shapes, logits that are not finite, or a number out of range.
    """
    checks.above("base", base, 1)
    checks.at_least("eps", eps, 0)
    mean = _logits(logits).softmax(dim=1).mean(dim=0)
    return (mean * mean.clamp_min(eps).log()).sum() / math.log(base)


def activation_loss(features: Tensor) -> Tensor:
    """Minus the mean absolute value of the penultimate features (batch, features)."""
    if features.dim() != 2 or features.numel() == 0:
        raise ValueError(f"features must be (batch, features); got {tuple(features.shape)}")
    return -features.abs().mean()


def tv_loss(images: Tensor, kind: str = "telescoped") -> Tensor:
    """How much neighbouring pixels differ, over four directions: right, down, both diagonals.

    Args:
        images: (batch, channels, height, width), at least 2 x 2.
        kind: "l1", the mean of |d| over pixels, then over directions; "l2", the mean over
            directions of the norm of all their differences (DeepInversion's, which the official
            code has commented out; it grows with the square root of the batch). "telescoped" is
            what the official code computes: the mean of the *signed* differences, and only then the
            absolute value. All pixels but those at the edges cancel, (x_1 - x_2) + (x_2 - x_3) +
            ... = x_1 - x_W, so a checkerboard of even size costs nothing, see `checkerboard`.

    Raises:
        ValueError: another kind or shape.
    """
    checks.one_of("kind", kind, VARIATIONS)
    if images.dim() != 4 or min(images.shape[2:]) < 2:
        raise ValueError(
            "images must be (batch, channels, height, width) of 2 x 2 pixels or more; "
            f"got {tuple(images.shape)}"
        )
    if kind == "telescoped":
        return _telescoped(images)
    differences = neighbour_differences(images)
    if kind == "l1":
        terms = [one.abs().mean() for one in differences]
    else:
        terms = [torch.linalg.vector_norm(one) for one in differences]
    return torch.stack(terms).mean()


def neighbour_differences(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each pixel minus its neighbour to the right, below, and on both diagonals."""
    return (
        images[..., :, :-1] - images[..., :, 1:],
        images[..., :-1, :] - images[..., 1:, :],
        images[..., 1:, :-1] - images[..., :-1, 1:],
        images[..., :-1, :-1] - images[..., 1:, 1:],
    )


def _telescoped(images: Tensor) -> Tensor:
    """The four absolute means from the pixels that do not cancel: those at the edges."""
    height, width = images.shape[2:]
    count = images.shape[0] * images.shape[1]
    top, bottom = images[..., 0, :].sum(), images[..., -1, :].sum()
    left, right = images[..., :, 0].sum(), images[..., :, -1].sum()
    corners = images[..., [0, 0, -1, -1], [0, -1, 0, -1]].sum((0, 1))
    slanted = (height - 1) * (width - 1) * count
    terms = (
        (left - right) / (height * (width - 1) * count),
        (top - bottom) / ((height - 1) * width * count),
        ((bottom + left - corners[2]) - (top + right - corners[1])) / slanted,
        ((top + left - corners[0]) - (bottom + right - corners[3])) / slanted,
    )
    return torch.stack(terms).abs().mean()


def checkerboard(height: int, width: int, channels: int = 3) -> Tensor:
    """The image (1, channels, height, width) of -1 and 1 that alternates from pixel to pixel.

    With even sides, its telescoped variation is 0, while no image of this range has a larger true
    one along rows and columns.
    """
    for name, side in (("height", height), ("width", width), ("channels", channels)):
        checks.whole(name, side, 1)
    down, across = torch.arange(height)[:, None], torch.arange(width)
    return (1.0 - 2 * ((down + across) % 2)).expand(1, channels, height, width).clone()


def pair_diversity(
    samples: Tensor,
    n_pairs: int = 200,
    generator: torch.Generator | None = None,
    indices: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Minus the mean symmetric KL divergence between random pairs of a batch (the paper's term).

    Every sample is flattened to v, and q = softmax(v) over all its numbers:

        L_kl = - 1/2 [ mean_s KL(q(b_s) || q(a_s)) + mean_s KL(q(a_s) || q(b_s)) ] <= 0

    The a_s are drawn without replacement from the first half of the batch, the b_s from the second.
    It has no lower bound, and depends strongly on contrast and size: compare it within one
    configuration only.

    Args:
        samples: (batch, ...): images as in the official code, logits, or features.
        n_pairs: S, at most half of the batch.
        generator: of the pairs.
        indices: the pairs (S,), (S,) themselves, as places in the whole batch.

    Raises:
        ValueError: more pairs than half of the batch, or fewer than one.
    """
    if indices is None:
        indices = draw_pairs(len(samples), n_pairs, generator, samples.device)
    first, second = indices
    flat = to_float32(samples).flatten(1)
    a, b = flat[first].log_softmax(dim=1), flat[second].log_softmax(dim=1)
    # KL(a || b) + KL(b || a) = sum (q_a - q_b) (log q_a - log q_b)
    return -((a.exp() - b.exp()) * (a - b)).sum(dim=1).mean() / 2


def draw_pairs(
    batch: int,
    n_pairs: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Places (n_pairs,) in the first half of a batch, and as many in the second.

    Raises:
        ValueError: more pairs than half of the batch, or fewer than one.
    """
    half = batch // 2
    if checks.whole("n_pairs", n_pairs, 1) > half:
        raise ValueError(
            f"n_pairs must be at most half of the batch, {half} of {batch}; got {n_pairs}"
        )
    parts = (
        torch.randperm(size, generator=generator, device=device)[:n_pairs]
        for size in (half, batch - half)
    )
    first, second = parts
    return first, half + second


def _logits(logits: Tensor) -> Tensor:
    if logits.dim() != 2 or logits.numel() == 0:
        raise ValueError(f"logits must be (batch, classes); got {tuple(logits.shape)}")
    check_finite("logits", logits)
    return to_float32(logits)
