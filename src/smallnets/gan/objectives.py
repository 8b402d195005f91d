"""What students of all four families are asked for: weights, and terms with these weights."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from torch import Tensor, nn

from smallnets import checks
from smallnets.gan.losses import (
    GAN_MODES,
    RECONSTRUCTIONS,
    Answer,
    discriminator_losses,
    feature_matching,
    generator_loss,
    reconstruction_loss,
)
from smallnets.gan.playing import Terms


@dataclass(frozen=True)
class _Weights:
    """A mode of the adversarial loss; every number is a weight of at least 0."""

    mode: str = "hinge"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.one_of("mode", self.mode, GAN_MODES)
        for one in fields(self):
            if one.type is float:
                checks.at_least(one.name, getattr(self, one.name), 0)


@dataclass(frozen=True)
class Objective(_Weights):
    """What a student of the ResNet family is asked for; the defaults are those of edges2shoes.

    Attributes:
        mode: of the adversarial loss, one of `GAN_MODES`.
        reconstruction: one of `RECONSTRUCTIONS`.
        gan, recon, distill: weights of the three terms.
        penalty: of the gradient penalty, for "wgangp"; the published recipes have none.

    Raises:
        ValueError: a field is out of range.
    """

    reconstruction: str = "l1"
    gan: float = 1.0
    recon: float = 100.0
    distill: float = 1.0
    penalty: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("reconstruction", self.reconstruction, RECONSTRUCTIONS)


PUBLISHED: dict[str, Objective] = {
    "horse2zebra": Objective("lsgan", recon=10, distill=0.01),
    "edges2shoes": Objective(),
    "cityscapes": Objective(),
    "map2sat": Objective(recon=10, distill=0.01),
}
PUBLISHED_PAIRS = PUBLISHED["edges2shoes"]


@dataclass(frozen=True)
class SPADEObjective(_Weights):
    """What a GauGAN student is asked for, as published; there is no reconstruction term."""

    gan: float = 1.0
    matching: float = 10.0
    perceptual: float = 10.0
    distill: float = 10.0


PUBLISHED_SPADE = SPADEObjective()


@dataclass(frozen=True)
class MUNITObjective(_Weights):
    """What a MUNIT student is asked for, as published."""

    mode: str = "lsgan"
    gan: float = 1.0
    image: float = 10.0
    content: float = 1.0
    style: float = 1.0


PUBLISHED_MUNIT = MUNITObjective()


def student_terms(
    answer: Answer,
    image: Tensor,
    target: Tensor | None,
    distance: Tensor | None,
    ask: Objective,
    perceptual: nn.Module | None = None,
) -> Terms:
    """Terms of a generator (equation of section 3.1), with their weights, and their sum "G".

    Args:
        answer: of the discriminator to `image`.
        image: the student's.
        target: the truth of a pair, or the teacher's image; None where `recon` is 0.
        distance: between features; None where `distill` is 0.
        ask: weights and kinds.
        perceptual: for that kind of reconstruction.
    """
    terms = {"G_gan": ask.gan * generator_loss(answer, ask.mode)}
    if target is not None and ask.recon > 0:
        close = reconstruction_loss(image, target.detach(), ask.reconstruction, perceptual)
        terms["G_recon"] = ask.recon * close
    if distance is not None and ask.distill > 0:
        terms["G_distill"] = ask.distill * distance
    return terms | {"G": _sum(terms)}


def discriminator_terms(fake: Answer, real: Answer, mode: str, share: float = 0.5) -> Terms:
    """Terms "D_fake" and "D_real", and "D", `share` times their sum: 1/2 for ResNets, else 1."""
    a, b = discriminator_losses(fake, real, mode)
    return {"D_fake": a, "D_real": b, "D": share * (a + b)}


def spade_terms(
    fake: Sequence[Sequence[Tensor]],
    real: Sequence[Sequence[Tensor]],
    ask: SPADEObjective,
    distance: Tensor | None = None,
    perceived: Tensor | None = None,
) -> Terms:
    """Terms of a GauGAN generator (section 3.3), with their weights, and their sum "G".

    Args:
        fake, real: all layers' outputs of the discriminator at each scale.
        ask: weights.
        distance: between features; none in a teacher's training.
        perceived: the perceptual difference.
    """
    terms = {"G_gan": ask.gan * generator_loss(fake, ask.mode)}
    if ask.matching > 0:
        terms["G_matching"] = ask.matching * feature_matching(fake, real)
    if perceived is not None and ask.perceptual > 0:
        terms["G_perceptual"] = ask.perceptual * perceived
    if distance is not None and ask.distill > 0:
        terms["G_distill"] = ask.distill * distance
    return terms | {"G": _sum(terms)}


def munit_terms(
    answer: Answer,
    image: Tensor,
    teacher_image: Tensor,
    content: Tensor | None,
    styles: tuple[Tensor, Tensor] | None,
    ask: MUNITObjective,
) -> Terms:
    """Terms of a MUNIT student (section 3.4), with their weights, and their sum "G".

    Args:
        answer: of the discriminator to `image`.
        image, teacher_image: of both generators.
        content: the distance of the content codes, through the learned map; None where its weight
            is 0.
        styles: codes of the student and of the teacher, in steps with a style from an image.
        ask: weights.
    """
    terms = {
        "G_gan": ask.gan * generator_loss(answer, ask.mode),
        "G_image": ask.image * reconstruction_loss(image, teacher_image.detach()),
    }
    if content is not None and ask.content > 0:
        terms["G_content"] = ask.content * content
    if styles is not None:
        terms["G_style"] = ask.style * reconstruction_loss(styles[0], styles[1].detach())
    return terms | {"G": _sum(terms)}


def _sum(terms: Terms) -> Terms:
    return sum(terms.values())  # type: ignore[return-value]
