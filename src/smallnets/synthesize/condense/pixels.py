"""The synthetic images while they are learned: how they start, SGD on pixels, checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smallnets.storage import atomic_path, one_line, user_path
from smallnets.synthesize.condense import chance
from smallnets.synthesize.condense.sets import ImageSet, check_classes

STARTS = ("real", "noise")
MAY_DIFFER = ("iterations", "device")  # between a run and the one that goes on with it


@dataclass(eq=False)
class PixelState:
    """All that the next iteration depends on.

    Attributes:
        images: float32 (K, ipc, channels, height, width) of K classes.
        velocity: of the same shape, SGD's momentum.
        iteration: updates so far.
        losses: one number an update.
        seconds: what they took.
        identity: name -> text of every setting, of the seed, the classes and the data.
    """

    images: Tensor
    velocity: Tensor
    iteration: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    identity: dict[str, str] = field(default_factory=dict)

    def descend(self, row: int | slice, gradient: Tensor, lr: float, momentum: float) -> None:
        """v <- momentum v + g; S <- S - lr v, for some of the classes; no weight decay, no clipping
        of pixels.
        """
        velocity = self.velocity[row].mul_(momentum).add_(gradient)
        self.images[row].sub_(velocity, alpha=lr)

    def finish_iteration(self, loss: float, lr: float) -> None:
        """Count an update.

        Raises:
            ValueError: loss or pixels are not finite; the line names iteration and rate.
        """
        if not (np.isfinite(loss) and bool(self.images.isfinite().all())):
            raise ValueError(
                f"the synthetic images must stay finite; got nan or inf in iteration "
                f"{self.iteration} with lr {lr:g}: take a smaller lr"
            )
        self.losses.append(loss)
        self.iteration += 1

    def copied(self) -> "PixelState":
        """The same state with tensors and lists of its own."""
        images, velocity = self.images.clone(), self.velocity.clone()
        return replace(self, images=images, velocity=velocity, losses=list(self.losses))

    def save(self, path: str | Path) -> None:
        """Write the state, whole or not at all."""
        content = {**vars(self), "images": self.images.cpu(), "velocity": self.velocity.cpu()}
        with atomic_path(user_path(path)) as temporary, temporary.open("wb") as stream:
            torch.save(content, stream)

    @staticmethod
    def load(path: str | Path) -> "PixelState":
        """Read a state that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or something else.
        """
        file = user_path(path)
        if not file.is_file():
            raise FileNotFoundError(f"no state {file}; expected a file that save() wrote")
        try:
            return PixelState(**torch.load(file, weights_only=True))
        except Exception as error:  # a damaged file ends in whatever its bytes happen to mean
            raise ValueError(f"{file} is no state of a condensation: {one_line(error)}") from error

    def check_continues(self, identity: dict[str, str]) -> None:
        """Check that a run with this identity may go on from here.

        Raises:
            ValueError: something differs; the line names it.
        """
        for name in sorted({*identity, *self.identity} - set(MAY_DIFFER)):
            mine, theirs = self.identity.get(name), identity.get(name)
            if mine != theirs:
                raise ValueError(
                    f"a run is resumed with the settings it began with; {name} was {mine} and is "
                    f"{theirs}"
                )


def start_images(real: ImageSet, classes: Sequence[int], ipc: int, init: str, seed: int) -> Tensor:
    """(K, ipc, channels, height, width): distinct random images of every class, or noise N(0, 1).

    What a class starts from depends on the seed and its label alone.

    Raises:
        ValueError: a class has fewer than ipc images, with init "real"; or none at all.
    """
    check_classes(real, classes, ipc if init == "real" else 1)
    members = real.members()
    rows = []
    for label in classes:
        draws = chance.generator(seed, chance.START, label)
        if init == "real":
            order = torch.randperm(len(members[label]), generator=draws)[:ipc]
            rows.append(real.take(members[label][order]))
        else:
            rows.append(torch.randn(ipc, *real.images.shape[1:], generator=draws))
    return torch.stack(rows).float()
