"""From one photograph to what a training reads: a pool in memory, or patches without end.

A `PatchGenerator` gives patches by their numbers. A pool is its first n patches, an endless stream
its patches one after the other, and `FreshBatches` and `PoolBatches` are both as a training loop
(`smallnets.training.fit`, or any other method of the library) reads batches.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from smallnets import checks
from smallnets.batches import Batches
from smallnets.distill.single_image.parameters import (
    PatchParameters,
    first_square,
    sample_patch_parameters,
)
from smallnets.distill.single_image.reference import jpeg_round_trip
from smallnets.distill.single_image.render import Pyramid, render_patches
from smallnets.distill.single_image.settings import PUBLISHED_PATCHES, PatchSettings
from smallnets.storage import atomic_path, one_line, source_digest, user_path

AHEAD = 4 * 2**20  # bytes of examples that are made at a time: small batches cost twice as much


class Generator(Protocol):
    """Whatever gives examples by their numbers, always the same ones."""

    @property
    def key(self) -> str:
        """A text that changes when any example would."""

    def take(self, numbers: Sequence[int] | range | Tensor) -> Tensor:
        """Examples uint8 (n, channels, height, width); clips have frames before the height."""


class PatchGenerator:
    """The patches of one photograph, or of several of one size, by their numbers.

    Args:
        image: see `Pyramid`.
        settings: of the patches.
        seed: another seed gives other patches.

    Raises:
        ValueError: no photograph, see `as_photographs`, or one that is too small.
    """

    def __init__(
        self, image: Tensor, settings: PatchSettings = PUBLISHED_PATCHES, seed: int = 0
    ) -> None:
        self.pyramid = Pyramid(image)
        self.settings = settings
        self.seed = checks.whole("seed", seed, 0)
        first_square(self.pyramid.size, settings)

    @property
    def key(self) -> str:
        """A text that changes when any patch would."""
        pixels = self.pyramid.photographs.cpu().contiguous()
        digest = sha256(f"{tuple(pixels.shape)} {self.settings} {self.seed} ".encode())
        digest.update(pixels.numpy())
        return f"patches {digest.hexdigest()}"

    def parameters(self, numbers: Sequence[int] | range | Tensor) -> PatchParameters:
        """What was drawn for patches with these numbers."""
        return sample_patch_parameters(
            numbers,
            self.pyramid.size,
            self.settings,
            self.seed,
            photographs=len(self.pyramid.photographs),
        )

    def take(self, numbers: Sequence[int] | range | Tensor) -> Tensor:
        """Patches uint8 (n, channels, size, size) by their numbers, in any order."""
        return render_patches(self.pyramid, self.parameters(numbers), self.settings)


def pool_of(generator: Generator, count: int, *, jpeg: bool = False) -> Tensor:
    """The first `count` examples of a generator, uint8 (count, channels, height, width), or of
    clips (count, channels, frames, height, width).

    Args:
        generator: of patches, clips or excerpts.
        count: 50,000 for CIFAR and 1,281,167 for ImageNet, as published.
        jpeg: whether they pass through JPEG files of quality 75, as the published pool does.

    Raises:
        ValueError: fewer than one.
    """
    checks.whole("number of patches", count, 1)
    first = generator.take(range(1))
    pool = first.new_empty(count, *first.shape[1:])
    together = max(1, AHEAD // first.nbytes)
    for start in range(0, count, together):
        part = generator.take(range(start, min(start + together, count)))
        pool[start : start + len(part)] = jpeg_round_trip(part) if jpeg else part
    return pool


def patch_pool(
    image: Tensor,
    count: int,
    settings: PatchSettings = PUBLISHED_PATCHES,
    seed: int = 0,
    *,
    jpeg: bool = False,
) -> Tensor:
    """A pool of patches of a photograph: uint8 (count, channels, size, size), see `pool_of`."""
    return pool_of(PatchGenerator(image, settings, seed), count, jpeg=jpeg)


def patch_stream(
    image: Tensor,
    batch: int,
    settings: PatchSettings = PUBLISHED_PATCHES,
    seed: int = 0,
    *,
    start: int = 0,
) -> Iterator[Tensor]:
    """Patches without end: uint8 (batch, channels, size, size), numbers start, start + 1, ..."""
    checks.whole("batch", batch, 1)
    generator = PatchGenerator(image, settings, seed)
    while True:
        yield generator.take(range(start, start + batch))
        start += batch


def published_pool_size(asked: int, workers: int, batch: int = 32) -> int:
    """Files that the official script leaves when asked for a pool: 49,920 of 50,000.

    Every worker makes its share in batches, and the last, incomplete one overwrites files of the
    batch before it.
    """
    each = checks.whole("asked", asked, 1) // checks.whole("workers", workers, 1)
    return workers * (each // checks.whole("batch", batch, 1)) * batch


def save_pool(path: str | Path, pool: Tensor) -> None:
    """Write a pool, uint8 (n, channels, height, width), or of clips (n, channels, frames, height,
    width), as a .npz file with the array `patches`, under the very name that is given.
    """
    with atomic_path(user_path(path)) as temporary, temporary.open("wb") as stream:
        np.savez(stream, patches=pool.cpu().numpy())


def load_pool(path: str | Path, settings: PatchSettings | None = None) -> Tensor:
    """Read a pool that `save_pool` wrote, or any .npz file with such an array `patches`.

    Args:
        path: of the file.
        settings: if given, patches must have its size and channels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or its patches have another size.
    """
    file = user_path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no pool {file}; expected an .npz file with the array patches")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            patches = arrays["patches"]
    except Exception as error:  # a damaged archive ends in whatever its bytes happen to mean
        raise ValueError(f"{file} is no pool of patches: {one_line(error)}") from error
    if patches.dtype != np.uint8 or patches.ndim not in (4, 5) or patches.size == 0:
        raise ValueError(
            f"{file}: patches must be uint8 (n, channels, height, width), or with frames before "
            f"the height, and not empty; got {patches.dtype} {patches.shape}"
        )
    wanted = None if settings is None else (settings.channels, settings.size, settings.size)
    found = patches.shape[1], *patches.shape[-2:]
    if wanted is not None and found != wanted:
        raise ValueError(f"{file}: patches must be {wanted}; got {found}")
    return torch.from_numpy(patches)


def unit(x: Tensor) -> Tensor:
    """uint8 images as floating-point numbers from 0 to 1; such numbers stay."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


@dataclass(frozen=True, eq=False)
class _Fresh:
    """Batches of a generator; every pass begins at a place that torch's global generator decides.

    So does the order of a `DataLoader`, and a training that seeds and stores that generator can be
    stopped and resumed.
    """

    generator: Generator
    batch: int
    steps: int

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        start = int(torch.randint(2**52, ()))
        step, ahead = 0, 1
        while step < self.steps:
            end = min(step + ahead, self.steps)
            made = self.generator.take(range(start + step * self.batch, start + end * self.batch))
            yield from made.split(self.batch)
            ahead = max(1, AHEAD // (made.nbytes // (end - step)))
            step = end


@dataclass(frozen=True, eq=False)
class _Shuffled:
    """Batches of a pool in random order: passes that run on into each other."""

    pool: Tensor
    batch: int
    steps: int

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        passes = math.ceil(self.steps * self.batch / len(self.pool))
        # All at once: what a training draws meanwhile must not change the order.
        order = torch.cat([torch.randperm(len(self.pool)) for _ in range(passes)])
        for step in range(self.steps):
            yield self.pool[order[step * self.batch : (step + 1) * self.batch].to(self.pool.device)]


@dataclass(frozen=True, eq=False)
class PatchBatches(Batches):
    """Unlabelled batches in [0, 1] that have a name, so that a training on them can be kept."""

    name: tuple[Any, ...] = ()

    @property
    def key(self) -> Any:
        """What decides the batches; see `Batches.key`."""
        return self.name


def fresh_batches(generator: Generator, batch: int = 128, steps: int = 100) -> PatchBatches:
    """Batches of examples that are never seen twice, for a training loop.

    Args:
        generator: of patches, clips or excerpts.
        batch: examples a step.
        steps: what the training calls an epoch.

    Returns:
        Batches float32 (batch, channels, height, width) from 0 to 1, of clips with frames before
        the height. Which examples comes from
        torch's global generator, which `smallnets.training.fit` seeds.
    """
    source = _Fresh(generator, checks.whole("batch", batch, 1), checks.whole("steps", steps, 1))
    # The same settings give other examples where the code that makes them changes.
    made_by = source_digest("distill")
    return PatchBatches(
        source, labelled=False, prepare=unit, name=("fresh", made_by, generator.key, batch, steps)
    )


def pool_batches(pool: Tensor, batch: int = 128, steps: int | None = None) -> PatchBatches:
    """Batches of a pool, in another order in every epoch, for a training loop.

    Args:
        pool: uint8 (n, channels, height, width): patches, or images for a control; or clips
            (n, channels, frames, height, width).
        batch: examples a step.
        steps: of an epoch. None is one pass, whose incomplete last batch is left out; with a number
            passes run on into each other, so that a pool may be smaller than a batch.

    Raises:
        ValueError: no such pool, or, without `steps`, fewer examples than one batch.
    """
    if pool.dtype != torch.uint8 or pool.dim() not in (4, 5) or pool.numel() == 0:
        raise ValueError(
            "a pool must be uint8 (n, channels, height, width), or with frames before the height, "
            f"and not empty; got {pool.dtype} {tuple(pool.shape)}"
        )
    checks.whole("batch", batch, 1)
    if steps is None:
        steps = len(pool) // int(checks.between("batch (without steps)", batch, 1, len(pool)))
    checks.whole("steps", steps, 1)
    digest = sha256(f"{tuple(pool.shape)} ".encode())
    digest.update(pool.cpu().contiguous().numpy())
    return PatchBatches(
        _Shuffled(pool, batch, steps),
        labelled=False,
        prepare=unit,
        name=("pool", digest.hexdigest(), batch, steps),
    )
