"""Where embedding networks come from: fresh ones, a fixed pool, or trained ones by accuracy.

A sampler is a function without arguments that returns a network with `embed`. It is called under
random numbers of its own in every iteration, so that iteration i meets the same network in every
run of a seed, however often the run is stopped.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from smallnets import checks
from smallnets.synthesize.condense.convnets import ConvNet, ConvNetSpec, published_depth
from smallnets.synthesize.condense.networks import network

Sampler = Callable[[], nn.Module]


@dataclass(frozen=True)
class Fresh:
    """A new random network every time (the published choice).

    Attributes:
        name: as in `network`; "ConvNet" takes 4 blocks for images of 64 pixels.
        num_classes, channels, size: of the data.
        spec: a member of the ConvNet family instead of a name.
    """

    num_classes: int
    channels: int
    size: tuple[int, int]
    name: str = "ConvNet"
    spec: ConvNetSpec | None = None

    def __call__(self) -> nn.Module:
        spec = self.spec
        if spec is None and self.name == "ConvNet":
            spec = ConvNetSpec(depth=published_depth(self.size))
        if spec is not None:
            return ConvNet(self.num_classes, self.channels, self.size, spec)
        return network(self.name, self.num_classes, self.channels, self.size)


@dataclass(frozen=True, eq=False)
class Pool:
    """One of some given networks every time, drawn uniformly; one network is a fixed embedding.

    Attributes:
        networks: with `embed`; copies are handed out, so that they stay as they are.

    Raises:
        ValueError: there is none.
    """

    networks: Sequence[nn.Module]

    def __post_init__(self) -> None:
        if not self.networks:
            raise ValueError("networks must hold at least one network; got none")

    def __call__(self) -> nn.Module:
        return copy.deepcopy(self.networks[int(torch.randint(len(self.networks), ()))])


@dataclass(frozen=True, eq=False)
class AccuracyBands:
    """Networks that were seen on the way of trainings, by their accuracy (the paper's ablation).

    Attributes:
        networks, accuracies: what was seen, and how accurate each was on held-out images, 0 to 1.

    Raises:
        ValueError: lengths that differ, or accuracies out of range.
    """

    networks: list[nn.Module] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.networks) != len(self.accuracies):
            raise ValueError(
                "networks and accuracies must be equally many; "
                f"got {len(self.networks)} and {len(self.accuracies)}"
            )
        for value in self.accuracies:
            checks.between("every accuracy", value, 0, 1)

    def add(self, network: nn.Module, accuracy: float) -> None:
        """Keep a copy of a network as it is now."""
        checks.between("accuracy", accuracy, 0, 1)
        self.networks.append(copy.deepcopy(network))
        self.accuracies.append(accuracy)

    def between(self, low: float, high: float) -> Pool:
        """The networks with low <= accuracy < high; (0, 1.01) mixes all of them.

        Raises:
            ValueError: there is none; the line says what there is.
        """
        chosen = [
            one for one, a in zip(self.networks, self.accuracies, strict=True) if low <= a < high
        ]
        if not chosen:
            seen = ", ".join(f"{a:.2f}" for a in sorted(self.accuracies)) or "none"
            raise ValueError(f"no network has an accuracy from {low} to {high}; seen: {seen}")
        return Pool(chosen)
