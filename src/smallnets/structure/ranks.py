"""How many components of a decomposition are kept."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from smallnets import checks
from smallnets.structure.layers import Cost


@dataclass(frozen=True)
class RankRule:
    """How the ranks of a layer are found; exactly one of the four is given.

    Attributes:
        rank: the number itself; of a Tucker decomposition also a pair (outputs, inputs).
        share: of the full rank, in (0, 1], rounded up.
        energy: the fewest components whose squared singular values make up this share of all, in
            (0, 1].
        cost: the most components for which neither weights nor multiply-adds are above this share
            of the dense layer's, in (0, 1]; at least one.

    Raises:
        ValueError: none or several are given, or one is out of range.
    """

    rank: int | tuple[int, int] | None = None
    share: float | None = None
    energy: float | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            named = ", ".join(given) or "none"
            raise ValueError(f"give exactly one of rank, share, energy and cost; got {named}")
        for name, value in given.items():
            if name != "rank":
                checks.between(name, checks.above(name, value, 0), 0, 1)
        if isinstance(self.rank, tuple | list):
            checks.each("rank", self.rank, checks.whole, 1)
        elif self.rank is not None:
            checks.whole("rank", self.rank, 1)

    def __call__(
        self,
        spectra: Callable[[], Sequence[Tensor]],
        full: Sequence[int],
        cost_at: Callable[..., Cost],
        dense: Cost,
    ) -> tuple[int, ...]:
        """The ranks of one layer.

        Args:
            spectra: gives singular values (..., full), one tensor a rank; asked for `energy` only.
            full: the highest ranks.
            cost_at: ranks -> what the layer would cost.
            dense: what it costs as it is.

        Raises:
            ValueError: a pair where there is one rank only.
        """
        if self.rank is not None:
            ranks = self.rank if isinstance(self.rank, tuple | list) else (self.rank,) * len(full)
            if len(ranks) != len(full):
                raise ValueError(f"rank must be {len(full)} number(s); got {self.rank}")
            return tuple(ranks)
        if self.energy is not None:
            return tuple(energy_rank(values, self.energy) for values in spectra())
        if self.share is not None:
            return tuple(share_rank(most, self.share) for most in full)
        most_of_it, steps = self.cost or 1.0, max(full)

        def at(step: int) -> tuple[int, ...]:
            return tuple(-(-step * most // steps) for most in full)

        def part(step: int) -> float:
            weights, macs = cost_at(*at(step))
            return max(weights / dense.weights, macs / dense.macs)

        return at(max(1, bisect_right(range(1, steps + 1), most_of_it, key=part)))


def energy_rank(singular_values: Tensor, energy: float) -> int:
    """The fewest components that hold a share of the squared singular values.

    Args:
        singular_values: (..., n), falling; of several matrices their sum decides.
        energy: the share, in (0, 1].

    Returns:
        From 1 to n.

    Raises:
        ValueError: the share is out of range.
    """
    checks.between("energy", checks.above("energy", energy, 0), 0, 1)
    squares = singular_values.double().square().reshape(-1, singular_values.shape[-1]).sum(0)
    held = squares.cumsum(0)
    # The last sum is all there is, whatever its last digits are.
    enough = held >= min(energy, 1.0) * held[-1]
    return int(enough.int().argmax()) + 1


def share_rank(full: int, share: float) -> int:
    """A share in (0, 1] of the full rank, rounded up.

    Raises:
        ValueError: the share is out of range.
    """
    checks.between("share", checks.above("share", share, 0), 0, 1)
    return max(1, ceil(full * share - 1e-9))  # 70 * 0.1 ends a digit above 7


def check_rank(name: str, rank: int, full: int) -> int:
    """Return a rank from 1 to `full`.

    Raises:
        ValueError: it is none.
    """
    checks.between(name, checks.whole(name, rank, 1), 1, full)
    return int(rank)


def truncation_error(singular_values: Tensor, rank: int) -> Tensor:
    """The Frobenius error of a matrix's best approximation: the root of the sum of the squares of
    the singular values that are dropped.

    Args:
        singular_values: (..., n), falling.
        rank: how many are kept, from 0 to n.

    Returns:
        (...).

    Raises:
        ValueError: the rank is out of range.
    """
    checks.between("rank", checks.whole("rank", rank, 0), 0, singular_values.shape[-1])
    return torch.linalg.vector_norm(singular_values[..., rank:], dim=-1)
