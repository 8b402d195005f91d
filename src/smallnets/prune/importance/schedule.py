"""When channels go and how many: averages over minibatches, a global ranking, the schedule.

The schedule is that of the official engine, step for step: scores of minibatches are averaged since
the last pruning, smoothed with a momentum, and the least important units of the *whole* network go.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.prune.importance.derivatives import finite


@dataclass(frozen=True)
class Schedule:
    """How a network is pruned while it is trained.

    Attributes:
        every: minibatches from one pruning to the next; the first comes one minibatch later.
        remove: units that go each time.
        prunings: how often at most.
        limit: units that may go in all; None is no limit.
        momentum: weight of the past in the average of scores, in [0, 1).
        group_size: units of a layer that go together, as hardware may wish.
        most_loss: prune no more once the mean loss since the last pruning exceeds it.
        least: units that every layer keeps, or the share of its units if below 1.

    Raises:
        ValueError: a field is out of range.
    """

    every: int = 30
    remove: int = 100
    prunings: int = 10
    limit: int | None = None
    momentum: float = 0.9
    group_size: int = 1
    most_loss: float = 100.0
    least: float = 1

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in ("every", "remove", "prunings", "group_size"):
            checks.whole(name, getattr(self, name), 1)
        checks.at_least("least", self.least, 0)
        if self.limit is not None:
            checks.whole("limit", self.limit, 1)
        checks.above("most_loss", self.most_loss, 0)
        if not 0 <= checks.at_least("momentum", self.momentum, 0) < 1:
            raise ValueError(f"momentum must be below 1; got {self.momentum!r}")


def select(
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    gone: int,
    *,
    group_size: int = 1,
    least: float = 1,
) -> tuple[dict[str, Tensor], float]:
    """Masks after the least important units of the whole network have gone.

    Units of a layer are sorted by score and cut into runs of `group_size`, a run scores the sum of
    its members, and all runs up to a threshold go. Units that are gone already score 0; with ties
    at the threshold more may go than were asked for.

    Args:
        scores: layer -> (units,).
        masks: layer -> (units,), 1 for what is still there.
        gone: how many units shall be gone afterwards, with those that are gone before.
        group_size: units of a layer that go together.
        least: units that every layer keeps, its best ones; below 1, a share of them.

    Returns:
        The new masks and the threshold.

    Raises:
        ValueError: a mask of another size, scores that are not finite, or more units to remove than
            there are to spare.
    """
    checks.whole("group_size", group_size, 1)
    runs, whole = [], {}
    for name, score in scores.items():
        if masks[name].shape != score.shape:
            raise ValueError(
                f"mask of {name!r} must have shape {tuple(score.shape)}; "
                f"got {tuple(masks[name].shape)}"
            )
        finite(f"scores of {name!r}", score)
        closed = score * masks[name]
        order = closed.argsort(stable=True)
        stay = units_kept(least, len(score))
        if stay:
            closed = closed.index_fill(0, order[-stay:], torch.inf)
        parts = order.split(group_size)
        whole[name] = parts
        runs += [closed[part].sum() for part in parts]
    ranked = torch.stack(runs).sort().values
    spare = int(ranked.isfinite().sum())
    count = min(gone // group_size, len(ranked))
    if count > spare:
        raise ValueError(
            f"at most {spare * group_size} units can go with {least} left in every layer; "
            f"got {gone}"
        )
    if count < 1:
        return {name: mask.clone() for name, mask in masks.items()}, -torch.inf
    threshold = ranked[count - 1]
    chosen, runs_left = {}, iter(runs)
    for name, parts in whole.items():
        mask = masks[name].clone()
        for part in parts:
            if next(runs_left) <= threshold:
                mask[part] = 0
        chosen[name] = mask
    return chosen, threshold.item()


def units_kept(least: float, size: int) -> int:
    """Units that a layer of a size keeps in any case: `least` of them, or that share if below 1."""
    return min(size, ceil(least * size) if least < 1 else int(least))


class Ranking(nn.Module):
    """The state of a schedule: masks, the scores since the last pruning, their running average.

    All of it lies in buffers, so that a checkpoint of the network that is pruned carries it along.

    Args:
        sizes: layer -> units.
        schedule: when and how much.
        enough: masks -> whether nothing more has to go, asked after every pruning.
    """

    mask: Tensor
    average: Tensor
    total: Tensor
    counts: Tensor

    def __init__(
        self,
        sizes: Mapping[str, int],
        schedule: Schedule,
        enough: Callable[[dict[str, Tensor]], bool] | None = None,
    ) -> None:
        super().__init__()
        self.sizes, self.schedule, self.enough = dict(sizes), schedule, enough
        units = sum(sizes.values())
        zeros = torch.zeros(units, dtype=torch.float64)
        self.register_buffer("mask", torch.ones(units))
        self.register_buffer("average", zeros.clone())
        self.register_buffer("total", zeros.clone())
        # minibatches in all, minibatches since the last pruning, their loss, prunings, stopped
        self.register_buffer("counts", torch.zeros(5, dtype=torch.float64))

    @property
    def masks(self) -> dict[str, Tensor]:
        """Layer -> (units,), 1 for what is there."""
        return self._by_layer(self.mask)

    @property
    def importance(self) -> dict[str, Tensor]:
        """Layer -> (units,), the running average of the scores."""
        return self._by_layer(self.average)

    @property
    def gone(self) -> int:
        """Number of units that have gone."""
        return int((self.mask == 0).sum())

    def observe(self, scores: Mapping[str, Tensor], loss: float = 0.0) -> bool:
        """Take the scores of one minibatch, and prune if it is time. Returns whether it was.

        Args:
            scores: layer -> (units,).
            loss: of the minibatch.

        Raises:
            ValueError: a layer is missing, or a score is not finite.
        """
        for name in self.sizes:
            checks.one_of("layer with scores", name, scores)
        self.counts[0] += 1
        if self.done:
            return False
        flat = torch.cat([scores[name].detach().double() for name in self.sizes])
        self.total += finite("scores", flat).to(self.total.device)
        self.counts[1] += 1
        self.counts[2] += loss
        step = int(self.counts[0]) - 1
        if step == 0 or step % self.schedule.every:
            return False
        if self.counts[2] / self.counts[1] > self.schedule.most_loss:
            self.counts[4] = 1
            return False
        self._prune()
        return True

    @property
    def done(self) -> bool:
        """Whether nothing more will go."""
        return bool(self.counts[4]) or int(self.counts[3]) >= self.schedule.prunings

    def _prune(self) -> None:
        plan = self.schedule
        mean = self.total / self.counts[1]
        first = int(self.counts[3]) == 0
        self.average.copy_(
            mean if first else plan.momentum * self.average + (1 - plan.momentum) * mean
        )
        spare = sum(size - units_kept(plan.least, size) for size in self.sizes.values())
        goal = min(self.gone + plan.remove, spare)
        if plan.limit is not None:
            goal = min(goal, plan.limit)
        masks, _ = select(
            self._by_layer(self.average),
            self.masks,
            goal,
            group_size=plan.group_size,
            least=plan.least,
        )
        self.mask.copy_(torch.cat([masks[name] for name in self.sizes]))
        self.total.zero_()
        self.counts[1:3] = 0
        self.counts[3] += 1
        if self.enough is not None and self.enough(self.masks):
            self.counts[4] = 1

    def _by_layer(self, flat: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.sizes, flat.split(list(self.sizes.values())), strict=True))


# Published schedules (official configurations): 25 epochs of SGD, momentum 0.9, batches of 256,
# rate 1e-3 with a tenth of it after every 10 epochs, no weight decay. Keys: network, share of gates
# that stays. The last of ResNet-50 does not fit its name: 5,500 of 11,392 leaves 52 %.
PUBLISHED = {
    "resnet50": {
        0.91: Schedule(30, 100, 10, 1000),
        0.81: Schedule(30, 100, 22, 2200),
        0.72: Schedule(30, 100, 32, 3200),
        0.56: Schedule(30, 100, 55, 5500),
    },
    "resnet101": {
        0.75: Schedule(30, 100, 50, 5000),
        0.55: Schedule(30, 100, 90, 9000),
        0.50: Schedule(30, 100, 100, 10000),
        0.40: Schedule(30, 100, 120, 12000),
    },
}
