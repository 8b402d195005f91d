"""The architectures that a tiny search chooses from, and which of them a budget allows."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from smallnets import checks
from smallnets.data import Dataset
from smallnets.measure import macs
from smallnets.models.staged import StagedNetwork, pooled_classifier
from smallnets.structure.blocks import BLOCKS, dense_block, make_block
from smallnets.structure.networks import Place, assembled, places

CANDIDATES = ("dense", "separable", "inverted2", "inverted", "skip")

Choices = tuple[str, ...]  # a block for every place


@dataclass(frozen=True)
class SearchSpace:
    """One of several blocks at every place of a small network.

    Attributes:
        num_classes: length of the logits.
        in_channels: channels of the images.
        size: height and width of the images.
        width: channels of the first of three stages.
        blocks: places a stage.
        candidates: names of `BLOCKS`; those that a place cannot have, such as "skip" where the
            shape changes, are left out there.
        stem_stride: stride of the first convolution.

    Raises:
        ValueError: a number is below 1, a name is unknown or given twice, or a place has no
            candidate.
    """

    num_classes: int
    in_channels: int = 3
    size: tuple[int, int] = (32, 32)
    width: int = 8
    blocks: int = 2
    candidates: tuple[str, ...] = CANDIDATES
    stem_stride: int = 1

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in ("num_classes", "in_channels", "width", "blocks", "stem_stride"):
            checks.whole(name, getattr(self, name), 1)
        if not isinstance(self.size, tuple | list) or len(self.size) != 2:
            raise ValueError(f"size must be a height and a width; got {self.size!r}")
        checks.each("size", self.size, checks.whole, 1)
        object.__setattr__(self, "size", tuple(self.size))
        if isinstance(self.candidates, str) or not isinstance(self.candidates, Iterable):
            raise ValueError(f"candidates must be names of blocks; got {self.candidates!r}")
        object.__setattr__(self, "candidates", tuple(self.candidates))
        checks.at_least("number of candidates", len(self.candidates), 1)
        for name in self.candidates:
            checks.one_of("every one of candidates", name, BLOCKS)
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError(f"candidates must differ; got {', '.join(self.candidates)}")
        for spot, names in zip(self.places, self.options, strict=True):
            if not names:
                raise ValueError(
                    f"every place must have a candidate; {spot.in_channels} to {spot.channels} "
                    f"channels with stride {spot.stride} can have none of "
                    f"{', '.join(self.candidates)}"
                )

    @classmethod
    def of(cls, dataset: Dataset, **others: Any) -> "SearchSpace":
        """A space for the images and classes of a data set."""
        return cls(dataset.num_classes, dataset.channels, dataset.size, **others)

    @cached_property
    def places(self) -> list[Place]:
        """Where blocks stand, in order."""
        return places(self.width, self.blocks, self.stem_stride)

    @cached_property
    def options(self) -> list[Choices]:
        """The candidates that each place can have."""
        return [
            tuple(name for name in self.candidates if _can_be(name, spot)) for spot in self.places
        ]

    @cached_property
    def macs(self) -> list[list[int]]:
        """Multiply-adds of every option, one list a place."""
        with torch.device("meta"):
            return [
                [
                    macs(make_block(name, *spot[:3]), (spot.in_channels, *self._side(spot)))
                    for name in names
                ]
                for spot, names in zip(self.places, self.options, strict=True)
            ]

    @cached_property
    def fixed_macs(self) -> int:
        """Multiply-adds of the stem and of the classifier, which are always there."""
        last = self.places[-1].channels
        with torch.device("meta"):
            stem = dense_block(self.in_channels, self.width, self.stem_stride)
            classifier = pooled_classifier(last, self.num_classes)["classifier"]
            return macs(stem, (self.in_channels, *self.size)) + macs(classifier, (last,))

    def _side(self, spot: Place) -> tuple[int, int]:
        """Height and width of a place's input; every halving rounds up."""
        height, width = (-(-side // spot.shrunk) for side in self.size)
        return height, width

    def cost(self, choices: Sequence[str]) -> int:
        """Multiply-adds of an architecture.

        Raises:
            ValueError: it is none of this space.
        """
        self.check(choices)
        rows = zip(choices, self.options, self.macs, strict=True)
        return self.fixed_macs + sum(row[names.index(name)] for name, names, row in rows)

    def network(self, choices: Sequence[str]) -> StagedNetwork:
        """An architecture with weights drawn from the global generator.

        Raises:
            ValueError: it is none of this space.
        """
        self.check(choices)
        return assembled(
            choices, self.width, self.num_classes, self.in_channels, stem_stride=self.stem_stride
        )

    def check(self, choices: Sequence[str]) -> None:
        """Raise ValueError unless choices name an option for every place."""
        if len(choices) != len(self.options):
            raise ValueError(f"choices must name {len(self.options)} blocks; got {len(choices)}")
        for place, (name, names) in enumerate(zip(choices, self.options, strict=True)):
            checks.one_of(f"choice of place {place}", name, names)

    def check_budget(self, budget: int) -> int:
        """Return a budget of multiply-adds that some architecture keeps.

        Raises:
            ValueError: it is below the smallest one.
        """
        smallest = self.fixed_macs + sum(map(min, self.macs))
        if checks.above("budget", budget, 0) < smallest:
            raise ValueError(
                f"budget must be at least {smallest} multiply-adds, which the smallest network "
                f"takes; got {checks.plain(budget)}"
            )
        return int(budget)

    def likeliest(
        self, log_probabilities: Sequence[Sequence[float]], budget: int, count: int = 1
    ) -> list[Choices]:
        """The architectures within a budget with the highest sums of log-probabilities, best first.

        Exact: place by place, what `count` others beat in cost and probability is dropped.

        Args:
            log_probabilities: of every option, one row a place.
            budget: of multiply-adds.
            count: how many, or as many as there are.

        Raises:
            ValueError: nothing is within the budget, or a number is out of range.
        """
        self.check_budget(budget)
        checks.whole("count", count, 1)
        left = budget - self.fixed_macs
        least = np.cumsum([0, *(min(row) for row in reversed(self.macs))])[::-1]
        kept: list[tuple[float, int, Choices]] = [(0.0, 0, ())]
        for i, names in enumerate(self.options):
            grown = [
                (score + p, cost + m, (*chosen, name))
                for score, cost, chosen in kept
                for p, m, name in zip(log_probabilities[i], self.macs[i], names, strict=True)
                if cost + m + least[i + 1] <= left
            ]
            kept = []
            best: list[float] = []
            for one in sorted(grown, key=lambda one: (one[1], -one[0])):
                if len(best) < count or one[0] > best[0]:
                    kept.append(one)
                    heapq.heappush(best, one[0])
                    del best[: max(0, len(best) - count)]
                    heapq.heapify(best)
        kept.sort(key=lambda one: -one[0])
        return [chosen for _, _, chosen in kept[:count]]

    def at_random(self, budget: int, count: int, generator: np.random.Generator) -> list[Choices]:
        """Different architectures within a budget, drawn uniformly.

        Where few of all are within it, the rest are the likeliest under random probabilities.

        Args:
            budget: of multiply-adds.
            count: how many, or as many as there are.
            generator: random numbers.

        Raises:
            ValueError: nothing is within the budget, or the count is below 1.
        """
        self.check_budget(budget)
        checks.whole("count", count, 1)
        drawn = np.stack([generator.integers(len(row), size=4096) for row in self.macs])
        costs = sum(np.array(row)[chosen] for row, chosen in zip(self.macs, drawn, strict=True))
        within = drawn[:, costs + self.fixed_macs <= budget].T
        found: dict[Choices, None] = {}
        for one in within:
            if len(found) == count:
                break
            found[tuple(names[k] for names, k in zip(self.options, one, strict=True))] = None
        if len(found) < count:
            scores = [generator.gumbel(size=len(row)).tolist() for row in self.macs]
            found |= dict.fromkeys(self.likeliest(scores, budget, count))
        return list(found)[:count]


def _can_be(name: str, spot: Place) -> bool:
    try:
        with torch.device("meta"):
            make_block(name, *spot[:3])
    except ValueError:
        return False
    return True
