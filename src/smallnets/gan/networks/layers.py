"""Sliceable layers: one set of weights, of which a narrower network uses the first channels.

A layer reads as many input channels as the incoming tensor has (not as a configuration says) and
writes as many as it is asked for. What lies outside the slice gets a gradient of exactly zero.

    convolution      weight[:out, :in]      bias[:out]
    transposed       weight[:in, :out]      bias[:out]
    depthwise        weight[:in], in groups bias[:in]

After training, "the first c channels" are the important ones, because every narrower network has
used them as well (Li et al., CVPR 2020, section 3.3).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORMS = ("instance", "batch")


def width_asked(layer: nn.Module, full: int, asked: int | None) -> int:
    """The output channels that a layer is to write: all of them, or the first `asked`.

    Raises:
        ValueError: more than there are, fewer than one, or no whole number.
    """
    if asked is None:
        return full
    if isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= full:
        raise ValueError(
            f"a width of {type(layer).__name__} must be a whole number from 1 to {full}; "
            f"got {asked!r}"
        )
    return asked


def _check_input(layer: nn.Module, full: int, x: Tensor) -> int:
    given = x.shape[1]
    if given > full:
        raise ValueError(
            f"{type(layer).__name__} must get at most {full} input channels; got {given}"
        )
    return given


def _first(bias: Tensor | None, channels: int) -> Tensor | None:
    return None if bias is None else bias[:channels]


class SliceableConv2d(nn.Conv2d):
    """A convolution of which any first channels can be used; arguments of `nn.Conv2d`.

    With `groups` equal to its input channels it is depthwise, and writes what it reads.
    """

    def __init__(self, in_channels: int, out_channels: int, *args: Any, **options: Any) -> None:
        super().__init__(in_channels, out_channels, *args, **options)
        if self.groups not in (1, in_channels) or (self.groups > 1 and in_channels != out_channels):
            raise ValueError(
                f"groups must be 1, or as many as input and output channels (depthwise); "
                f"got {self.groups} for {in_channels} -> {out_channels}"
            )

    def forward(self, x: Tensor, out_channels: int | None = None) -> Tensor:
        """(batch, in, height, width) -> (batch, out, ...), by the first weights of each.

        Args:
            x: at most the full number of input channels.
            out_channels: by default all (of a depthwise convolution, those of `x`).

        Raises:
            ValueError: more channels than there are.
        """
        given = _check_input(self, self.in_channels, x)
        if self.groups > 1:
            return F.conv2d(
                x, self.weight[:given], _first(self.bias, given), self.stride, self.padding,
                self.dilation, given,
            )  # fmt: skip
        out = width_asked(self, self.out_channels, out_channels)
        return F.conv2d(
            x, self.weight[:out, :given], _first(self.bias, out), self.stride, self.padding,
            self.dilation,
        )  # fmt: skip


class SliceableConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution of which any first channels can be used.

    Arguments of `nn.ConvTranspose2d`; depthwise as `SliceableConv2d` is.
    """

    def __init__(self, in_channels: int, out_channels: int, *args: Any, **options: Any) -> None:
        super().__init__(in_channels, out_channels, *args, **options)
        if self.groups not in (1, in_channels) or (self.groups > 1 and in_channels != out_channels):
            raise ValueError(
                f"groups must be 1, or as many as input and output channels (depthwise); "
                f"got {self.groups} for {in_channels} -> {out_channels}"
            )

    def forward(self, x: Tensor, out_channels: int | None = None) -> Tensor:  # type: ignore[override]
        """(batch, in, height, width) -> (batch, out, ...); the weight is (in, out, kernel, kernel).

        Raises:
            ValueError: more channels than there are.
        """
        given = _check_input(self, self.in_channels, x)
        if self.groups > 1:
            weight, out, groups = self.weight[:given], given, given
        else:
            out = width_asked(self, self.out_channels, out_channels)
            weight, groups = self.weight[:given, :out], 1
        return F.conv_transpose2d(
            x, weight, _first(self.bias, out), self.stride, self.padding, self.output_padding,
            groups, self.dilation,
        )  # fmt: skip


class SliceableBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm of a supernet: narrow tensors are filled up with zeros, normed, and cut again.

    In training, those channels of zeros pull their running mean and their running variance towards
    0, and all widths share what is running: so statistics have to be estimated anew
    (`smallnets.gan.networks.calibrate`) before a configuration is judged.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, at most num_features, height, width) -> the same shape."""
        given = _check_input(self, self.num_features, x)
        if given == self.num_features:
            return super().forward(x)
        if not self.training:  # zeros would be cut again; without them an export is the same bits
            parts = (self.running_mean, self.running_var, self.weight, self.bias)
            mean, var, weight, bias = (_first(part, given) for part in parts)
            return F.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)
        missing = x.new_zeros(len(x), self.num_features - given, *x.shape[2:])
        return super().forward(torch.cat([x, missing], dim=1))[:, :given]


class LayerNorm(nn.Module):
    """The LayerNorm of MUNIT: over channels and pixels of an image, with the unbiased deviation.

        y = gamma (x - mean) / (std + eps) + beta,    gamma ~ U(0, 1), beta = 0 at the start

    A narrower tensor is normed by itself, with the first entries of gamma and beta.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.gamma = nn.Parameter(torch.rand(num_features))
        self.beta = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, at most num_features, height, width) -> the same shape."""
        given = _check_input(self, self.num_features, x)
        flat = x.flatten(1)
        mean, std = flat.mean(1).view(-1, 1, 1, 1), flat.std(1).view(-1, 1, 1, 1)
        normed = (x - mean) / (std + self.eps)
        return normed * self.gamma[:given].view(-1, 1, 1) + self.beta[:given].view(-1, 1, 1)

    def published_products(self, output: Tensor) -> int:
        """One for every element, and one for the mean."""
        return output.numel() + 1


class AdaIN(nn.Module):
    """Adaptive instance norm: every channel of every image gets mean and deviation of a style.

    y = std (x - mean(x)) / sqrt(var(x) + eps) + mean          (no "1 +" before std)
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Norm feature maps, and give them a style.

        Args:
            x: (batch, channels, height, width).
            mean, std: (batch, channels).

        Raises:
            ValueError: styles of another shape.
        """
        if mean.shape != x.shape[:2] or std.shape != x.shape[:2]:
            raise ValueError(
                f"mean and std must be {tuple(x.shape[:2])}; got {tuple(mean.shape)} and "
                f"{tuple(std.shape)}"
            )
        normed = F.instance_norm(x, eps=self.eps)
        return normed * std[:, :, None, None] + mean[:, :, None, None]

    def published_products(self, output: Tensor) -> int:
        """The published count sees one product, that of batch and channels in reshaping."""
        return 1


def make_norm(norm: str, channels: int, *, sliceable: bool = False) -> nn.Module:
    """The norm behind a convolution: "instance" (no parameters, no memory) or "batch"."""
    if norm == "instance":
        return InstanceNorm(channels)
    return SliceableBatchNorm2d(channels) if sliceable else nn.BatchNorm2d(channels)


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm without parameters or memory, which is the same at every width."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the same shape.

        Raises:
            ValueError: a map of a single pixel, of which nothing would be left.
        """
        if x.shape[2:].numel() == 1:
            raise ValueError(
                "instance norm must get maps of more than one pixel; got 1 x 1: larger images"
            )
        return F.instance_norm(x, eps=self.eps)


class SeparableConv2d(nn.Module):
    """Depthwise convolution, norm, 1x1 convolution; nothing non-linear in between.

    Args:
        in_channels, out_channels, kernel_size, stride, padding: as in `nn.Conv2d`.
        bias: of both convolutions.
        norm: between them, see `make_norm`.
        sliceable: whether any first channels can be used.
        up: a transposed depthwise convolution that doubles the sides (stride 2, padding 1, output
            padding 1), as in the ablation that decomposes the upsampling layers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 0,
        *,
        bias: bool = True,
        norm: str = "instance",
        sliceable: bool = False,
        up: bool = False,
    ) -> None:
        super().__init__()
        conv = SliceableConv2d if sliceable else nn.Conv2d
        transposed = SliceableConvTranspose2d if sliceable else nn.ConvTranspose2d
        depthwise = (
            transposed(
                in_channels, in_channels, kernel_size, 2, padding, 1,
                groups=in_channels, bias=bias,
            )
            if up
            else conv(
                in_channels, in_channels, kernel_size, stride, padding,
                groups=in_channels, bias=bias,
            )
        )  # fmt: skip
        self.in_channels, self.out_channels = in_channels, out_channels
        self.conv = nn.Sequential(
            depthwise,
            make_norm(norm, in_channels, sliceable=sliceable),
            conv(in_channels, out_channels, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in, height, width) -> (batch, out, ...)."""
        out: Tensor = self.conv(x)
        return out


class SliceableSeparableConv2d(SeparableConv2d):
    """A `SeparableConv2d` of which any first channels can be used."""

    def __init__(self, in_channels: int, out_channels: int, *args: Any, **options: Any) -> None:
        super().__init__(in_channels, out_channels, *args, sliceable=True, **options)

    def forward(self, x: Tensor, out_channels: int | None = None) -> Tensor:
        """(batch, in, height, width) -> (batch, out, ...)."""
        depthwise, norm, pointwise = self.conv
        out: Tensor = pointwise(norm(depthwise(x)), out_channels)
        return out


def copy_first(narrow: nn.Module, full: nn.Module) -> nn.Module:
    """Fill a network with the first entries, along every axis, of a larger one's equally named
    parameters and buffers. This is all that exporting a slice takes.

    Returns:
        `narrow`.

    Raises:
        ValueError: a name that the larger network lacks, or a larger shape than there.
    """
    source = full.state_dict()
    with torch.no_grad():
        for name, target in narrow.state_dict().items():
            given = source.get(name)
            if given is None or given.dim() != target.dim():
                raise ValueError(f"the larger network must have {name!r}; it has not")
            if any(small > large for small, large in zip(target.shape, given.shape, strict=True)):
                raise ValueError(
                    f"{name!r} must fit into {tuple(given.shape)}; it is {tuple(target.shape)}"
                )
            target.copy_(given[tuple(slice(side) for side in target.shape)])
    return narrow
