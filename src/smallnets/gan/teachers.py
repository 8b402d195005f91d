"""Training the large generators that are compressed: pix2pix, CycleGAN, GauGAN and MUNIT.

Losses and order of updates are those of the official code (section 3.2). Each is a game for
`smallnets.gan.playing.play`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from smallnets import checks
from smallnets.data.translation import Translation
from smallnets.gan.compression import check_perceptual, spade_step
from smallnets.gan.losses import GAN_MODES, generator_loss, reconstruction_loss
from smallnets.gan.objectives import (
    PUBLISHED_SPADE,
    SPADEObjective,
    discriminator_terms,
)
from smallnets.gan.playing import (
    GANTraining,
    ImagePool,
    Pictures,
    Terms,
    check_pairs,
    finite,
)


class _Teacher:
    """A game of networks that make images and of networks that judge them, with nothing fixed,
    remembered or prepared.
    """

    makers: ClassVar[tuple[str, ...]]
    judges: ClassVar[tuple[str, ...]]

    def trained(self) -> dict[str, nn.Module]:
        return {name: getattr(self, name) for name in (*self.makers, *self.judges)}

    def optimizers(self, training: GANTraining) -> dict[str, Optimizer]:
        makers, judges = ([getattr(self, n) for n in side] for side in (self.makers, self.judges))
        return {"G": training.adam(*makers), "D": training.adam(*judges, discriminator=True)}

    def fixed(self) -> list[nn.Module]:
        return []

    def memory(self) -> dict[str, ImagePool]:
        return {}

    def prepare(self, data: Translation, training: GANTraining, device: torch.device) -> None:
        """Nothing is computed before."""


@dataclass(frozen=True, eq=False)
class _TeacherOfPairs(_Teacher):
    """One generator and one discriminator, which takes the channels of both domains."""

    makers = ("generator",)
    judges = ("discriminator",)

    generator: nn.Module
    discriminator: nn.Module

    def prepare(self, data: Translation, training: GANTraining, device: torch.device) -> None:
        """ValueError if there are no pairs."""
        check_pairs(data)


def _update(optimizer: Optimizer, loss: Tensor, parameters: list[nn.Parameter]) -> None:
    optimizer.zero_grad()
    loss.backward(inputs=parameters)
    optimizer.step()


def _parameters(*networks: nn.Module) -> list[nn.Parameter]:
    return [one for network in networks for one in network.parameters()]


@dataclass(frozen=True, eq=False)
class Pix2PixTeacher(_TeacherOfPairs):
    """Pairs: an adversarial loss on inputs and images together, and the distance to the truth.

    The discriminator is updated first; the generator then meets the new one. Without a
    discriminator's answer in it (`gan` 0) this is plain regression; any generator will do, so it
    also trains a small one from scratch, the simplest rival of compression.

    Attributes:
        generator, discriminator: what learns; the second takes the channels of both domains.
        mode: of the adversarial loss.
        gan, recon: weights; 10 is published for maps.
        reconstruction: kind of distance.
        perceptual: for that kind.
    """

    mode: str = "hinge"
    gan: float = 1.0
    recon: float = 100.0
    reconstruction: str = "l1"
    perceptual: nn.Module | None = None

    def __post_init__(self) -> None:
        checks.one_of("mode", self.mode, GAN_MODES)
        checks.at_least("gan", self.gan, 0)
        checks.at_least("recon", self.recon, 0)

    def fixed(self) -> list[nn.Module]:
        return [] if self.perceptual is None else [self.perceptual]

    def step(self, batch: Pictures, optimizers: Mapping[str, Optimizer]) -> Terms:
        image = self.generator(batch.a)
        fake = self.discriminator(torch.cat([batch.a, image.detach()], 1))
        real = self.discriminator(torch.cat([batch.a, batch.b], 1))
        judged = finite(discriminator_terms(fake, real, self.mode), batch.step)
        _update(optimizers["D"], judged["D"], _parameters(self.discriminator))
        answer = self.discriminator(torch.cat([batch.a, image], 1))
        terms = {
            "G_gan": self.gan * generator_loss(answer, self.mode),
            "G_recon": self.recon
            * reconstruction_loss(image, batch.b, self.reconstruction, self.perceptual),
        }
        terms["G"] = terms["G_gan"] + terms["G_recon"]
        finite(terms, batch.step)
        _update(optimizers["G"], terms["G"], _parameters(self.generator))
        return judged | terms


@dataclass(frozen=True, eq=False)
class CycleGANTeacher(_Teacher):
    """No pairs: two generators whose round trips must come back (Zhu et al., 2017).

    The generators are updated first; discriminators see images from pools.

    Attributes:
        forth, back: generators A -> B and B -> A.
        judge_a, judge_b: discriminators of the images of each domain.
        mode: of the adversarial loss.
        cycle: weight of both round trips' mean absolute errors.
        identity: weight of what a generator changes in images of its own target, in units of
            `cycle`; needs domains with the same channels.
        pool: images that each pool holds.
    """

    makers = ("forth", "back")
    judges = ("judge_a", "judge_b")

    forth: nn.Module
    back: nn.Module
    judge_a: nn.Module
    judge_b: nn.Module
    mode: str = "lsgan"
    cycle: float = 10.0
    identity: float = 0.5
    pool: int = 50
    pools: dict[str, ImagePool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.one_of("mode", self.mode, GAN_MODES)
        checks.at_least("cycle", self.cycle, 0)
        checks.at_least("identity", self.identity, 0)
        self.pools.update(a=ImagePool(self.pool), b=ImagePool(self.pool))

    def memory(self) -> dict[str, ImagePool]:
        return self.pools

    def step(self, batch: Pictures, optimizers: Mapping[str, Optimizer]) -> Terms:
        a, b = batch.a, batch.b
        fake_b, fake_a = self.forth(a), self.back(b)
        terms = {
            "G_gan_b": generator_loss(self.judge_b(fake_b), self.mode),
            "G_gan_a": generator_loss(self.judge_a(fake_a), self.mode),
            "G_cycle_a": self.cycle * F.l1_loss(self.back(fake_b), a),
            "G_cycle_b": self.cycle * F.l1_loss(self.forth(fake_a), b),
        }
        if self.identity > 0:
            weight = self.cycle * self.identity
            terms["G_identity_b"] = weight * F.l1_loss(self.forth(b), b)
            terms["G_identity_a"] = weight * F.l1_loss(self.back(a), a)
        terms["G"] = sum(terms.values())  # type: ignore[assignment]
        finite(terms, batch.step)
        _update(optimizers["G"], terms["G"], _parameters(self.forth, self.back))
        old_a, old_b = (
            self.pools[name](fake, batch.draw) for name, fake in (("a", fake_a), ("b", fake_b))
        )
        judged = _judge_both(self, old_a, old_b, batch, optimizers["D"], share=0.5)
        return terms | judged


@dataclass(frozen=True, eq=False)
class GauGANTeacher(_TeacherOfPairs):
    """Label maps to pictures: hinge, feature matching and perceptual loss (Park et al., 2019).

    Attributes:
        generator, discriminator: what learns; the second returns all layers at each scale.
        ask: weights; that of distillation is not used.
        perceptual: a `PerceptualLoss`; None where its weight is 0.

    Raises:
        ValueError: no perceptual loss where its weight is above 0.
    """

    ask: SPADEObjective = PUBLISHED_SPADE
    perceptual: nn.Module | None = None

    def __post_init__(self) -> None:
        check_perceptual(self.ask, self.perceptual)

    def fixed(self) -> list[nn.Module]:
        return [] if self.perceptual is None else [self.perceptual]

    def step(self, batch: Pictures, optimizers: Mapping[str, Optimizer]) -> Terms:
        return spade_step(
            self.discriminator, _parameters(self.generator), batch, self.generator(batch.a),
            lambda: self.generator(batch.a), self.ask, optimizers, None, self.perceptual,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class MUNITTeacher(_Teacher):
    """Two domains with many looks each: content and style apart (Huang et al., 2018).

    Discriminators are updated first.

    Attributes:
        of_a, of_b: an autoencoder of each domain, with `encode(x)` -> (content, style) and
            `decode(content, style)`.
        judge_a, judge_b: discriminators of each domain, of several scales.
        mode: of the adversarial loss.
        gan, image, style, content: weights of the adversarial terms, and of the mean absolute
            errors of reconstructed images, styles and contents.
    """

    makers = ("of_a", "of_b")
    judges = ("judge_a", "judge_b")

    of_a: nn.Module
    of_b: nn.Module
    judge_a: nn.Module
    judge_b: nn.Module
    mode: str = "lsgan"
    gan: float = 1.0
    image: float = 10.0
    style: float = 1.0
    content: float = 1.0

    def __post_init__(self) -> None:
        checks.one_of("mode", self.mode, GAN_MODES)
        for name in ("gan", "image", "style", "content"):
            checks.at_least(name, getattr(self, name), 0)

    def step(self, batch: Pictures, optimizers: Mapping[str, Optimizer]) -> Terms:
        a, b = batch.a, batch.b

        def drawn() -> Tensor:
            shape = (len(a), self.of_a.style_dim, 1, 1)
            return torch.randn(shape, generator=batch.draw).to(a)

        style_a, style_b = drawn(), drawn()
        content_a, own_a = self.of_a.encode(a)
        content_b, own_b = self.of_b.encode(b)
        fake_a = self.of_a.decode(content_b, style_a)
        fake_b = self.of_b.decode(content_a, style_b)
        judged = _judge_both(
            self, fake_a.detach(), fake_b.detach(), batch, optimizers["D"], share=1.0
        )

        again_b, back_style_a = self.of_a.encode(fake_a)
        again_a, back_style_b = self.of_b.encode(fake_b)
        terms = {
            "G_image_a": self.image * F.l1_loss(self.of_a.decode(content_a, own_a), a),
            "G_image_b": self.image * F.l1_loss(self.of_b.decode(content_b, own_b), b),
            "G_style_a": self.style * F.l1_loss(back_style_a, style_a),
            "G_style_b": self.style * F.l1_loss(back_style_b, style_b),
            "G_content_a": self.content * F.l1_loss(again_a, content_a),
            "G_content_b": self.content * F.l1_loss(again_b, content_b),
            "G_gan_a": self.gan * generator_loss(self.judge_a(fake_a), self.mode),
            "G_gan_b": self.gan * generator_loss(self.judge_b(fake_b), self.mode),
        }
        terms["G"] = sum(terms.values())  # type: ignore[assignment]
        finite(terms, batch.step)
        _update(optimizers["G"], terms["G"], _parameters(self.of_a, self.of_b))
        return judged | terms


def _judge_both(
    teacher: CycleGANTeacher | MUNITTeacher,
    fake_a: Tensor,
    fake_b: Tensor,
    batch: Pictures,
    optimizer: Optimizer,
    share: float,
) -> Terms:
    """Update the discriminators of both domains, with images that carry no gradient; the terms
    before.
    """
    judged: Terms = {}
    for name, judge, fake, real in (
        ("a", teacher.judge_a, fake_a, batch.a),
        ("b", teacher.judge_b, fake_b, batch.b),
    ):
        found = discriminator_terms(judge(fake), judge(real), teacher.mode, share)
        judged |= {f"{key}_{name}": value for key, value in found.items()}
    finite(judged, batch.step)
    loss = judged["D_a"] + judged["D_b"]
    _update(optimizer, loss, _parameters(teacher.judge_a, teacher.judge_b))
    return judged
