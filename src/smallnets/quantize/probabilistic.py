"""Distributions over ternary weights, trained by their means and variances.

Shayer, Levi and Fetaya (ICLR 2018) and Roth, Schindler, Froening and Pernkopf (ECML 2019): every
weight is -1, 0 or 1 with probabilities of its own. A sum of many such products is nearly normal, so
the layer samples its outputs instead of its weights (local reparameterisation), and gradients pass.
In the end every weight takes its most probable value.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.losses import to_float32
from smallnets.quantize.modules.base import Codes, stored

LEAST = 0.05
"""Smallest probability at the start; the largest one is 1 - LEAST."""


def ternary_probabilities(logit_zero: Tensor, logit_plus: Tensor) -> Tensor:
    """Probabilities of -1, 0 and +1 in this order, (..., 3).

    p0 = sigmoid(logit_zero) and p+ = (1 - p0) sigmoid(logit_plus).
    """
    some = torch.sigmoid(-logit_zero)
    parts = (
        some * torch.sigmoid(-logit_plus),
        torch.sigmoid(logit_zero),
        some * torch.sigmoid(logit_plus),
    )
    return torch.stack(parts, dim=-1)


def ternary_moments(logit_zero: Tensor, logit_plus: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every weight, like the logits."""
    minus, zero, plus = ternary_probabilities(logit_zero, logit_plus).unbind(-1)
    mean = plus - minus
    variance = minus * (1 + mean).square() + zero * mean.square() + plus * (1 - mean).square()
    return mean, variance


def most_probable(logit_zero: Tensor, logit_plus: Tensor) -> Tensor:
    """The most probable of -1, 0 and +1, like the logits."""
    found = ternary_probabilities(logit_zero, logit_plus).argmax(-1) - 1
    return found.to(logit_zero.dtype)


def ternary_kl(logit_zero: Tensor, logit_plus: Tensor, prior_zero: float = 1 / 3) -> Tensor:
    """KL(weights || prior) in nats, summed over weights: the prior has probabilities
    (1 - prior_zero) / 2, prior_zero and (1 - prior_zero) / 2.

    Raises:
        ValueError: `prior_zero` is not between 0 and 1, or at an end.
    """
    if not 0 < checks.between("prior_zero", prior_zero, 0, 1) < 1:
        raise ValueError(f"prior_zero must be strictly between 0 and 1; got {prior_zero}")
    p = ternary_probabilities(logit_zero, logit_plus)
    prior = p.new_tensor([(1 - prior_zero) / 2, prior_zero, (1 - prior_zero) / 2])
    return (torch.xlogy(p, p) - p * prior.log()).sum()


def ternary_penalty(logit_zero: Tensor, logit_plus: Tensor) -> Tensor:
    """Half the sum of squared logits, which keeps distributions from hardening too early."""
    return (logit_zero.square().sum() + logit_plus.square().sum()) / 2


def ternary_start(w: Tensor, least: float = LEAST) -> tuple[Tensor, Tensor]:
    """Logits whose means are the weights `w`, as far as probabilities within [least, 1 - least]
    allow: p0 falls linearly from 1 - least at w = 0 to least at |w| = 1.

    Args:
        w: scaled so that sizes are mostly below 1.

    Raises:
        ValueError: weights that are not finite; `least` not between 0 and 1/2, or at an end.
    """
    if not 0 < checks.between("least", least, 0, 0.5) < 0.5:
        raise ValueError(f"least must be strictly between 0 and 0.5; got {least}")
    if not bool(w.isfinite().all()):
        raise ValueError(f"ternary weights start from finite ones; got shape {tuple(w.shape)}")
    zero = (1 - least - (1 - 2 * least) * w.abs()).clamp(least, 1 - least)
    plus = ((1 + w / (1 - zero)) / 2).clamp(least, 1 - least)
    return torch.logit(zero), torch.logit(plus)


def sign_probability(mean: Tensor, variance: Tensor) -> Tensor:
    """Probability that a normal pre-activation is positive, Phi(mean / sqrt(variance)).

    Without variance it is 1 above 0, 0 below and 1/2 at 0.
    """
    deviation = variance.sqrt().clamp_min(torch.finfo(variance.dtype).tiny)
    ratio = (mean / deviation).clamp(-40, 40)
    return torch.special.ndtr(ratio)


class TernaryDistribution(nn.Module):
    """What both layers share: logits, a scale for the whole layer, and a bias.

    Attributes:
        logit_zero, logit_plus: parameters of the weight's shape.
        scale: buffer (): what +1 stands for.
        generator: of the noise; None is torch's own.
    """

    scale: Tensor

    def __init__(self, shape: tuple[int, ...], bias: bool) -> None:
        super().__init__()
        for side in shape:
            checks.whole("every size of a layer", side, 1)
        start = torch.empty(shape)
        nn.init.uniform_(start, -1, 1)
        zero, plus = ternary_start(start)
        self.logit_zero, self.logit_plus = nn.Parameter(zero), nn.Parameter(plus)
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        self.register_buffer("scale", torch.tensor(float(start[0].numel()) ** -0.5))
        self.generator: torch.Generator | None = None

    def _take(self, layer: nn.Module) -> None:
        weight = to_float32(layer.weight.detach())
        size = weight.abs().max()
        if not bool(size > 0) or not bool(size.isfinite()):
            raise ValueError(
                "ternary weights start from finite ones, and one that is not 0; got shape "
                f"{tuple(weight.shape)}"
            )
        zero, plus = ternary_start(weight / size)
        self.logit_zero.data, self.logit_plus.data = zero, plus
        self.scale = size.clone()
        if layer.bias is not None and self.bias is not None:
            self.bias.data = layer.bias.detach().clone()

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the weights, the scale included."""
        mean, variance = ternary_moments(self.logit_zero, self.logit_plus)
        return self.scale * mean, self.scale.square() * variance

    def kl(self, prior_zero: float = 1 / 3) -> Tensor:
        """See `ternary_kl`."""
        return ternary_kl(self.logit_zero, self.logit_plus, prior_zero)

    def penalty(self) -> Tensor:
        """See `ternary_penalty`."""
        return ternary_penalty(self.logit_zero, self.logit_plus)

    def map_weights(self) -> Tensor:
        """The most probable weights, the scale included, without a graph."""
        return self.scale * most_probable(self.logit_zero.detach(), self.logit_plus.detach())

    def weight_codes(self) -> Codes:
        """The most probable weights as they are stored: -1, 0 and 1, and one scale."""
        found = most_probable(self.logit_zero.detach(), self.logit_plus.detach())
        return stored(found, 2, self.scale)

    def distribution(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the outputs for inputs `x`, without noise."""
        mean, variance = self.moments
        return self._product(x, mean, self.bias), self._product(x.square(), variance, None)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no product")

    def forward(self, x: Tensor, sample: bool | None = None) -> Tensor:
        """Outputs for a batch.

        `sample` draws them from their normal distribution, as training does (the default in
        training mode); otherwise they are those of the most probable weights.
        """
        if not (self.training if sample is None else sample):
            return self._product(x, self.map_weights(), self.bias)
        mean, variance = self.distribution(x)
        noise = torch.randn(
            mean.shape, dtype=mean.dtype, device=mean.device, generator=self.generator
        )
        return mean + noise * (variance + torch.finfo(variance.dtype).tiny).sqrt()


class TernaryDistributionLinear(TernaryDistribution):
    """A linear layer over distributions of ternary weights, (..., in) to (..., out).

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__((out_features, in_features), bias)
        self.in_features, self.out_features = in_features, out_features

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @classmethod
    def from_linear(cls, layer: nn.Linear) -> "TernaryDistributionLinear":
        """Means start as a trained layer's weights, see `ternary_start`.

        Raises:
            ValueError: another layer, or weights that are not finite or all zero.
        """
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"layer must be Linear; got {type(layer).__name__}")
        made = cls(layer.in_features, layer.out_features, layer.bias is not None)
        made._take(layer)
        return made.to(layer.weight.device)

    def most_probable_layer(self) -> nn.Linear:
        """A plain layer with the most probable weights."""
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        return _with(layer, self)  # type: ignore[return-value]


class TernaryDistributionConv2d(TernaryDistribution):
    """A convolution of images over distributions of ternary weights; zero padding.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        # The plain layer checks and spells out the arguments.
        plain = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            device="meta",
        )  # fmt: skip
        super().__init__(tuple(plain.weight.shape), bias)
        self.geometry: dict[str, Any] = {
            "stride": plain.stride,
            "padding": plain.padding,
            "dilation": plain.dilation,
            "groups": groups,
        }

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, **self.geometry)

    @classmethod
    def from_conv(cls, layer: nn.Conv2d) -> "TernaryDistributionConv2d":
        """Means start as a trained layer's weights, see `ternary_start`.

        Raises:
            ValueError: another layer, other padding than zeros, or weights that are not finite or
                all zero.
        """
        if not isinstance(layer, nn.Conv2d):
            raise ValueError(f"layer must be Conv2d; got {type(layer).__name__}")
        if layer.padding_mode != "zeros":
            raise ValueError(f"padding_mode must be zeros; got {layer.padding_mode!r}")
        made = cls(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
            layer.dilation, layer.groups, layer.bias is not None,
        )  # fmt: skip
        made._take(layer)
        return made.to(layer.weight.device)

    def most_probable_layer(self) -> nn.Conv2d:
        """A plain layer with the most probable weights."""
        out, per_group, *kernel = self.logit_zero.shape
        layer = nn.Conv2d(
            per_group * self.geometry["groups"], out, tuple(kernel), bias=self.bias is not None,
            **self.geometry,
        )  # fmt: skip
        return _with(layer, self)  # type: ignore[return-value]


def _with(layer: nn.Module, source: TernaryDistribution) -> nn.Module:
    layer.weight.data = source.map_weights().clone()
    if source.bias is not None:
        layer.bias.data = source.bias.detach().clone()
    return layer.requires_grad_(False).eval()


def ternary_layers(network: nn.Module) -> list[TernaryDistribution]:
    """The layers of a network that hold distributions.

    Raises:
        ValueError: there are none.
    """
    found = [module for module in network.modules() if isinstance(module, TernaryDistribution)]
    if not found:
        raise ValueError("the network must hold layers of ternary distributions; it has none")
    return found


def total_kl(network: nn.Module, prior_zero: float = 1 / 3) -> Tensor:
    """Sum of `ternary_kl` over all such layers: add lambda times it to the expected loss."""
    parts = [layer.kl(prior_zero) for layer in ternary_layers(network)]
    return torch.stack(parts).sum()
