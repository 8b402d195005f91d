"""What the steps of distribution and gradient matching share: what they are given, how real images
are drawn, and the ranges of settings that both have.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from smallnets import checks
from smallnets.synthesize.condense import chance
from smallnets.synthesize.condense.augmentation import check_strategy
from smallnets.synthesize.condense.pixels import STARTS
from smallnets.synthesize.condense.samplers import Sampler
from smallnets.synthesize.condense.sets import ImageSet
from smallnets.training import DEVICES, PRECISIONS


class ClassSteps:
    """Steps over classes, each with its real images.

    Args:
        real: the real images.
        classes: labels, in the order of the state's rows.
        settings, seed, sampler: see `condense`.
        device, precision: where, and in what arithmetic the real branch is computed.
    """

    def __init__(
        self,
        real: ImageSet,
        classes: Sequence[int],
        settings: Any,
        seed: int,
        sampler: Sampler,
        device: torch.device,
        precision: str,
    ) -> None:
        self.real = real
        self.classes = classes
        self.settings = settings
        self.seed = seed
        self.sampler = sampler
        self.device = device
        self.precision = precision
        self.members = real.members()

    def draw(self, label: int, count: int, *numbers: int) -> Tensor:
        """Up to `count` different real images of a class; the numbers say which draw it is."""
        members = self.members[label]
        draws = chance.generator(self.seed, chance.BATCH, *numbers)
        order = torch.randperm(len(members), generator=draws)[:count]
        return self.real.take(members[order]).to(self.device)


def check_shared(settings: Any) -> None:
    """Check the settings that both methods have.

    Raises:
        ValueError: a field is out of range.
    """
    for name in ("ipc", "iterations", "batch_real"):
        checks.whole(name, getattr(settings, name), 1)
    checks.above("lr", settings.lr, 0)
    checks.between("momentum", settings.momentum, 0, 1)
    checks.one_of("init", settings.init, STARTS)
    check_strategy(settings.strategy)
    checks.one_of("device", settings.device, DEVICES)
    checks.one_of("precision", settings.precision, PRECISIONS)
