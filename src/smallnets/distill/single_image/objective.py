"""Distilling from patches: what is asked of the student in every step, and the whole training.

    photograph -> patches -> light view -> normalised -> CutMix -> x
    L = KL(teacher(x) || student(x))

No label and no real image occurs in it. The teacher stays in evaluation mode, without gradient; the
student starts from random weights.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.batches import Batches
from smallnets.data import Dataset
from smallnets.distill.single_image.losses import LOSSES, agreement_rate, imitation_loss
from smallnets.distill.single_image.mixing import MIXINGS, mixed
from smallnets.distill.single_image.streams import (
    Generator,
    fresh_batches,
    pool_batches,
    unit,
)
from smallnets.distill.single_image.views import (
    CIFAR_VIEW,
    CLIP_VIEW,
    IMAGENET_VIEW,
    TrainingView,
)
from smallnets.measure import evaluating
from smallnets.training import (
    Batch,
    TrainSettings,
    check_apart,
    check_network,
    fit,
    teaching,
)


@dataclass(frozen=True)
class Imitation:
    """What the student is asked for; the defaults are those of the published CIFAR code.

    Attributes:
        loss: one of `LOSSES`.
        temperature: of "kl" and "top_k".
        squared: multiply these by the squared temperature. The published code does not.
        k: of "top_k".
        mixing: one of `MIXINGS`: CutMix with partners at random or the batch in reverse, MixUp,
            or none.
        alpha: of CutMix's Beta distribution.
        view: light augmentation in every step.

    Raises:
        ValueError: a field is out of range.
    """

    loss: str = "kl"
    temperature: float = 8.0
    squared: bool = False
    k: int = 1
    mixing: str = "cutmix_reverse"
    alpha: float = 0.25
    view: TrainingView = CIFAR_VIEW

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.one_of("loss", self.loss, LOSSES)
        checks.above("temperature", self.temperature, 0)
        checks.whole("k", self.k, 1)
        checks.one_of("mixing", self.mixing, MIXINGS)
        checks.above("alpha", self.alpha, 0)


# What the published code asks for: images of 32 pixels (CIFAR), of 256 (ImageNet), and clips; but
# `TrainingView` says what the views of the last two do otherwise.
PUBLISHED = {
    "small": Imitation(),
    "large": Imitation(mixing="cutmix", alpha=1.0, view=IMAGENET_VIEW),
    "video": Imitation(temperature=5.0, mixing="cutmix", alpha=1.0, view=CLIP_VIEW),
}


class Normalise(nn.Module):
    """Images, floating point in [0, 1] or uint8, as the teacher's data are normalised.

    Args:
        mean, std: (channels,), of the data that the teacher was trained on; never those of the
            patches.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.detach().clone().view(-1, 1, 1))
        self.register_buffer("std", std.detach().clone().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width), or clips with frames before the height."""
        x = unit(x) if x.dtype == torch.uint8 else x
        mean, std = self.mean, self.std
        if x.dim() == 5:
            mean, std = mean[:, None], std[:, None]
        return (x - mean.to(x)) / std.to(x)


@dataclass(frozen=True)
class SingleImageDistillation:
    """Objective of a student for `smallnets.training.fit`: one step of the method.

    Attributes:
        teacher: kept in evaluation mode and without gradient.
        normalise: as the teacher's data are.
        imitation: what is asked for.
    """

    teacher: nn.Module
    normalise: Normalise
    imitation: Imitation

    def __call__(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Terms "loss" and "agreement" (with the teacher, on this batch) for images in [0, 1]."""
        ask = self.imitation
        noise = batch.noise
        if noise is None:
            raise ValueError("a batch must have a generator to draw views from; got noise None")
        images = ask.view(batch.images, noise)
        shown = mixed(self.normalise(images), ask.mixing, ask.alpha, noise)
        with evaluating(self.teacher), torch.no_grad():
            target = self.teacher(shown)
        answer = student(shown)
        loss = imitation_loss(
            answer, target, ask.loss, temperature=ask.temperature, squared=ask.squared, k=ask.k
        )
        return {"loss": loss, "agreement": agreement_rate(answer.detach(), target)}


def distill_from_image(
    student: nn.Module,
    teacher: nn.Module,
    patches: Generator | Batches | Tensor,
    dataset: Dataset | Normalise,
    imitation: Imitation,
    training: TrainSettings,
    *,
    seed: int,
    steps: int | None = None,
    cache_dir: Path | None = None,
    label: str = "patches",
) -> list[dict[str, float]]:
    """Train a student in place to imitate a teacher on patches, and return every epoch's terms.

    A falling loss says nothing about real images: measure the student on them.

    Published trainings: 1,000 epochs of 50,000 patches, 512 a step, Adam with a constant rate of
    1e-3 and no weight decay (declared, but without effect) for CIFAR; 200 epochs of 1.28 million
    patches, 512 a step, AdamW with 0.01 and decay 5e-4, constant unless asked otherwise, for
    ImageNet; 400 epochs, 128 clips a step, AdamW with 1e-3, a cosine after 5 epochs of warm-up.

    Args:
        student: trained in place.
        teacher: left as it is, bit for bit.
        patches: a `PatchGenerator` or another, for patches that are never seen twice; a pool, uint8
            (n, channels, height, width), or (n, channels, frames, height, width) for clips, see
            `pool_batches`; or batches in [0, 1], as from `fresh_batches`, with or without labels.
        dataset: that the teacher was trained on, for its normalisation; or that alone.
        imitation: what is asked for.
        training: how to train; its `augmentation` is not used, `imitation.view` is.
        seed: of patches, their views and mixtures.
        steps: of an epoch. None is 100 where patches come from a generator, and one pass over a
            pool; batches have their own.
        cache_dir, label: see `smallnets.training.fit`.

    Raises:
        ValueError: a pool that is smaller than a batch, without steps; steps for batches that have
            their own; teacher or student do not take the patches, have different classes, share
            parameters or have weights of different types; a dataset with other channels than the
            patches; or batches that are none.
    """
    normalise = Normalise(dataset.mean, dataset.std) if isinstance(dataset, Dataset) else dataset
    batches = _batches(patches, training.batch_size, steps)
    glance = batches.glance()
    if glance.dim() < 4 or not glance.is_floating_point():
        raise ValueError(
            "patches must be floating-point images (batch, channels, height, width) from 0 to 1; "
            f"got {glance.dtype} {tuple(glance.shape)}"
        )
    channels = normalise.mean.numel()
    if glance.shape[1] != channels:
        raise ValueError(
            f"patches must have the {channels} channels of the teacher's images; "
            f"got {glance.shape[1]}"
        )
    if glance.min() < 0 or glance.max() > 1:
        raise ValueError(
            "patches must be images from 0 to 1, not yet normalised; "
            f"got {glance.min():g} to {glance.max():g}"
        )
    shown = normalise(glance)
    view = imitation.view
    if view.size is not None:
        shown = shown.new_zeros(*shown.shape[:-2], view.size, view.size)
    classes = check_network("teacher", teacher, shown).logits.shape[-1]
    own = check_network("student", student, shown).logits.shape[-1]
    if own != classes:
        raise ValueError(f"student and teacher must have the same classes; got {own} and {classes}")
    check_apart(student, teacher)
    layout = torch.channels_last if glance.dim() == 4 else None
    with teaching([teacher], training.accelerator, layout):
        return fit(
            student,
            batches.without_labels(),
            replace(training, augmentation=None),
            seed=seed,
            objective=SingleImageDistillation(teacher, normalise, imitation),
            cache_dir=cache_dir,
            label=label,
        )


def _batches(patches: Generator | Batches | Tensor, batch: int, steps: int | None) -> Batches:
    if isinstance(patches, Tensor):
        return pool_batches(patches, batch, steps)
    if isinstance(patches, Batches):
        if steps is not None:
            raise ValueError(f"batches have their own steps, {patches.steps}; got steps {steps}")
        return patches
    if not hasattr(patches, "take"):
        raise ValueError(
            "patches must be a generator of patches, a pool of uint8 images, or Batches; "
            f"got {type(patches).__name__}"
        )
    return fresh_batches(patches, batch, 100 if steps is None else steps)
