"""The U-Net generator of pix2pix, a baseline.

Isola et al., CVPR 2017. GAN Compression replaces it by the ResNet generator, which gave better
images.
"""

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.gan.networks.layers import NORMS, make_norm


class UNetGenerator(nn.Module):
    """Convolutions that halve the sides `downs` times, and as many transposed ones back.

    Every way up also reads what its mirror image on the way down has read. Kernels are 4 x 4;
    the widths n, 2n, 4n, 8n, 8n, ...; no norm behind the first and the innermost convolution.

    Args:
        in_channels, out_channels: of images.
        ngf: the width n.
        downs: 8 for images of 256 x 256.
        norm: "batch" (published; then convolutions before it have no bias) or "instance".
        dropout: of one half, behind the three innermost ways up but the first, as pix2pix has it.

    Raises:
        ValueError: fewer than two `downs`, numbers below 1 or an unknown norm.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 64,
        downs: int = 8,
        norm: str = "batch",
        dropout: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            checks.whole(name, value, 1)
        checks.whole("ngf", ngf, 1)
        checks.whole("downs", downs, 2)
        checks.one_of("norm", norm, NORMS)
        self.in_channels, self.downs = in_channels, downs
        widths = [ngf * min(2**level, 8) for level in range(downs)]
        bias = norm == "instance"
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            outermost, innermost = level == 0, level == downs - 1
            before = in_channels if outermost else widths[level - 1]
            conv = nn.Conv2d(before, width, 4, 2, 1, bias=bias)
            down = [conv] if outermost else [nn.LeakyReLU(0.2), conv]
            if not outermost and not innermost:
                down.append(make_norm(norm, width))
            self.down.append(nn.Sequential(*down))
            after = out_channels if outermost else before
            reads = width if innermost else 2 * width
            back = nn.ConvTranspose2d(reads, after, 4, 2, 1, bias=bias or outermost)
            up = [nn.ReLU(), back, nn.Tanh() if outermost else make_norm(norm, after)]
            if dropout and 4 <= level < downs - 1:
                up.append(nn.Dropout(0.5))
            self.up.append(nn.Sequential(*up))

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, in_channels, height, width) -> images in [-1, 1].

        Raises:
            ValueError: other channels, or sides that are no multiples of 2^downs.
        """
        factor = 2**self.downs
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"images must be (batch, {self.in_channels}, height, width); got {tuple(x.shape)}"
            )
        if x.shape[2] % factor or x.shape[3] % factor or not x.numel():
            raise ValueError(
                f"height and width must be multiples of {factor}; got {x.shape[2]} x {x.shape[3]}"
            )
        maps = []
        for layer in self.down:
            x = layer(x)
            maps.append(x)
        for level in range(self.downs - 1, -1, -1):
            if level < self.downs - 1:
                x = torch.cat([maps[level], x], dim=1)
            x = self.up[level](x)
        return x
