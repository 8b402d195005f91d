"""The generators: latent vectors to images (section 3 of the method).

The second argument of the official code's BatchNorm layers was meant to be the momentum and is the
epsilon. It is kept: 0.8 damps channels of little variance.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.models.upsampled import UpsampledConv2d

Shape = tuple[int, int, int]  # channels, height, width


class ReplayGenerator(nn.Module):
    """Latent vectors (batch, latent) -> images (batch, channels, height, width).

    Linear to a small map, BatchNorm, then for every width: upsampling by two, a 3x3 convolution,
    BatchNorm and LeakyReLU(0.2); at last a convolution to the colours, tanh, and a BatchNorm
    without scale and shift, so that over a batch every colour has mean 0 and deviation 1 as
    normalised images have.

    Args:
        image_shape: channels, height, width.
        latent: length of a latent vector.
        widths: channels of the first map, then after each upsampling.
        bn_eps: of all BatchNorm layers but the first and the last.
        crop: whether sides may be other than multiples of 2 ** (number of upsamplings): a larger
            image is made, and its middle cut out.
        resized: side to which finished images are resized, bilinearly.

    Raises:
        ValueError: a side that is no such multiple, or a number out of range.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent: int = 1000,
        widths: Sequence[int] = (128, 128, 64),
        *,
        bn_eps: float = 0.8,
        crop: bool = False,
        resized: int | None = None,
    ) -> None:
        super().__init__()
        self.image_shape = check_shape(image_shape)
        channels, *size = self.image_shape
        checks.whole("latent", latent, 1)
        checks.each("widths", widths, checks.whole, 1)
        checks.above("bn_eps", bn_eps, 0)
        if len(widths) < 2:
            raise ValueError(f"widths must hold two numbers or more; got {tuple(widths)}")
        factor = 2 ** (len(widths) - 1)
        if not crop and any(side % factor for side in size):
            raise ValueError(
                f"height and width must be multiples of {factor}; got {size[0]}x{size[1]}"
            )
        self.latent = latent
        self.resized = None if resized is None else checks.whole("resized", resized, 1)
        self.first_map = (widths[0], *(-(-side // factor) for side in size))
        self.linear = nn.Linear(latent, self.first_map[0] * self.first_map[1] * self.first_map[2])
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0])]
        for inputs, outputs in pairwise(widths):
            layers += [
                UpsampledConv2d(inputs, outputs),
                nn.BatchNorm2d(outputs, eps=bn_eps),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers += [nn.Conv2d(widths[-1], channels, 3, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.last_norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, latents: Tensor) -> Tensor:
        """Images, in training mode normalised over their batch."""
        small = self.linear(latents).view(-1, *self.first_map)
        if self.layers[-2].weight.is_contiguous(memory_format=torch.channels_last):
            small = small.contiguous(memory_format=torch.channels_last)
        images = self.layers(small)
        height, width = self.image_shape[1:]
        top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
        images = self.last_norm(images[:, :, top : top + height, left : left + width])
        if self.resized is not None:
            images = F.interpolate(images, (self.resized,) * 2, mode="bilinear")
        return images


def generator_32(image_shape: Shape = (3, 32, 32), latent: int = 1000) -> ReplayGenerator:
    """The published one for CIFAR, of any size in multiples of 4: 8,423,939 parameters at 32."""
    return ReplayGenerator(image_shape, latent)


def generator_128(image_shape: Shape = (3, 128, 128), latent: int = 1000) -> ReplayGenerator:
    """The published one for 128 pixels, which starts from 4: 5,084,035 parameters."""
    return ReplayGenerator(image_shape, latent, (256, 256, 128, 64, 32, 16))


def generator_256(
    image_shape: Shape = (3, 256, 256), latent: int = 1000, resized: int | None = 224
) -> ReplayGenerator:
    """The published one for 256 pixels, which starts from 4 and whose images are resized to 224:
    5,084,995 parameters.
    """
    return ReplayGenerator(image_shape, latent, (256, 256, 128, 64, 32, 16, 8), resized=resized)


def small_generator(
    image_shape: Shape, latent: int = 128, widths: Sequence[int] = (48, 48, 24)
) -> ReplayGenerator:
    """A narrow one for images of any size."""
    return ReplayGenerator(image_shape, latent, widths, crop=True)


def check_shape(image_shape: Sequence[int]) -> Shape:
    """A shape (channels, height, width), if it is one.

    Raises:
        ValueError: it is not.
    """
    if len(image_shape) != 3:
        raise ValueError(f"image_shape must be (channels, height, width); got {tuple(image_shape)}")
    channels, height, width = (
        checks.whole("each number of image_shape", side, 1) for side in image_shape
    )
    return channels, height, width
