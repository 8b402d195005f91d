"""What is replayed: images of a generator, and two controls, noise and real old images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from smallnets.data import Augmentation, Batches, Dataset
from smallnets.synthesize.replay.generation import generate
from smallnets.synthesize.replay.tasks import Task
from smallnets.training import seeded


class ReplaySource(Protocol):
    """Whatever gives images as the classifier takes them."""

    def draw(self, count: int, like: Tensor, noise: torch.Generator) -> Tensor:
        """Images (count, channels, height, width) on the device and in the type of `like`."""


@dataclass(frozen=True, eq=False)
class GeneratedImages:
    """Fresh images of a generator, see `generate`."""

    generator: nn.Module
    latent: int
    mode: str = "batch"

    def draw(self, count: int, like: Tensor, noise: torch.Generator) -> Tensor:
        return generate(self.generator, count, noise, self.latent, self.mode).to(like)


@dataclass(frozen=True, eq=False)
class NoiseImages:
    """Normal noise, pixel by pixel: the control for all that spread-out inputs do by themselves."""

    def draw(self, count: int, like: Tensor, noise: torch.Generator) -> Tensor:
        shape = (count, *like.shape[1:])
        return torch.randn(shape, generator=noise, device=noise.device).to(like)


@dataclass(frozen=True, eq=False)
class RealImages:
    """Training images of earlier tasks, each time other ones: the upper bound of replay.

    Attributes:
        pool: images (n, channels, height, width): uint8, or floating point as the network takes
            them.
        mean, std: of uint8 images, (channels,).
        view: their augmentation.
    """

    pool: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None
    view: Augmentation | None = None

    def draw(self, count: int, like: Tensor, noise: torch.Generator) -> Tensor:
        which = torch.randint(len(self.pool), (count,), generator=noise, device=noise.device)
        images = self.pool[which.to(self.pool.device)].to(like.device)
        if self.mean is not None and self.std is not None:
            mean, std = (one.to(like.device).view(-1, 1, 1) for one in (self.mean, self.std))
            images = (images.float() / 255 - mean) / std
        images = images.to(like)
        return images if self.view is None else self.view(images, noise)


def training_tensors(task: Task) -> tuple[Tensor, Tensor]:
    """All training images and labels of a task, uint8 of a `Dataset`, else as batches give them."""
    if isinstance(task.train, Dataset):
        return task.train.x_train, task.train.y_train
    assert isinstance(task.train, Batches)
    with seeded(0):  # a loader may shuffle
        images, labels = zip(*task.train, strict=True)
    return torch.cat(images), torch.cat(labels)


def real_images(tasks: Sequence[Task], view: Augmentation | None) -> RealImages:
    """The training images of tasks as a source.

    Args:
        tasks: one or more.
        view: augmentation of a `Dataset`'s images; those of batches are as their loader gives them.
    """
    pool = torch.cat([training_tensors(task)[0] for task in tasks])
    first = tasks[0].train
    if not isinstance(first, Dataset):
        return RealImages(pool)
    return RealImages(pool, first.mean, first.std, view)
