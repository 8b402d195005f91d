"""Pruning a network: at once, in rounds, or little by little while it goes on learning."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.prune.importance.derivatives import Data, paired
from smallnets.prune.importance.gates import gated
from smallnets.prune.importance.groups import ChannelGroup, group_sites
from smallnets.prune.importance.schedule import Ranking, Schedule, select, units_kept
from smallnets.prune.importance.scores import (
    OF_WEIGHTS,
    Scores,
    divide_by_sites,
    scores,
    weight_scores,
)
from smallnets.prune.importance.surgery import Costs, masked
from smallnets.training import Batch

WHILE_TRAINING = ("Taylor FO", *OF_WEIGHTS)


def all_open(groups: Mapping[str, ChannelGroup]) -> dict[str, Tensor]:
    """Masks of ones for every group."""
    return {name: torch.ones(group.size) for name, group in groups.items()}


def kept_units(masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of units that masks leave in every group."""
    return {name: int(mask.sum()) for name, mask in masks.items()}


def masks_at_macs(
    found: Scores, costs: Costs, share: float, *, least: float = 1
) -> dict[str, Tensor]:
    """Masks that take the least important units of the whole network, one more at a time, until at
    most a share of the multiply-accumulates is left.

    Args:
        found: group -> (units,) scores.
        costs: of the network.
        share: of its multiply-accumulates that may stay, in (0, 1].
        least: units that every group keeps; below 1, a share of them.

    Raises:
        ValueError: a share that cannot be reached.
    """
    checks.above("share", checks.between("share", share, 0, 1), 0)
    open_ = {name: torch.ones(score.shape) for name, score in found.items()}
    low, high = 0, sum(len(score) - units_kept(least, len(score)) for score in found.values())

    def left(gone: int) -> tuple[dict[str, Tensor], float]:
        masks, _ = select(found, open_, gone, least=least)
        return masks, costs.macs(kept_units(masks)) / costs.macs()

    if left(high)[1] > share:
        raise ValueError(f"share must be at least {left(high)[1]:.3f} of this network; got {share}")
    while low < high:  # the smallest number of units that is enough
        middle = (low + high) // 2
        low, high = (low, middle) if left(middle)[1] <= share else (middle + 1, high)
    return left(low)[0]


def iterative_masks(
    model: nn.Module,
    groups: Mapping[str, ChannelGroup],
    batches: Data,
    costs: Costs,
    share: float,
    *,
    criterion: str = "Taylor FO",
    rounds: int = 8,
    divide: bool = False,
    least: float = 1,
) -> dict[str, Tensor]:
    """Masks at a share of the multiply-accumulates, with scores taken anew after every round of
    removals, without any training in between.

    Args:
        model, groups, batches, costs: as in `scores` and `masks_at_macs`; batches are read in every
            round.
        share: of the multiply-accumulates that may stay.
        criterion: out of `CRITERIA`.
        rounds: in how many steps, equal in multiply-accumulates.
        divide: whether scores of shared gates are divided by their number of places.
        least: as in `masks_at_macs`.

    Raises:
        ValueError: as these, or batches that can be read once and several rounds.
    """
    data, masks = paired(model, batches), all_open(groups)
    if data.once and rounds > 1:
        raise ValueError(
            f"batches must start anew in each of {rounds} rounds; got "
            f"{type(data.source).__name__}, which can be read once"
        )
    for step in range(1, checks.whole("rounds", rounds, 1) + 1):
        with masked(model, groups, masks):
            found = scores(model, groups, data, (criterion,))[criterion]
        found = divide_by_sites(found, groups) if divide else found
        # what has gone comes first in the next ranking, whatever its sign and size
        ranked = {
            name: torch.where(masks[name] > 0, score, torch.full_like(score, -1))
            for name, score in found.items()
        }
        masks = masks_at_macs(ranked, costs, 1 - (1 - share) * step / rounds, least=least)
    return masks


class Prunable(nn.Module):
    """A network with a gate on every group, and the ranking that closes them.

    Args:
        network: is trained in place.
        groups: of this network.
        schedule: when how many units go.
        costs: with `share`, a goal at which pruning stops.
        share: of the multiply-accumulates at which nothing more has to go.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: Mapping[str, ChannelGroup],
        schedule: Schedule,
        costs: Costs | None = None,
        share: float | None = None,
    ) -> None:
        super().__init__()
        self.network, self.groups, self.sites = network, groups, group_sites(groups)
        enough = None
        if costs is not None and share is not None:
            enough = partial(_cheap_enough, costs=costs, share=share)
        sizes = {name: group.size for name, group in groups.items()}
        self.ranking = Ranking(sizes, schedule, enough)
        self.goal = share

    def extra_repr(self) -> str:
        """What else decides a training, for the name under which it is kept."""
        return f"{self.ranking.schedule}, share={self.goal}"

    def forward(self, images: Tensor, gates: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits of the network with its gates as they are, or as given."""
        with gated(self.network, self.sites, self.ranking.masks if gates is None else gates):
            return self.network(images)


def _cheap_enough(masks: Mapping[str, Tensor], costs: Costs, share: float) -> bool:
    return costs.macs(kept_units(masks)) <= share * costs.macs()


@dataclass(frozen=True)
class PruneWhileTraining:
    """The objective of a `Prunable`: cross-entropy, whose gradients also score the gates.

    The pass that trains the weights is the pass that scores the channels; nothing is computed
    twice.

    Attributes:
        criterion: "Taylor FO", or one that looks at the weights only.
        divide: whether scores of shared gates are divided by their number of places.
    """

    criterion: str = "Taylor FO"
    divide: bool = False

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.one_of("criterion", self.criterion, WHILE_TRAINING)

    def __call__(self, model: Prunable, batch: Batch) -> dict[str, Tensor]:
        gates = {name: mask.clone().requires_grad_() for name, mask in model.ranking.masks.items()}
        loss = F.cross_entropy(model(batch.images, gates).float(), batch.labels)
        if self.criterion == "Taylor FO":
            arrived: dict[str, Tensor] = {}
            for name, gate in gates.items():
                gate.register_hook(partial(self._arrive, model, arrived, name, loss.item()))
        else:
            found = weight_scores(model.network, model.groups, self.criterion, batch.noise)
            self._observe(model, found, loss.item())
        return {"loss": loss, "kept": model.ranking.mask.mean()}

    def _arrive(
        self,
        model: Prunable,
        arrived: dict[str, Tensor],
        name: str,
        loss: float,
        gradient: Tensor,
    ) -> None:
        """Note the gradient of a gate; with the last one, the minibatch is scored."""
        arrived[name] = gradient.detach()
        if len(arrived) == len(model.groups):
            masks = model.ranking.masks
            squares = {name: (masks[name] * slope).square() for name, slope in arrived.items()}
            self._observe(model, squares, loss)

    def _observe(self, model: Prunable, found: Scores, loss: float) -> None:
        model.ranking.observe(divide_by_sites(found, model.groups) if self.divide else found, loss)
