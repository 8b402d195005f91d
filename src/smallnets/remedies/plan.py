"""What a network may cost, and what is tried on it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from smallnets import checks
from smallnets.deploy.exporting import TOLERANCES
from smallnets.prune.importance import CRITERIA
from smallnets.training import TrainSettings

COSTS = ("bytes", "macs", "milliseconds")


@dataclass(frozen=True)
class Budget:
    """What a network may cost at most; what is None may cost anything.

    Attributes:
        bytes: of its file.
        macs: multiply-adds of one example.
        milliseconds: of a pass with one example, the median.

    Raises:
        ValueError: nothing is limited, or a limit is not above 0.
    """

    bytes: float | None = None
    macs: float | None = None
    milliseconds: float | None = None

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name, limit in self.limits.items():
            checks.above(name, limit, 0)
        if not self.limits:
            raise ValueError(f"a budget must limit at least one of {', '.join(COSTS)}; got none")

    @property
    def limits(self) -> dict[str, float]:
        """What is limited, and to how much."""
        return {name: limit for name, limit in vars(self).items() if limit is not None}


@dataclass(frozen=True)
class Plan:
    """Which remedies are tried, and how strong. An empty list leaves a family out.

    Attributes:
        int8: 8-bit integers for weights and activations, computed in integers (chapter 9).
        int8_weights: 8-bit weights in the file, computed in floating point.
        sparse: shares of the weights that become 0, the smallest of the whole network.
        channels: shares of the channels that are taken out.
        criteria: by which they are chosen, see `smallnets.prune.importance.CRITERIA`. By filter
            norms every layer loses that share, by others the network as a whole.
        low_rank: shares of a layer's cost that its decomposition may have, by singular values (SVD)
            and by Tucker-2.
        books: sizes of code books, 2 to 256.
        bits: widths of weights that are trained through the rounding, 2 to 8. With 8, activations
            are rounded, too, and the file computes in integers.
        training: of what is trained: the smaller networks of the last criterion, those of low rank
            and the rounded ones, which are trained without BatchNorm and take a tenth of the rate.
        int8_tolerance: how far the answers of a file that computes in integers may be from those
            of its simulation, as a share of the largest output. Integers round to another step here
            and there, the more often the deeper a network is: trained ResNets of 8 to 44 layers
            were off by 0.005 to 0.08. Beyond 0.1 something else is wrong, or the network is
            untrained, and its answers are hardly larger than the rounding.
        calibration: examples for statistics, ranges and criteria.
        seed: of orders and trainings.

    Raises:
        ValueError: a field is out of range.
    """

    int8: bool = True
    int8_weights: bool = True
    sparse: tuple[float, ...] = (0.5, 0.8)
    channels: tuple[float, ...] = (0.25, 0.5)
    criteria: tuple[str, ...] = ("magnitude L1", "BN scale", "Taylor FO")
    low_rank: tuple[float, ...] = (0.75, 0.5)
    books: tuple[int, ...] = (256, 16)
    bits: tuple[int, ...] = (8, 4)
    training: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=3, lr=0.01, weight_decay=1e-4, clip=1.0)
    )
    int8_tolerance: float = TOLERANCES["int8"]
    calibration: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("int8", "int8_weights"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False; got {getattr(self, name)!r}")
        rules: dict[str, Callable[[str, Any], object]] = {
            "sparse": _share,
            "channels": _share,
            "criteria": lambda name, one: checks.one_of(name, one, CRITERIA),
            "low_rank": _share,
            "books": lambda name, one: checks.between(name, checks.whole(name, one, 2), 2, 256),
            "bits": lambda name, one: checks.between(name, checks.whole(name, one, 2), 2, 8),
        }
        for name, rule in rules.items():
            given = getattr(self, name)
            if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
                raise ValueError(f"{name} must be a list; got {given!r}")
            values = tuple(map(checks.plain, given))
            for one in values:
                rule(f"every one of {name}", one)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must hold each value once; got {values}")
            object.__setattr__(self, name, values)
        if self.channels and not self.criteria:
            raise ValueError("criteria must name at least one for channels; got none")
        if not isinstance(self.training, TrainSettings):
            raise ValueError(f"training must be TrainSettings; got {type(self.training).__name__}")
        checks.above("int8_tolerance", self.int8_tolerance, 0)
        checks.whole("calibration", self.calibration, 2)
        checks.whole("seed", self.seed, 0)


def _share(name: str, value: float) -> None:
    checks.above(name, value, 0)
    checks.between(name, value, 0, math.nextafter(1, 0))


USUAL = Plan()
