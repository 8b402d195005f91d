"""What an old classifier remembers of its data: BatchNorm statistics, and how to match them.

Not the loss of Genie (`smallnets.quantize.genie.bns_loss`: squares of means and deviations, a mean
over channels). Here norms are not squared, and variances are compared, not deviations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from smallnets.models.hooks import Recorder
from smallnets.models.moments import channel_moments
from smallnets.synthesize.replay.heads import head_name

TINY = 1e-8  # added to variances in the loss of Always Be Dreaming


@dataclass(frozen=True)
class BNStatistics:
    """Name of a BatchNorm layer, and running mean and variance (channels,) of its input."""

    name: str
    mean: Tensor
    var: Tensor


def bn_statistics(classifier: nn.Module) -> list[BNStatistics]:
    """Running statistics of every BatchNorm layer, in the order of `named_modules()`.

    Raises:
        ValueError: there is none, or one that keeps no statistics.
    """
    found = [(name, m) for name, m in classifier.named_modules() if isinstance(m, _BatchNorm)]
    if not found:
        raise ValueError(
            "the classifier must have BatchNorm layers, whose statistics are to be matched; "
            f"{type(classifier).__name__} has none: set the weight bn to 0"
        )
    for name, layer in found:
        if layer.running_mean is None or layer.running_var is None:
            raise ValueError(
                f"BatchNorm layers must keep running statistics; {name!r} keeps none "
                "(track_running_stats=False)"
            )
    return [BNStatistics(n, m.running_mean.detach(), m.running_var.detach()) for n, m in found]


class ClassifierTap:
    """Keeps, at each pass, what goes into a classifier's BatchNorm layers and into its head::

        with ClassifierTap(classifier) as tap:
            logits = classifier(images)
            loss = bn_norm_loss(tap.inputs, tap.statistics) + activation_loss(tap.features)

    All is part of the pass's graph. When the block ends, however it ends, no hook and no tensor is
    left on the classifier: it can be copied, saved and run at its old speed.

    Args:
        classifier: any network whose head is an `nn.Linear`.
        head: dotted name of its head, see `head_name`.
        norms: whether to listen to BatchNorm layers, which there must then be.

    Raises:
        ValueError: see `head_name` and `bn_statistics`, or a network that is compiled or scripted.
    """

    def __init__(
        self, classifier: nn.Module, head: str | None = None, *, norms: bool = True
    ) -> None:
        self._head = head_name(classifier, head)
        self._statistics = bn_statistics(classifier) if norms else []
        names = [*(one.name for one in self._statistics), self._head]
        self._recorder = Recorder(classifier, names, "in")

    @property
    def statistics(self) -> list[BNStatistics]:
        """Of the layers that have run: auxiliary classifiers do not, outside of training."""
        return [one for one in self._statistics if self._recorder.has(one.name)]

    @property
    def inputs(self) -> list[Tensor]:
        """One tensor (batch, channels, ...) for each of `statistics`."""
        return list(self._recorder.tensors([one.name for one in self.statistics]).values())

    @property
    def features(self) -> Tensor:
        """(batch, features), as the head is given them."""
        return self._recorder.tensors([self._head])[self._head]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._recorder.close()


def bn_norm_loss(inputs: Sequence[Tensor], statistics: Sequence[BNStatistics]) -> Tensor:
    """mean over layers of |var(x) - running_var| + |mean(x) - running_mean|, Euclidean norms.

    Args:
        inputs: of every layer, (batch, channels, ...).
        statistics: of the same layers.

    Returns:
        A scalar, in float32 or wider. Variances have the divisor n.

    Raises:
        ValueError: as many inputs as layers are needed, with their channels.
    """
    terms = []
    for x, stored in _paired(inputs, statistics):
        mean, variance = channel_moments(x, correction=0)
        terms.append(torch.linalg.vector_norm(variance - stored.var.to(variance)))
        terms.append(torch.linalg.vector_norm(mean - stored.mean.to(mean)))
    return torch.stack(terms).sum() / len(inputs)


def gaussian_bn_loss(inputs: Sequence[Tensor], statistics: Sequence[BNStatistics]) -> Tensor:
    """mean over layers and channels of KL(N(stored) || N(batch)), as Always Be Dreaming has it.

    Per channel: log(s / s_l) - (1 - (v_l + (m_l - m)^2) / v) / 2 with mean m, variance v = s^2 of
    the batch (divisor n), and the stored ones with index l; 1e-8 is added to both variances.

    Args, Returns and Raises: as `bn_norm_loss`.
    """
    terms = []
    for x, stored in _paired(inputs, statistics):
        mean, variance = channel_moments(x, correction=0)
        v, v_l = variance + TINY, stored.var.to(variance) + TINY
        gap = (stored.mean.to(mean) - mean).square()
        terms.append(((v / v_l).log() / 2 - (1 - (v_l + gap) / v) / 2).mean())
    return torch.stack(terms).mean()


def _paired(
    inputs: Sequence[Tensor], statistics: Sequence[BNStatistics]
) -> list[tuple[Tensor, BNStatistics]]:
    if len(inputs) != len(statistics) or not inputs:
        raise ValueError(
            f"inputs must be those of {len(statistics)} layers, one or more; got {len(inputs)}"
        )
    for x, stored in zip(inputs, statistics, strict=True):
        if x.dim() < 2 or x.shape[1] != len(stored.mean):
            raise ValueError(
                f"the input of {stored.name!r} must be (batch, {len(stored.mean)}, ...); "
                f"got {tuple(x.shape)}"
            )
    return list(zip(inputs, statistics, strict=True))
