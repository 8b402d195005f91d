"""How good the images of a generator, or of one configuration of a supernet, are.

A *measure* is a function of images (n, c, h, w) in [-1, 1]; `score_of` makes one of configurations
of it, which a search can ask.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.data.translation import Translation
from smallnets.gan.compression import Config, check_images
from smallnets.gan.networks.calibration import calibrate
from smallnets.measure import evaluating
from smallnets.measure.frechet import fid, kid
from smallnets.measure.segmentation import Segmentation, segmentation
from smallnets.surgery import batch_norms

Features = Callable[[Tensor], Tensor]
Measure = Callable[[Tensor], float]


@torch.no_grad()
def in_parts(function: Callable[[Tensor], Tensor], x: Tensor, batch_size: int = 32) -> Tensor:
    """What a function says of images, a batch at a time, on the CPU."""
    checks.whole("batch_size", batch_size, 1)
    return torch.cat([function(part).cpu() for part in x.split(batch_size)])


def translated(
    generator: nn.Module,
    inputs: Tensor,
    config: Config | None = None,
    *,
    seed: int = 0,
    batch_size: int = 32,
) -> Tensor:
    """A generator's images of inputs (n, c, h, w), as networks take them: float32 on the CPU.

    Args:
        generator: a plain one, or a supernet with a `config`. One with styles gets random ones.
        inputs: of domain A.
        config: widths; None is a plain network, or all of a supernet.
        seed: of styles.
        batch_size: images a pass.
    """
    check_images("inputs", inputs)
    like = next(generator.parameters())
    styles = None
    if hasattr(generator, "style_dim"):
        draw = torch.Generator().manual_seed(seed)
        styles = torch.randn(len(inputs), generator.style_dim, 1, 1, generator=draw)
    parts = []
    with evaluating(generator), torch.no_grad():
        for start in range(0, len(inputs), batch_size):
            part = slice(start, start + batch_size)
            named: dict[str, Any] = {} if config is None else {"config": config}
            if styles is not None:
                named["style"] = styles[part].to(like)
            parts.append(generator(inputs[part].to(like), **named).float().cpu())
    return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class Distance:
    """Mean absolute difference from target images: less is better.

    Attributes:
        target: (n, c, h, w), the truth of pairs or a teacher's images.
    """

    target: Tensor

    def __call__(self, images: Tensor) -> float:
        if images.shape != self.target.shape:
            raise ValueError(
                f"images must be {tuple(self.target.shape)}, as the target; "
                f"got {tuple(images.shape)}"
            )
        return float((images - self.target).abs().mean())


@dataclass(frozen=True, eq=False)
class FID:
    """Frechet distance from real images in the eyes of a feature network: less is better.

    Attributes:
        features: images in [-1, 1] -> (n, d), such as `LabelReader.features`.
        real: features of the real images, (m, d).
    """

    features: Features
    real: Tensor

    def __call__(self, images: Tensor) -> float:
        return fid(in_parts(self.features, images), self.real)


@dataclass(frozen=True, eq=False)
class KID:
    """Kernel distance from real images, whose expectation depends on no number of images: less is
    better. The attributes are those of `FID`.
    """

    features: Features
    real: Tensor

    def __call__(self, images: Tensor) -> float:
        return kid(in_parts(self.features, images), self.real)[0]


@dataclass(frozen=True, eq=False)
class MeanIoU:
    """Mean intersection over union, in percent, of label maps read off images: more is better.

    Attributes:
        reader: images in [-1, 1] -> label maps, such as `LabelReader.labels`.
        labels: the true ones (n, h, w).
        classes: how many there are.
    """

    reader: Features
    labels: Tensor
    classes: int

    def segmentation(self, images: Tensor) -> Segmentation:
        """Confusion and each class's intersection over union."""
        return segmentation(in_parts(self.reader, images), self.labels, self.classes)

    def __call__(self, images: Tensor) -> float:
        return self.segmentation(images).mean_iou


def fid_from(network: nn.Module, features: Features, real: Tensor) -> FID:
    """A Frechet distance from real images (m, c, h, w) in [-1, 1].

    Args:
        network: which `features` runs; put into evaluation mode.
        features: images -> (n, d).
        real: the images.
    """
    network.eval()
    return FID(features, in_parts(features, real))


def score_of(
    supernet: nn.Module,
    inputs: Tensor,
    measure: Measure,
    *,
    calibration: Sequence[Tensor] = (),
    seed: int = 0,
    batch_size: int = 32,
) -> Callable[[Config], float]:
    """What a measure says of a configuration's images, for a search.

    Args:
        supernet: left as it is, statistics of BatchNorm included.
        inputs: held out of the training part, as networks take them.
        measure: images -> number.
        calibration: batches of training inputs with which BatchNorm's statistics are found anew for
            every configuration; needed where there is BatchNorm.
        seed: of styles.
        batch_size: images a pass.

    Raises:
        ValueError: no inputs, or BatchNorm without batches to calibrate it.
    """
    if len(inputs) == 0:
        raise ValueError("a search needs images that are held out; got none")
    check_images("inputs", inputs)
    needed = any(norm.track_running_stats for norm in batch_norms(supernet))
    if needed and not calibration:
        raise ValueError("a supernet with BatchNorm needs batches for calibration; got none")

    def score(config: Config) -> float:
        with statistics_kept(supernet):
            if needed:
                calibrate(supernet, config, list(calibration))
            images = translated(supernet, inputs, config, seed=seed, batch_size=batch_size)
        return measure(images)

    return score


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Give BatchNorm layers back, after the block, the statistics that they had before."""
    norms = batch_norms(network)
    before = [{name: one.clone() for name, one in norm.named_buffers()} for norm in norms]
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            for name, value in buffers.items():
                norm.get_buffer(name).copy_(value)


def calibration_batches(data: Translation, count: int = 256, batch_size: int = 32) -> list[Tensor]:
    """The first training inputs, in batches, for BatchNorm's statistics."""
    return list(data.a(data.a_train[:count]).split(batch_size))
