"""The small generator that turns latent vectors into a batch of images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.models.upsampled import UpsampledConv2d, is_channels_last


class DataGenerator(nn.Module):
    """Latent vectors (batch, latent_dim) -> images (batch, channels, height, width).

    Linear to a quarter of the side, twice nearest-neighbour upsampling and a 3x3 convolution, which
    are one layer; the identities stand where the official code upsamples, so that weights have its
    names. The last norm has no scale and shift: over the batch, every colour channel has mean 0 and
    deviation 1, as normalised images have. It stays in training mode for its whole life.

    Args:
        image_size: height and width, multiples of 4; or one number for both.
        latent_dim: length of a latent vector.
        channels: of the images.
        widths: channels before the first and before the second convolution.

    Raises:
        ValueError: a size that is no multiple of 4, or a number below 1.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        latent_dim: int = 256,
        channels: int = 3,
        widths: Sequence[int] = (128, 64),
    ) -> None:
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        checks.each("widths", widths, checks.whole, 1)
        checks.whole("latent_dim", latent_dim, 1)
        checks.whole("channels", channels, 1)
        if len(size) != 2 or any(side < 4 or side % 4 for side in size):
            raise ValueError(f"image size must be multiples of 4; got {image_size!r}")
        first, second = widths
        self.first_map = (first, size[0] // 4, size[1] // 4)
        self.latent_dim = latent_dim
        self.linear = nn.Linear(latent_dim, first * self.first_map[1] * self.first_map[2])
        self.layers = nn.Sequential(
            nn.BatchNorm2d(first),
            nn.Identity(),
            UpsampledConv2d(first, second),
            nn.BatchNorm2d(second),
            nn.LeakyReLU(0.2),
            nn.Identity(),
            UpsampledConv2d(second, channels),
            nn.Tanh(),
            nn.BatchNorm2d(channels, affine=False),
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Images, normalised over the batch, in contiguous memory."""
        small = self.linear(latents).view(-1, *self.first_map)
        if is_channels_last(self.layers[2].weight):
            small = small.contiguous(memory_format=torch.channels_last)
        return self.layers(small).contiguous()
