"""What a student pays, and one step of its training, in all four families (section 3).

A student is any generator whose `forward(x, taps=True)` returns its images and the outputs of its
tapped layers; a supernet takes a configuration, too, and with a `space` one is drawn in every step.
The teacher is fixed and in evaluation mode. The discriminator starts, as published, with the
teacher's weights and goes on learning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from smallnets.data.translation import Translation
from smallnets.gan.features import FeatureMaps, KernelAlignment
from smallnets.gan.losses import gradient_penalty
from smallnets.gan.networks import ConfigSpace
from smallnets.gan.objectives import (
    PUBLISHED_MUNIT,
    PUBLISHED_PAIRS,
    PUBLISHED_SPADE,
    MUNITObjective,
    Objective,
    SPADEObjective,
    discriminator_terms,
    munit_terms,
    spade_terms,
    student_terms,
)
from smallnets.gan.playing import (
    GANTraining,
    ImagePool,
    Pictures,
    Terms,
    check_pairs,
    finite,
)
from smallnets.losses import check_finite

Config = tuple[int, ...]
REMEMBERED = 2 * 1024**3  # bytes up to which a teacher's answers are kept


def answered(generator: nn.Module, x: Tensor, config: Config | None) -> tuple[Tensor, list[Tensor]]:
    """A generator's images and the outputs of its tapped layers."""
    return generator(x, taps=True) if config is None else generator(x, config, taps=True)


def feature_maps(student: Any, teacher: Any) -> FeatureMaps:
    """Maps from a student's tapped layers, at its widest, to its teacher's.

    Their weights come from torch's global generator, see `smallnets.training.seeded`.
    """
    return FeatureMaps(student.tap_channels(), teacher.tap_channels())


class _Answers:
    """What a teacher says of all training images, as they are and mirrored."""

    def __init__(self) -> None:
        self.image: Tensor | None = None
        self.taps: list[Tensor] = []
        self.count = 0

    @torch.no_grad()
    def prepare(self, teacher: nn.Module, data: Translation, both: bool, device: Any) -> None:
        """Compute them, unless they would take too much memory."""
        self.image, self.taps, self.count = None, [], len(data.a_train)
        image, taps = teacher(data.a(data.a_train[:1]).to(device), taps=True)
        size = sum(one.numel() * one.element_size() for one in (image, *taps))
        if size * self.count * (1 + both) > REMEMBERED:
            return
        many = self.count * (1 + both)
        kept = [one.new_empty(many, *one.shape[1:]) for one in (image, *taps)]
        done = 0
        for mirrored in (False, True)[: 1 + both]:
            for part in data.a_train.split(32):
                inputs = data.a(part).to(device)
                image, taps = teacher(inputs.flip(3) if mirrored else inputs, taps=True)
                for place, one in zip(kept, (image, *taps), strict=True):
                    place[done : done + len(one)] = one
                done += len(part)
        self.image, *self.taps = kept

    @torch.no_grad()
    def __call__(self, teacher: nn.Module, batch: Pictures) -> tuple[Tensor, list[Tensor]]:
        """Images and features of a batch of domain A."""
        if self.image is None:
            return teacher(batch.a, taps=True)
        places = (batch.which + self.count * batch.mirrored).to(self.image.device)
        return self.image[places], [one[places] for one in self.taps]


@dataclass(frozen=True, eq=False)
class _Compression:
    """What the games of all families have in common.

    Attributes:
        student: the generator that learns, a supernet if there is a `space`.
        discriminator: that learns, too.
        teacher: a trained generator with taps; None where no term needs it.
        features: maps of the tapped layers, learned with the student.
        space: of a supernet's configurations, one of which learns in every step; None trains the
            student as it is.
        bias: probabilities of every gene's widths, see `ConfigSpace.sample`; None is uniform.
    """

    student: nn.Module
    discriminator: nn.Module
    teacher: nn.Module | None = None
    features: FeatureMaps | KernelAlignment | None = None
    space: ConfigSpace | None = None
    bias: tuple[tuple[float, ...], ...] | None = None

    def trained(self) -> dict[str, nn.Module]:
        learned = {"student": self.student, "discriminator": self.discriminator}
        return learned if self.features is None else learned | {"features": self.features}

    def fixed(self) -> list[nn.Module]:
        return [] if self.teacher is None else [self.teacher]

    def memory(self) -> dict[str, ImagePool]:
        return {}

    def optimizers(self, training: GANTraining) -> dict[str, Optimizer]:
        return {
            "G": training.adam(self.student, self.features),
            "D": training.adam(self.discriminator, discriminator=True),
        }

    @cached_property
    def answers(self) -> _Answers:
        """What the teacher said of the training images."""
        return _Answers()

    def prepare(self, data: Translation, training: GANTraining, device: torch.device) -> None:
        flips = data.flips if training.flip is None else training.flip
        teacher = self.asked()
        if teacher is not None and training.remember and not training.changes_images:
            self.answers.prepare(teacher, data, bool(flips), device)

    def asked(self) -> nn.Module | None:
        """The teacher, if a term needs its answers."""
        return self.teacher

    def config(self, batch: Pictures) -> Config | None:
        """The configuration that learns in this step."""
        return None if self.space is None else self.space.sample(batch.draw, self.bias)

    def _checked(self, distill: float) -> None:
        if distill > 0 and self.teacher is None:
            raise ValueError(f"a distillation weight of {distill} needs a teacher; got None")
        if distill > 0 and self.features is None:
            raise ValueError(f"a distillation weight of {distill} needs features; got None")
        if self.teacher is not None:
            mine = {id(one) for one in self.student.parameters()}
            if any(id(one) in mine for one in self.teacher.parameters()):
                raise ValueError("teacher must not share parameters with the student; it does")
            self.teacher.eval().requires_grad_(False)

    def _update_both(self, terms: Terms, optimizers: Mapping[str, Optimizer]) -> None:
        """The discriminator's update, then the student's.

        The student's gradient comes through the discriminator before its update, so one pass over
        the student's images serves both losses.
        """
        for one in optimizers.values():
            one.zero_grad()
        terms["D"].backward(inputs=list(self.discriminator.parameters()), retain_graph=True)
        terms["G"].backward(inputs=self._learned())
        optimizers["D"].step()
        optimizers["G"].step()

    def _learned(self) -> list[nn.Parameter]:
        parts = [self.student, *([] if self.features is None else [self.features])]
        return [one for part in parts for one in part.parameters()]


@dataclass(frozen=True, eq=False)
class Compression(_Compression):
    """The game of pix2pix and CycleGAN students.

    With pairs, the target is the truth and the discriminator sees inputs and images together.
    Without, the target is the teacher's image, which makes a problem of pairs of it: there is no
    second generator and no cycle, and the discriminator sees images alone.

    Attributes:
        ask: what is asked for.
        paired: whether data are pairs.
        perceptual: for that kind of reconstruction.

    Raises:
        ValueError: no teacher where a term needs one, no maps for distillation, or a teacher that
            shares parameters with the student.
    """

    ask: Objective = PUBLISHED_PAIRS
    paired: bool = True
    perceptual: nn.Module | None = None

    def __post_init__(self) -> None:
        self._checked(self.ask.distill)
        if not self.paired and self.ask.recon > 0 and self.teacher is None:
            raise ValueError(
                "without pairs the teacher's images are the target; got no teacher and a "
                f"reconstruction weight of {self.ask.recon}"
            )
        if self.ask.reconstruction == "perceptual" and self.perceptual is None:
            raise ValueError("perceptual must be a PerceptualLoss for that kind; got None")

    def fixed(self) -> list[nn.Module]:
        return [one for one in (self.teacher, self.perceptual) if one is not None]

    def prepare(self, data: Translation, training: GANTraining, device: torch.device) -> None:
        """The teacher's answers; ValueError if pairs are needed and there are none."""
        if self.paired:
            check_pairs(data)
        super().prepare(data, training, device)

    def asked(self) -> nn.Module | None:
        pseudo = not self.paired and self.ask.recon > 0
        return self.teacher if self.ask.distill > 0 or pseudo else None

    def seen(self, a: Tensor, image: Tensor) -> Tensor:
        """What the discriminator is shown."""
        return torch.cat([a, image], dim=1) if self.paired else image

    def step(self, batch: Pictures, optimizers: Mapping[str, Optimizer]) -> Terms:
        """Losses of both; then the discriminator's update, then the student's."""
        ask, config, teacher = self.ask, self.config(batch), self.asked()
        target, distance = batch.b if self.paired else None, None
        image, taps = answered(self.student, batch.a, config)
        if teacher is not None:
            wanted, layers = self.answers(teacher, batch)
            target = batch.b if self.paired else wanted
            if ask.distill > 0 and self.features is not None:
                distance = self.features(taps, layers)[0]
        shown, truth = self.seen(batch.a, image), self.seen(batch.a, batch.b)
        answer = self.discriminator(shown)
        judged = discriminator_terms(answer, self.discriminator(truth), ask.mode)
        if ask.penalty > 0:
            more = gradient_penalty(
                self.discriminator, truth, shown, batch.draw, weight=ask.penalty
            )
            judged |= {"D_penalty": more, "D": judged["D"] + more}
        terms = student_terms(answer, image, target, distance, ask, self.perceptual)
        terms = finite(judged | terms, batch.step)
        self._update_both(terms, optimizers)
        return terms


@dataclass(frozen=True, eq=False)
class SPADECompression(_Compression):
    """The game of GauGAN students: the generator first; its new images teach the discriminator.

    Attributes:
        ask: what is asked for.
        perceptual: a `PerceptualLoss`; None leaves its term out, which `ask` has to say.

    Raises:
        ValueError: as `Compression`, or no perceptual loss where its weight is above 0.
    """

    ask: SPADEObjective = PUBLISHED_SPADE
    perceptual: nn.Module | None = None

    def __post_init__(self) -> None:
        self._checked(self.ask.distill)
        check_perceptual(self.ask, self.perceptual)

    def fixed(self) -> list[nn.Module]:
        return [one for one in (self.teacher, self.perceptual) if one is not None]

    def prepare(self, data: Translation, training: GANTraining, device: torch.device) -> None:
        """The teacher's answers; ValueError if there are no pairs."""
        check_pairs(data)
        super().prepare(data, training, device)

    def asked(self) -> nn.Module | None:
        return self.teacher if self.ask.distill > 0 else None

    def step(self, batch: Pictures, optimizers: Mapping[str, Optimizer]) -> Terms:
        config, teacher, distance = self.config(batch), self.asked(), None
        image, taps = answered(self.student, batch.a, config)
        if teacher is not None and self.features is not None:
            distance = self.features(taps, self.answers(teacher, batch)[1])[0]

        def again() -> Tensor:
            return answered(self.student, batch.a, config)[0]

        return spade_step(
            self.discriminator, self._learned(), batch, image, again, self.ask, optimizers,
            distance, self.perceptual,
        )  # fmt: skip


def check_perceptual(ask: SPADEObjective, perceptual: nn.Module | None) -> None:
    """Raise ValueError if a perceptual loss is asked for and there is none."""
    if ask.perceptual > 0 and perceptual is None:
        raise ValueError(
            f"a perceptual weight of {ask.perceptual} needs a PerceptualLoss; got None"
        )


def judged_together(
    discriminator: nn.Module, a: Tensor, fake: Tensor, real: Tensor
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """All layers' outputs for fake and for real images, from one pass over both."""
    both = torch.cat([torch.cat([a, fake], 1), torch.cat([a, real], 1)])
    layers = discriminator(both)
    n = len(a)
    return [[x[:n] for x in scale] for scale in layers], [
        [x[n:] for x in scale] for scale in layers
    ]


def spade_step(
    discriminator: nn.Module,
    learned: list[nn.Parameter],
    batch: Pictures,
    image: Tensor,
    again: Any,
    ask: SPADEObjective,
    optimizers: Mapping[str, Optimizer],
    distance: Tensor | None,
    perceptual: nn.Module | None,
) -> Terms:
    """One step of GauGAN's training, of a teacher or of a student.

    Args:
        discriminator: returns all layers at each scale.
        learned: the generator's parameters, and those of maps.
        batch: what is learned from.
        image: the generator's.
        again: the generator's images after its update.
        ask: weights.
        optimizers: "G" and "D".
        distance: between features, or None.
        perceptual: or None.
    """
    fake, real = judged_together(discriminator, batch.a, image, batch.b)
    perceived = None
    if perceptual is not None and ask.perceptual > 0:
        perceived = perceptual(image, batch.b)
    terms = finite(spade_terms(fake, real, ask, distance, perceived), batch.step)
    optimizers["G"].zero_grad()
    terms["G"].backward(inputs=learned)
    optimizers["G"].step()
    with torch.no_grad():
        image = again()
    fake, real = judged_together(discriminator, batch.a, image, batch.b)
    judged = finite(discriminator_terms(fake, real, ask.mode, share=1.0), batch.step)
    optimizers["D"].zero_grad()
    judged["D"].backward()
    optimizers["D"].step()
    return terms | judged


@dataclass(frozen=True, eq=False)
class MUNITCompression(_Compression):
    """The game of MUNIT students, of one direction.

    In odd steps styles are read off a real image of B, by the teacher and by the student, and the
    student's has to be the teacher's; in even ones both get the same random style. A supernet is
    updated after its discriminator, as the ResNets are; a single student before it.

    Attributes:
        ask: what is asked for.

    Raises:
        ValueError: as `Compression`, or anything but `FeatureMaps` for content codes.
    """

    ask: MUNITObjective = PUBLISHED_MUNIT

    def __post_init__(self) -> None:
        self._checked(self.ask.content)
        if self.teacher is None:
            raise ValueError("a MUNIT student needs a teacher; got None")
        if not isinstance(self.features, FeatureMaps | None):
            kind = type(self.features).__name__
            raise ValueError(f"features of a MUNIT student must be FeatureMaps; got {kind}")

    def prepare(self, data: Translation, training: GANTraining, device: torch.device) -> None:
        """Nothing: the teacher's images depend on the styles of a step."""

    def step(self, batch: Pictures, optimizers: Mapping[str, Optimizer]) -> Terms:
        assert self.teacher is not None
        config, teacher, student = self.config(batch), self.teacher, self.student
        own = (batch.b, config) if config is not None else (batch.b,)
        styles = None
        with torch.no_grad():
            if batch.step % 2:
                style = teacher.style(batch.b)
            else:
                shape = (len(batch.a), teacher.style_dim, 1, 1)
                style = torch.randn(shape, generator=batch.draw).to(batch.a)
            wanted, layers = teacher(batch.a, style=style, taps=True)
        mine = style
        if batch.step % 2:
            mine = student.style(*own)
            styles = mine, style
        named = {} if config is None else {"config": config}
        image, taps = student(batch.a, style=mine, taps=True, **named)
        content = None
        if isinstance(self.features, FeatureMaps) and self.ask.content > 0:
            content = self.features(taps, layers, absolute=True)[0]
        answer = self.discriminator(image)
        terms = munit_terms(answer, image, wanted, content, styles, self.ask)
        if self.space is not None:
            judged = discriminator_terms(answer, self.discriminator(batch.b), self.ask.mode, 1.0)
            terms = finite(judged | terms, batch.step)
            self._update_both(terms, optimizers)
            return terms
        optimizers["G"].zero_grad()
        finite(terms, batch.step)["G"].backward(inputs=self._learned())
        optimizers["G"].step()
        answer = self.discriminator(image.detach())
        judged = discriminator_terms(answer, self.discriminator(batch.b), self.ask.mode, 1.0)
        optimizers["D"].zero_grad()
        finite(judged, batch.step)["D"].backward()
        optimizers["D"].step()
        return terms | judged


Student = Compression | SPADECompression | MUNITCompression


def check_images(name: str, images: Tensor) -> None:
    """Raise ValueError unless these are finite images (n, channels, height, width), n above 0."""
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"{name} must be images (n, channels, height, width); got {tuple(images.shape)}"
        )
    check_finite(name, images)
