"""Sparse variational dropout (Molchanov et al., ICML 2017): noise tells which weights matter.

Every weight is a normal variable with mean w and variance sigma^2 = alpha w^2, and what a layer
says is drawn once for each of its outputs (local reparameterisation):

    out ~ N(W x, sigma^2 x^2)

The loss is the expected loss plus the divergence from a log-uniform prior, for which the paper
gives an approximation; a weight whose noise exceeds it, log alpha > 3, goes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.prune.sparse.masks import prunable_weights, with_open
from smallnets.prune.sparse.objectives import CROSS_ENTROPY, behind_fabric
from smallnets.surgery import check_plain, check_untied, replace_module
from smallnets.training import Batch
from smallnets.training.loop import Objective

K1, K2, K3 = 0.63576, 1.87320, 1.48695
THRESHOLD = 3.0


def svdo_kl(log_alpha: Tensor) -> Tensor:
    """Divergence of each weight from the prior (equation 14 of the paper), of any shape.

    Near 0 where noise drowns the weight, and about -log_alpha / 2 + 0.636 where there is none.
    """
    return K1 - K1 * torch.sigmoid(K2 + K3 * log_alpha) + 0.5 * F.softplus(-log_alpha)


class Noisy(nn.Module):
    """What noisy layers have in common: the logarithm of a variance for every weight."""

    weight: nn.Parameter
    log_variance: nn.Parameter
    bias: nn.Parameter | None
    threshold: float

    def _become_noisy(self, layer: nn.Module, log_variance: float, threshold: float) -> Self:
        self.weight, self.bias = layer.weight, layer.bias  # type: ignore[assignment]
        self.log_variance = nn.Parameter(torch.full_like(self.weight.detach(), log_variance))
        self.threshold = threshold
        return self

    @property
    def log_alpha(self) -> Tensor:
        """log(sigma^2 / w^2) of every weight, cut off at -10 and 10."""
        return self._log_ratio().clamp(-10, 10)

    def _log_ratio(self) -> Tensor:
        return self.log_variance - (self.weight.square() + 1e-16).log()

    @property
    def mask(self) -> Tensor:
        """1 for weights that stay, 0 for those with log alpha above the threshold; the one with the
        least noise stays in any case.
        """
        noise = self._log_ratio().detach()
        return with_open((noise <= self.threshold).to(self.weight.dtype), noise.argmin())

    def _computed(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the layer says with these parameters."""
        if isinstance(self, nn.Linear):
            return F.linear(x, weight, bias)
        return self._conv_forward(x, weight, bias)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Drawn outputs in training, in evaluation those of the weights that stay."""
        if not self.training:
            return self._computed(x, self.weight * self.mask, self.bias)
        mean = self._computed(x, self.weight, self.bias)
        variance = self._computed(x.square(), self.log_variance.exp(), None)
        return mean + (variance.clamp_min(0) + 1e-8).sqrt() * torch.randn_like(mean)


class NoisyLinear(Noisy, nn.Linear):
    """A linear layer whose weights are normal variables."""

    @classmethod
    def of(cls, layer: nn.Linear, log_variance: float = -8.0, threshold: float = THRESHOLD) -> Self:
        """A noisy layer with the parameters of a plain one."""
        new = cls(layer.in_features, layer.out_features, bias=False, device="meta")
        return new._become_noisy(layer, log_variance, threshold)


class NoisyConv2d(Noisy, nn.Conv2d):
    """A convolution whose weights are normal variables."""

    @classmethod
    def of(cls, layer: nn.Conv2d, log_variance: float = -8.0, threshold: float = THRESHOLD) -> Self:
        """A noisy layer with the parameters of a plain one."""
        new = cls(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
            layer.dilation, layer.groups, False, layer.padding_mode, device="meta",
        )  # fmt: skip
        return new._become_noisy(layer, log_variance, threshold)


class Variational(nn.Module):
    """A network whose weights are normal variables.

    Args:
        network: any network; it is copied.
        layers: dotted names of the convolutions (in two dimensions) and linear layers that become
            noisy; None is all of them.
        log_variance: of every weight at the start.
        threshold: log alpha above which a weight goes.

    Raises:
        ValueError: an unknown layer or one of a type that cannot be noisy, a layer whose weight is
            not a plain parameter of its own, or numbers that are not finite.
    """

    steps: Tensor

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] | None = None,
        *,
        log_variance: float = -8.0,
        threshold: float = THRESHOLD,
    ) -> None:
        super().__init__()
        checks.between("log_variance", log_variance, -20, 20)
        checks.between("threshold", threshold, -10, 10)
        modules = dict(network.named_modules())
        names = [name.rpartition(".")[0] for name in prunable_weights(network, layers)]
        if layers is None:
            names = [name for name in names if isinstance(modules[name], nn.Linear | nn.Conv2d)]
        for name in names:
            kind = nn.Linear if isinstance(modules[name], nn.Linear) else nn.Conv2d
            if not isinstance(modules[name], kind):
                raise ValueError(
                    f"layer {name!r} must be a linear layer or a convolution in two dimensions; "
                    f"got {type(modules[name]).__name__}"
                )
            check_plain(name, modules[name], kind=kind)
        if not names:
            raise ValueError(
                "the network must have linear layers or convolutions in two dimensions; "
                f"{type(network).__name__} has none"
            )
        check_untied(network, names)
        self.network, self.names = copy.deepcopy(network), tuple(names)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # of the warm-up
        for name in names:
            layer = self.network.get_submodule(name)
            noisy = NoisyLinear if isinstance(layer, nn.Linear) else NoisyConv2d
            new = noisy.of(layer, log_variance, threshold)  # type: ignore[arg-type]
            replace_module(self.network, name, new.train(layer.training))

    @property
    def noisy(self) -> dict[str, Noisy]:
        """Name -> layer, of those that are noisy."""
        return {name: self.network.get_submodule(name) for name in self.names}  # type: ignore[misc]

    @property
    def masks(self) -> dict[str, Tensor]:
        """Name of a weight in the plain network -> its mask."""
        return {f"{name}.weight": layer.mask for name, layer in self.noisy.items()}

    def kl(self) -> Tensor:
        """Divergence of all weights together, a scalar."""
        return torch.stack([svdo_kl(layer.log_alpha).sum() for layer in self.noisy.values()]).sum()

    def forward(self, inputs: Tensor) -> Tensor:
        """What the network says: with drawn outputs in training, without noise in evaluation."""
        return self.network(inputs)

    @torch.no_grad()
    def plain(self) -> nn.Module:
        """A copy with ordinary layers, whose weights are zero where noise drowned them."""
        network = copy.deepcopy(self.network)
        for name in self.names:
            noisy = network.get_submodule(name)
            layer = _ordinary(noisy)
            layer.weight = nn.Parameter(noisy.weight * noisy.mask)  # type: ignore[operator]
            layer.bias = noisy.bias  # type: ignore[assignment]
            replace_module(network, name, layer.train(noisy.training))
        return network


def _ordinary(layer: nn.Module) -> nn.Linear | nn.Conv2d:
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    assert isinstance(layer, nn.Conv2d)
    return nn.Conv2d(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
        layer.dilation, layer.groups, False, layer.padding_mode, device="meta",
    )  # fmt: skip


@dataclass(frozen=True)
class VariationalDropout:
    """The objective of a `Variational` network: the evidence lower bound, per example.

    Attributes:
        examples: training examples, over which the divergence of the weights is shared out.
        warm_up: steps over which the weight of the divergence rises from 0 to 1; from a full weight
            at the start many layers never learn.
        objective: the expected loss, mean over the batch.

    Raises:
        ValueError: a number below 1 (warm_up: 0).
    """

    examples: int
    warm_up: int = 0
    objective: Objective = CROSS_ENTROPY

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("examples", self.examples, 1)
        checks.whole("warm_up", self.warm_up, 0)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The objective's terms with the bound as "loss", "divergence" per example and "closed"."""
        variational = behind_fabric(model, Variational, self)
        weight = min(1.0, int(variational.steps) / self.warm_up) if self.warm_up else 1.0
        variational.steps += 1
        terms = self.objective(model, batch)
        divergence = variational.kl() / self.examples
        masks = list(variational.masks.values())
        there = torch.stack([mask.sum() for mask in masks]).sum()
        return terms | {
            "loss": terms["loss"] + weight * divergence,
            "divergence": divergence,
            "closed": 1 - there / sum(mask.numel() for mask in masks),
        }
