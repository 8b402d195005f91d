"""What a trained network remembers of its data: BatchNorm statistics, and how to match them.

Every BatchNorm layer keeps the mean and the variance of what it was fed in training. Pictures that
make the same means and deviations are, to the network, like the pictures it was trained on (the
BNS loss of Genie, section 2.2 of the chapter).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from smallnets import checks
from smallnets.models.hooks import Recorder
from smallnets.models.moments import channel_moments

REDUCTIONS = ("channel_mean", "sum")
EPSILON = 1e-6  # as in the official code, whatever the layer's own


@dataclass(frozen=True)
class BNStat:
    """Name of a BatchNorm layer, and the mean and standard deviation (channels,) of its input."""

    name: str
    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class BNSLoss:
    """The loss in parts, each a tensor (): of means, of deviations; images' terms included."""

    mean: Tensor
    std: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.mean + self.std


def bn_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers of a network by name.

    Raises:
        ValueError: it has none, or one that keeps no statistics.
    """
    found = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    if not found:
        raise ValueError(
            "the network must have BatchNorm layers (BatchNorm1d, 2d, 3d, SyncBatchNorm), whose "
            f"statistics are all that is left of its data; {type(model).__name__} has none"
        )
    for name, layer in found.items():
        if layer.running_mean is None or layer.running_var is None:
            raise ValueError(
                f"BatchNorm layers must keep running statistics; {name!r} keeps none "
                "(track_running_stats=False)"
            )
    return found


def bn_statistics(model: nn.Module, epsilon: float = EPSILON) -> list[BNStat]:
    """The stored statistics of every BatchNorm layer, in the order of `model.named_modules()`.

    Args:
        model: any network with BatchNorm.
        epsilon: added to variances before the root.

    Warns if no layer has ever seen data (all means 0, all variances 1).

    Raises:
        ValueError: as `bn_layers`.
    """
    stats, fresh = [], True
    for name, layer in bn_layers(model).items():
        mean, variance = layer.running_mean.detach(), layer.running_var.detach()
        fresh = fresh and bool((mean == 0).all()) and bool((variance == 1).all())
        stats.append(BNStat(name, mean.clone(), (variance + epsilon).sqrt()))
    if fresh:
        warnings.warn(
            "no BatchNorm layer of this network has seen data: its statistics say nothing",
            stacklevel=2,
        )
    return stats


class BatchNormInputs:
    """Keeps what goes into a network's BatchNorm layers, in the order of `bn_statistics`::

        with BatchNormInputs(network) as tap:
            network(images)
            loss = bns_loss(tap.inputs, stats, images)

    The inputs are those of the latest pass and part of its graph.

    Args:
        model: a network.
        names: of the layers to listen to; all by default.

    Raises:
        ValueError: the network is compiled or scripted, so that nothing can listen to it.
    """

    def __init__(self, model: nn.Module, names: Sequence[str] | None = None) -> None:
        self._names = list(bn_layers(model)) if names is None else list(names)
        self._recorder = Recorder(model, self._names, "in")

    @property
    def names(self) -> list[str]:
        """The layers that have run: auxiliary classifiers do not, outside of training."""
        return [name for name in self._names if self._recorder.has(name)]

    @property
    def inputs(self) -> list[Tensor]:
        """One tensor (batch, channels, ...) a layer that has run.

        Raises:
            ValueError: the network did not call any of the layers, or one of them twice.
        """
        return list(self._recorder.tensors(self.names or self._names).values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._recorder.close()


def bns_loss(
    inputs: Sequence[Tensor],
    stats: Sequence[BNStat],
    images: Tensor | None = None,
    *,
    reduction: str = "channel_mean",
    per_image: bool = False,
) -> BNSLoss:
    """Squared distances of a batch's statistics from the stored ones, summed over layers.

    Args:
        inputs: of every BatchNorm layer, (batch, channels, ...).
        stats: of the same layers.
        images: (batch, channels, height, width); adds the input term, which asks of every image
            and channel alone a mean of 0 and a deviation of 1.
        reduction: "channel_mean" divides a layer's sum by its channels, as the official code does;
            "sum" is the formula as written in the paper.
        per_image: match the statistics of every image by itself and take their mean over the
            batch, summed over channels, as ZeroQ does; a map of a single place has no deviation.

    Returns:
        Its parts; deviations have the divisor n - 1.

    Raises:
        ValueError: as many inputs as layers are needed, with their channels; unknown reduction; a
            batch too small to have a deviation.
    """
    checks.one_of("reduction", reduction, REDUCTIONS)
    if len(inputs) != len(stats):
        raise ValueError(f"inputs must be those of {len(stats)} layers; got {len(inputs)}")
    mean_terms, std_terms = [], []
    for x, stat in zip(inputs, stats, strict=True):
        if x.dim() < 2 or x.shape[1] != len(stat.mean):
            raise ValueError(
                f"the input of {stat.name} must be (batch, {len(stat.mean)}, ...); "
                f"got {tuple(x.shape)}"
            )
        if per_image:
            places = x.reshape(1, x.shape[0] * x.shape[1], -1)
            mean, variance = (one.view(x.shape[:2]) for one in channel_moments(places))
            mean_terms.append((mean - stat.mean).square().sum() / len(x))
            if places.shape[2] > 1:
                std_terms.append((_root(variance) - stat.std).square().sum() / len(x))
            continue
        if x.numel() // x.shape[1] < 2:
            raise ValueError(
                f"a batch must give {stat.name} two values a channel or more to have a deviation; "
                f"got shape {tuple(x.shape)}"
            )
        share = len(stat.mean) if reduction == "channel_mean" else 1
        mean, variance = channel_moments(x)
        mean_terms.append((mean - stat.mean).square().sum() / share)
        std_terms.append((_root(variance) - stat.std).square().sum() / share)
    if images is not None:
        variance, mean = torch.var_mean(images, (2, 3))
        mean_terms.append(mean.square().sum() / len(images))
        std_terms.append((_root(variance) - 1).square().sum() / len(images))
    return BNSLoss(torch.stack(mean_terms).sum(), torch.stack(std_terms).sum())


def matching_loss(model: nn.Module, images: Tensor, stats: Sequence[BNStat] | None = None) -> float:
    """The BNS loss of finished images through the plain network, by which methods are compared.

    Of its BatchNorm terms alone: that every image has mean 0 and deviation 1 by itself is asked of
    images to be made, and not true of real ones.
    """
    stats = bn_statistics(model) if stats is None else stats
    with torch.no_grad(), BatchNormInputs(model) as tap:
        model(images)
        running = [one for one in stats if one.name in tap.names]
        return float(bns_loss(tap.inputs, running).total)


def _root(variance: Tensor) -> Tensor:
    """The root with gradient 0 at 0, where that of a channel without any spread is infinite."""
    return variance.clamp(min=1e-24).sqrt()
