"""What generator and discriminator are told: adversarial, reconstruction and matching losses.

Table of the chapter's section 3.1. Where paper and official code differ, the code is followed: a
hinge loss over several scales is their mean, least squares and cross-entropy are their sum.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.models.features import FeatureTap

GAN_MODES = ("hinge", "lsgan", "vanilla", "wgangp")
RECONSTRUCTIONS = ("l1", "l2", "smooth_l1", "perceptual")
PENALTIES = ("mixed", "real", "fake")
# relu1_1 to relu5_1 of torchvision's VGG-19, and the published weights of their differences.
VGG19_LAYERS = ("features.1", "features.6", "features.11", "features.20", "features.29")
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)

# A discriminator's answer: logits; those of several scales; or all layers' outputs a scale, the
# last of which are the logits.
Answer: TypeAlias = Tensor | Sequence[Tensor] | Sequence[Sequence[Tensor]]


def gan_loss(answer: Answer, mode: str, *, real: bool, for_discriminator: bool) -> Tensor:
    """One term of an adversarial game: (), the mean over examples and places.

    Args:
        answer: of the discriminator, without a sigmoid.
        mode: one of `GAN_MODES`.
        real: what the answer should have been.
        for_discriminator: who pays, which matters to "hinge" alone.

    Raises:
        ValueError: another mode; "wgangp" for several scales; a generator that wants to be called
            fake.
    """
    checks.one_of("mode", mode, GAN_MODES)
    if not for_discriminator and not real and mode in ("hinge", "wgangp"):
        raise ValueError(f"a generator's {mode} loss must aim at real; got real=False")
    if isinstance(answer, Tensor):
        return _one_scale(answer, mode, real, for_discriminator)
    if mode == "wgangp":
        raise ValueError(f"wgangp must judge one scale; got {len(answer)} of them")
    checks.whole("number of scales", len(answer), 1)
    scales = [one if isinstance(one, Tensor) else one[-1] for one in answer]
    total = torch.stack([_one_scale(one, mode, real, for_discriminator) for one in scales]).sum()
    return total / len(scales) if mode == "hinge" else total


def _one_scale(logits: Tensor, mode: str, real: bool, for_discriminator: bool) -> Tensor:
    sign = 1.0 if real else -1.0
    if mode == "hinge" and for_discriminator:
        return F.relu(1 - sign * logits).mean()
    if mode == "lsgan":
        return (logits - float(real)).square().mean()
    if mode == "vanilla":
        return F.softplus(-sign * logits).mean()
    return -sign * logits.mean()


def generator_loss(fake: Answer, mode: str) -> Tensor:
    """What a generator pays for the discriminator's answer to its images; see `gan_loss`."""
    return gan_loss(fake, mode, real=True, for_discriminator=False)


def discriminator_losses(fake: Answer, real: Answer, mode: str) -> tuple[Tensor, Tensor]:
    """What a discriminator pays for fake and for real images; see `gan_loss`."""
    return (
        gan_loss(fake, mode, real=False, for_discriminator=True),
        gan_loss(real, mode, real=True, for_discriminator=True),
    )


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    generator: torch.Generator | None = None,
    *,
    kind: str = "mixed",
    norm: float = 1.0,
    weight: float = 10.0,
) -> Tensor:
    """weight * mean((||grad D(x) + 1e-16||_2 - norm)^2) over examples (Gulrajani et al., 2017).

    The published recipes never use it.

    Args:
        discriminator: images (n, c, h, w) -> logits of any shape.
        real, fake: images (n, c, h, w); no gradient reaches their makers.
        generator: draws the share of each example's mixture.
        kind: where the gradient is taken: at mixtures of the two, or at one of them.

    Raises:
        ValueError: another kind, or shapes that differ.
    """
    checks.one_of("kind", kind, PENALTIES)
    if real.shape != fake.shape:
        raise ValueError(
            f"real and fake must have one shape; got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    real, fake = real.detach(), fake.detach()
    if kind == "mixed":
        share = torch.rand(len(real), 1, 1, 1, generator=generator, dtype=real.dtype)
        at = fake + share.to(real.device) * (real - fake)
    else:
        at = (real if kind == "real" else fake).clone()
    at.requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(at).sum(), at, create_graph=True)
    lengths = (slope.flatten(1) + 1e-16).norm(2, dim=1)
    return weight * (lengths - norm).square().mean()


def check_same(name: str, got: Tensor, wanted: Tensor) -> None:
    """Raise ValueError unless two tensors have one shape."""
    if got.shape != wanted.shape:
        raise ValueError(
            f"{name} must have one shape; got {tuple(got.shape)} and {tuple(wanted.shape)}"
        )


class PerceptualLoss(nn.Module):
    """Weighted mean absolute differences between what layers of a fixed network say.

    Args:
        network: any that takes images; kept in evaluation mode, and its weights do not learn.
        layers: dotted names of its submodules, see `FeatureTap`. For torchvision's VGG-19 they are
            `VGG19_LAYERS`.
        weights: one a layer; None is those of the official VGG loss, the last ones of
            `VGG_WEIGHTS`.
        prepare: images in [-1, 1] -> what the network takes. The official code passes them on.

    Raises:
        ValueError: no layer, an unknown one, or another number of weights.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        weights: Sequence[float] | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if weights is None:
            weights = VGG_WEIGHTS[-len(layers) :] if layers else ()
        if len(weights) != len(layers):
            raise ValueError(
                f"weights must be one for each of {len(layers)} layers; got {len(weights)}"
            )
        FeatureTap(network, layers).close()  # which says what is wrong with the names
        self.network = network.eval().requires_grad_(False)
        self.layers, self.weights, self.prepare = tuple(layers), tuple(weights), prepare

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """The network stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def features(self, images: Tensor) -> list[Tensor]:
        """What the layers say of images (n, c, h, w) in [-1, 1]."""
        with FeatureTap(self.network, self.layers) as tap:
            self.network(images if self.prepare is None else self.prepare(images))
            return list(tap.features.values())

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """() for images (n, c, h, w) in [-1, 1]; no gradient reaches the real ones."""
        check_same("images", fake, real)
        with torch.no_grad():
            wanted = self.features(real)
        terms = [F.l1_loss(a, b) for a, b in zip(self.features(fake), wanted, strict=True)]
        return sum(w * one for w, one in zip(self.weights, terms, strict=True))  # type: ignore[return-value]


def reconstruction_loss(
    image: Tensor, target: Tensor, kind: str = "l1", perceptual: nn.Module | None = None
) -> Tensor:
    """How far images are from what they should be, as the mean over all elements: ().

    Args:
        image, target: (n, c, h, w).
        kind: one of `RECONSTRUCTIONS`.
        perceptual: a `PerceptualLoss`, for that kind.

    Raises:
        ValueError: another kind, shapes that differ, or no perceptual loss where one is needed.
    """
    checks.one_of("kind", kind, RECONSTRUCTIONS)
    check_same("images", image, target)
    if kind == "perceptual":
        if perceptual is None:
            raise ValueError("perceptual must be a PerceptualLoss for that kind; got None")
        return perceptual(image, target)
    losses = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
    return losses[kind](image, target)


def feature_matching(fake: Sequence[Sequence[Tensor]], real: Sequence[Sequence[Tensor]]) -> Tensor:
    """sum over scales and layers but the last of mean|D_l(fake) - D_l(real)|, over the scales: ().

    Args:
        fake, real: all layers' outputs of a discriminator at each scale; no gradient reaches the
            real ones.

    Raises:
        ValueError: other numbers of scales or layers, or other shapes.
    """
    if len(fake) != len(real) or any(len(a) != len(b) for a, b in zip(fake, real, strict=False)):
        raise ValueError(
            "fake and real must have the same scales and layers; got "
            f"{[len(one) for one in fake]} and {[len(one) for one in real]}"
        )
    checks.whole("number of scales", len(fake), 1)
    terms = []
    for ours, theirs in zip(fake, real, strict=True):
        for a, b in zip(ours[:-1], theirs[:-1], strict=True):
            check_same("features", a, b)
            terms.append(F.l1_loss(a, b.detach()))
    if not terms:
        raise ValueError("feature matching needs layers before the last; got logits alone")
    return torch.stack(terms).sum() / len(fake)
