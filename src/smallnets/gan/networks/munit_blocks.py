"""What MUNIT is made of: convolutions with reflected edges, norms, activations, residual blocks."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from smallnets.gan.networks.layers import (
    AdaIN,
    InstanceNorm,
    LayerNorm,
    SeparableConv2d,
    SliceableConv2d,
    SliceableSeparableConv2d,
)


class ConvBlock(nn.Module):
    """Reflected edges, convolution, norm, activation; as MUNIT builds everything.

    Args:
        into, out, kernel, stride, padding: of the convolution.
        norm: "instance", "layer", "adain" or "none".
        activation: "relu", "tanh" or "none".
        separable, sliceable: kind of convolution.
    """

    def __init__(
        self,
        into: int,
        out: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        *,
        norm: str = "none",
        activation: str = "relu",
        separable: bool = False,
        sliceable: bool = False,
    ) -> None:
        super().__init__()
        dense = SliceableConv2d if sliceable else nn.Conv2d
        thin = SliceableSeparableConv2d if sliceable else SeparableConv2d
        kind: Any = thin if separable else dense
        self.pad = nn.ReflectionPad2d(padding)
        self.conv = kind(into, out, kernel, stride)
        if norm != "none":
            norms = {"instance": InstanceNorm(out), "layer": LayerNorm(out), "adain": AdaIN()}
            self.norm: nn.Module | None = norms[norm]
        else:
            self.norm = None
        activations = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "none": nn.Identity()}
        self.activation, self.out, self.sliceable = activations[activation], out, sliceable

    def forward(
        self, x: Tensor, width: int | None = None, style: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """(batch, into, height, width) -> (batch, out, ...).

        Args:
            x: feature maps.
            width: output channels, if sliceable.
            style: means and deviations (batch, `out`) for AdaIN, of which the first are used.
        """
        x = self.conv(self.pad(x), width) if self.sliceable else self.conv(self.pad(x))
        if style is not None:
            mean, std = style
            x = self.norm(x, mean[:, : x.shape[1]], std[:, : x.shape[1]])  # type: ignore[misc]
        elif self.norm is not None:
            x = self.norm(x)
        out: Tensor = self.activation(x)
        return out


class ResBlock(nn.Module):
    """x + block(block(x)); each block is a `ConvBlock`.

    Args:
        channels: of x.
        hidden: between the two.
        norm: of both.
        kind: `separable`, `sliceable`.
    """

    def __init__(self, channels: int, hidden: int, norm: str, **kind: Any) -> None:
        super().__init__()
        self.model = nn.Sequential(
            ConvBlock(channels, hidden, 3, 1, 1, norm=norm, **kind),
            ConvBlock(hidden, channels, 3, 1, 1, norm=norm, activation="none", **kind),
        )

    def forward(
        self, x: Tensor, hidden: int | None, styles: Sequence[tuple[Tensor, Tensor] | None]
    ) -> Tensor:
        """(batch, channels, height, width) -> the same shape, with a style for each `ConvBlock`."""
        first, second = self.model
        out: Tensor = x + second(first(x, hidden, styles[0]), x.shape[1], styles[1])
        return out


class Holder(nn.Module):
    """Layers under the name that they have in released checkpoints."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)


class DenseLayer(nn.Module):
    """A linear layer of the MLP, with or without ReLU."""

    def __init__(self, into: int, out: int, *, relu: bool) -> None:
        super().__init__()
        self.fc, self.relu = nn.Linear(into, out), relu

    def forward(self, x: Tensor) -> Tensor:
        """(batch, into) -> (batch, out)."""
        x = self.fc(x)
        return x.relu() if self.relu else x
