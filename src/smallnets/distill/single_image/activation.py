"""Images that make a class as likely as possible (analysis 1), of teacher and student.

Gradient ascent on one logit. The image is parametrised by its Fourier coefficients, scaled so that
all frequencies are equally easy to change, in decorrelated colours (Olah, Mordvintsev & Schubert,
2017), and is shifted, turned and scaled a little in every step, so that no single pixel matters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.measure import evaluating, one_tensor

# Square root of the covariance of colours in photographs (the Lucid library), scaled by its norm.
COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.0, -0.05), (0.27, -0.09, 0.03))


@dataclass(frozen=True)
class Ascent:
    """How an activation is maximised.

    Attributes:
        steps: of Adam.
        lr: its learning rate.
        shift: pixels by which the image moves at most.
        degrees: by which it turns at most.
        scale: by which it grows or shrinks at most, as a share.
        decay: exponent of the frequencies' scale; 1 is that of photographs.

    Raises:
        ValueError: a field is out of range.
    """

    steps: int = 256
    lr: float = 0.1
    shift: int = 2
    degrees: float = 5.0
    scale: float = 0.1
    decay: float = 1.0

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("steps", self.steps, 1)
        checks.above("lr", self.lr, 0)
        checks.whole("shift", self.shift, 0)
        checks.between("degrees", self.degrees, 0, 180)
        checks.between("scale", self.scale, 0, 0.9)
        checks.at_least("decay", self.decay, 0)


def maximise_activation(
    network: nn.Module,
    classes: int | tuple[int, ...],
    size: int = 32,
    ascent: Ascent = Ascent(),
    *,
    normalise: Callable[[Tensor], Tensor] | None = None,
    channels: int = 3,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Images for which a network's logits of given classes are as large as possible.

    Args:
        network: left as it is.
        classes: one, or several at once.
        size: height and width of the images.
        ascent: how.
        normalise: as the network's data are.
        channels: 3 or 1.
        seed: of the start and of the movements.

    Returns:
        Images float32 (n, channels, size, size) in [0, 1], and their logits' course (steps, n).

    Raises:
        ValueError: a class that the network does not have, or a number out of range.
    """
    wanted = (classes,) if isinstance(classes, int) else tuple(classes)
    checks.each("classes", wanted, checks.whole, 0)
    checks.whole("size", size, 2)
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3; got {channels!r}")
    weights = next(network.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(seed)
    shape = (len(wanted), channels, size, size // 2 + 1, 2)
    spectrum = (0.01 * torch.randn(shape, generator=generator)).to(weights.device)
    spectrum.requires_grad_()
    optimizer = torch.optim.Adam([spectrum], ascent.lr)
    course = []
    with evaluating(network), torch.enable_grad():
        for _ in range(ascent.steps):
            seen = _moved(image_of(spectrum, size, ascent.decay), ascent, generator)
            logits = one_tensor(network(seen if normalise is None else normalise(seen)))
            checks.between("classes", max(wanted), 0, logits.shape[1] - 1)
            mine = logits[torch.arange(len(wanted)), torch.tensor(wanted)]
            (spectrum.grad,) = torch.autograd.grad(-mine.sum(), spectrum)
            optimizer.step()
            course.append(mine.detach().float().cpu())
    return image_of(spectrum.detach(), size, ascent.decay).cpu(), torch.stack(course)


def image_of(spectrum: Tensor, size: int, decay: float = 1.0) -> Tensor:
    """Images in [0, 1] of Fourier coefficients (n, channels, size, size // 2 + 1, 2)."""
    down, across = torch.fft.fftfreq(size), torch.fft.rfftfreq(size)
    frequency = (down[:, None].square() + across[None].square()).sqrt().to(spectrum.device)
    scale = size / frequency.clamp_min(1 / size).pow(decay) / 4
    pixels = torch.fft.irfft2(torch.view_as_complex(spectrum) * scale, s=(size, size))
    if pixels.shape[1] == 3:
        mixture = pixels.new_tensor(COLOURS)
        mixture = mixture / mixture.norm(dim=0).max()
        pixels = torch.einsum("ij,njyx->niyx", mixture, pixels)
    return pixels.sigmoid()


def _moved(images: Tensor, ascent: Ascent, generator: torch.Generator) -> Tensor:
    """Images shifted, turned and scaled at random, each by itself; mirrored beyond the edge."""
    drawn = (2 * torch.rand(4, len(images), generator=generator) - 1).to(images.device)
    turn = math.radians(ascent.degrees) * drawn[0]
    factor = 1 + ascent.scale * drawn[1]
    shift = 2 * ascent.shift * drawn[2:] / images.shape[-1]
    cos, sin = turn.cos() * factor, turn.sin() * factor
    theta = torch.stack(
        [torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)], dim=1
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
