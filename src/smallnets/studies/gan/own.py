"""A generator that is not ours: a small U-shaped network with skips, as a reader may have one."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smallnets import gan
from smallnets.studies.gan.domain import Domain
from smallnets.studies.gan.learners import discriminator, lesson, settled
from smallnets.studies.gan.plan import Settings
from smallnets.studies.seeds import teacher_seed
from smallnets.training import seeded

OWN = 50  # number of the seed of its teacher
SHARE = 0.25  # of its multiply-accumulates: the budget


def _stage(into: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.2)
    )


class Painter(nn.Module):
    """Down two times and up again, with the finer layers' outputs laid beside the coarser ones'.

    Args:
        into, out: channels of images.
        width: of the first layer.
    """

    def __init__(self, into: int, out: int, width: int) -> None:
        super().__init__()
        self.fine = _stage(into, width)
        self.middle = _stage(width, 2 * width, 2)
        self.coarse = nn.Sequential(_stage(2 * width, 4 * width, 2), _stage(4 * width, 4 * width))
        self.up = nn.Upsample(scale_factor=2)
        self.join = _stage(6 * width, 2 * width)
        self.paint = nn.Sequential(_stage(3 * width, width), nn.Conv2d(width, out, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, into, height, width) -> (batch, out, height, width), from -1 to 1."""
        fine = self.fine(x)
        middle = self.middle(fine)
        up = self.join(torch.cat([self.up(self.coarse(middle)), middle], 1))
        return self.paint(torch.cat([self.up(up), fine], 1)).tanh()


class Own(NamedTuple):
    """A generator that was trained, and what became of it."""

    generator: nn.Module
    compressed: gan.Compressed


def compress_own(domain: Domain, settings: Settings, cache_dir: Path, seed: int = 0) -> Own:
    """Train a `Painter` on pairs, and compress it to a quarter of its multiply-accumulates.

    Args:
        domain, settings, cache_dir, seed: see `learners.alone`.
    """
    data = lesson(domain, settings, cache_dir).data
    start = teacher_seed(seed, OWN)
    with seeded(start):
        generator = Painter(data.a_channels, data.b_channels, settings.ngf)
        judge = discriminator(data.a_channels + data.b_channels, data.size, settings.ngf)
    gan.play(
        gan.Pix2PixTeacher(generator, judge), data, settings.own, seed=start,
        cache_dir=cache_dir, label="own",
    )  # fmt: skip
    settled(generator, judge)
    compressed = gan.compress(
        generator, data, budget=SHARE, discriminator=judge, training=settings.own,
        taps=["coarse"], search=settings.search, seed=start, cache_dir=cache_dir,
    )  # fmt: skip
    return Own(generator, compressed)
