"""Group lasso: groups of weights that go to zero together (Wen et al., NeurIPS 2016).

    R(w) = lambda sum_g ||w_g||,    prox: w_g <- max(0, 1 - eta lambda / ||w_g||) w_g

The gradient of R, w_g / ||w_g||, makes groups small; the proximal step after a step of learning
rate eta makes them zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from smallnets import checks
from smallnets.data import TrainingData
from smallnets.prune.importance.groups import ChannelGroup, Member
from smallnets.prune.importance.scores import per_unit
from smallnets.prune.sparse.objectives import CROSS_ENTROPY, behind_fabric
from smallnets.prune.structured.channels import Grouped, by_output, open_units
from smallnets.surgery import check_plain
from smallnets.training import Batch, TrainSettings, fit
from smallnets.training.checkpoint import History
from smallnets.training.loop import Objective


def group_norms(weight: Tensor, dim: int = 0) -> Tensor:
    """Euclidean norms of a weight's groups.

    Args:
        weight: (out, in, ...) with two dimensions or more.
        dim: 0 for filters, 1 for input channels, or any other dimension.

    Returns:
        (groups,), one for every place of that dimension; its gradient at zero is zero.

    Raises:
        ValueError: fewer than two dimensions, or a dimension that there is not.
    """
    if weight.ndim < 2:
        raise ValueError(
            f"group lasso needs a weight with at least 2 dimensions; got shape "
            f"{tuple(weight.shape)}"
        )
    checks.between("dim", checks.whole("dim", dim, 0), 0, weight.ndim - 1)
    return torch.linalg.vector_norm(weight.transpose(0, dim).flatten(1), dim=1)


def group_lasso(weight: Tensor, dim: int = 0, *, by_size: bool = False) -> Tensor:
    """The penalty R / lambda, a scalar: the sum of the groups' norms.

    Args:
        weight, dim: as in `group_norms`.
        by_size: multiply every norm by the root of the number of weights in the group.
    """
    total = group_norms(weight, dim).sum()
    return total * (weight.numel() // weight.shape[dim]) ** 0.5 if by_size else total


def prox_group_lasso(weight: Tensor, threshold: float, dim: int = 0) -> Tensor:
    """The weight after a proximal step; groups whose norm is at most the threshold are zero.

    Args:
        weight, dim: as in `group_norms`.
        threshold: eta lambda, at least 0.
    """
    checks.at_least("threshold", threshold, 0)
    kept = shrinkage(group_norms(weight, dim), threshold)
    shape = [1] * weight.ndim
    shape[dim] = -1
    return weight * kept.view(shape)


def shrinkage(norms: Tensor, threshold: float | Tensor) -> Tensor:
    """max(0, 1 - threshold / norm), where a norm of 0 gives 0."""
    return (norms - threshold).clamp_min(0) / norms.clamp_min(torch.finfo(norms.dtype).tiny)


def _parts(network: nn.Module, group: ChannelGroup) -> Iterator[tuple[Member, Tensor]]:
    """What writes a group, output channels first: filters and biases of its producers, scales and
    shifts of its norms.
    """
    for member in (*group.producers, *group.norms):
        module = network.get_submodule(member.module)
        if module.weight is not None:
            yield member, by_output(module)
        if module.bias is not None:
            yield member, module.bias  # type: ignore[misc]


def unit_norms(network: nn.Module, group: ChannelGroup) -> Tensor:
    """Norms of everything that writes a unit of a channel group: (units,).

    That is its filters and biases in every layer of the group, and the scales and shifts of the
    norms behind them. A unit whose norm is zero says nothing, so that it can be taken out.
    """
    squares = [
        per_unit(part.square().flatten(1).sum(1) if part.ndim > 1 else part.square(), member,
                 group.size)
        for member, part in _parts(network, group)
    ]  # fmt: skip
    total = torch.stack(squares).sum(0)
    zero = total == 0
    return torch.where(zero, total, torch.where(zero, 1, total).sqrt())


def unit_sizes(network: nn.Module, group: ChannelGroup) -> float:
    """Numbers in everything that writes a unit."""
    return sum(
        part[0].numel() * len(member.places) / group.size for member, part in _parts(network, group)
    )


@torch.no_grad()
def shrink_units(network: nn.Module, group: ChannelGroup, threshold: float) -> None:
    """One proximal step on the units of a group, in place."""
    kept = shrinkage(unit_norms(network, group), threshold)
    for member, part in _parts(network, group):
        factors = torch.ones_like(part[:, *[0] * (part.ndim - 1)])
        factors[list(member.places)] = kept[list(member.units)].to(factors)
        part.mul_(factors.view(-1, *[1] * (part.ndim - 1)))


@dataclass(frozen=True)
class GroupLasso:
    """The objective of a `Grouped` network whose channels go to zero, for `fit_lasso`.

    Attributes:
        strength: lambda.
        by_size: whether the root of its number of weights multiplies a group's norm.
        proximal: a proximal step after every step of the optimiser; otherwise the penalty is added
            to the loss, and nothing becomes zero.
        objective: what is learned.

    Raises:
        ValueError: a strength below 0.
    """

    strength: float = 1e-3
    by_size: bool = True
    proximal: bool = True
    objective: Objective = CROSS_ENTROPY

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.at_least("strength", self.strength, 0)

    def weights_of(self, grouped: Grouped) -> dict[str, float]:
        """Group -> what multiplies the norms of its units, lambda included."""
        return {
            name: self.strength * (unit_sizes(grouped.network, g) ** 0.5 if self.by_size else 1)
            for name, g in grouped.groups.items()
        }

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The objective's terms, "penalty", and "zero", the share of units whose norm is 0."""
        grouped = behind_fabric(model, Grouped, self)
        if self.proximal and not getattr(grouped, "stepping", False):
            raise ValueError(
                "GroupLasso with proximal=True must be trained by fit_lasso; got another loop"
            )
        weights = self.weights_of(grouped)
        with torch.set_grad_enabled(not self.proximal):
            norms = {n: unit_norms(grouped.network, g) for n, g in grouped.groups.items()}
            penalty = torch.stack([weights[n] * norm.sum() for n, norm in norms.items()]).sum()
        zero = (torch.cat(list(norms.values())) == 0).float().mean()
        terms = self.objective(model, batch)
        if not self.proximal:
            terms = terms | {"loss": terms["loss"] + penalty}
        return terms | {"penalty": penalty, "zero": zero}

    def after_step(self, grouped: Grouped, rate: float) -> None:
        """The proximal step, if there is one, after a step of a learning rate."""
        if not self.proximal:
            return
        for name, weight in self.weights_of(grouped).items():
            shrink_units(grouped.network, grouped.groups[name], rate * weight)


@contextmanager
def _stepping(grouped: Grouped, lasso: GroupLasso) -> Iterator[None]:
    """Let the proximal step follow every step of an optimiser that moves this network."""
    mine = {id(parameter) for parameter in grouped.parameters()}

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        groups = optimizer.param_groups
        if any(id(parameter) in mine for group in groups for parameter in group["params"]):
            lasso.after_step(grouped, groups[0]["lr"])

    handle = register_optimizer_step_post_hook(after)
    grouped.stepping = True  # type: ignore[assignment]
    try:
        yield
    finally:
        handle.remove()
        del grouped.stepping


def fit_lasso(
    grouped: Grouped,
    dataset: TrainingData,
    settings: TrainSettings,
    *,
    seed: int,
    lasso: GroupLasso = GroupLasso(),
    cache_dir: Path | None = None,
) -> History:
    """Train a network whose channels go to zero.

    Args:
        grouped: trained in place.
        dataset, settings, seed, cache_dir: as in `smallnets.training.fit`.
        lasso: the penalty and what is learned.

    Raises:
        ValueError: a layer whose weight is not a plain parameter, and as `fit`.
    """
    for group in grouped.groups.values():
        for member in group.producers:
            check_plain(member.module, grouped.network.get_submodule(member.module))
    with _stepping(grouped, lasso):
        return fit(
            grouped, dataset, settings, seed=seed, objective=lasso, cache_dir=cache_dir,
            label="group lasso",
        )  # fmt: skip


def without_zero_units(grouped: Grouped, example: Tensor) -> nn.Module:
    """A smaller copy of a network, without the units whose norm is zero; its answers are the same.

    Args:
        grouped: trained by `fit_lasso`.
        example: (batch, ...) input for the trace.

    Raises:
        ValueError: channels that cannot be removed.
    """
    with torch.no_grad():
        norms = {name: unit_norms(grouped.network, g) for name, g in grouped.groups.items()}
    return grouped.without(open_units(norms), example)
