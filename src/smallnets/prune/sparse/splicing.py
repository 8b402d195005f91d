"""Dynamic network surgery: weights that went may come back (Guo et al., NeurIPS 2016).

A weight whose size falls below a goes, one whose size rises above b comes back, and what lies
between stays as it is (equation 3 there). Closed weights go on learning: their gradient is that of
the masked network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.data import TrainingData
from smallnets.prune.sparse.masks import Masked, prunable_weights, with_open
from smallnets.prune.sparse.objectives import CROSS_ENTROPY, behind_fabric
from smallnets.training import Batch, TrainSettings, fit
from smallnets.training.checkpoint import History
from smallnets.training.loop import Objective


def spliced_mask(weight: Tensor, mask: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """The mask after a look at the weights: 0 below `low`, 1 from `high` on, else as it was.

    The largest weight stays in any case.

    Args:
        weight, mask: of one shape.
        low, high: sizes, low at most high.
    """
    size = weight.detach().abs()
    new = torch.where(size < low, torch.zeros_like(mask), mask)
    new = torch.where(size >= high, torch.ones_like(mask), new)
    return with_open(new, size.argmax())


@dataclass(frozen=True)
class Surgery:
    """The objective of a `Spliced` network: its masks follow its weights.

    The thresholds of a layer are 0.9 and 1.1 times max(0, mean + c std) of the sizes of its weights
    at the first step, as in the official code. A mask is looked at with a probability of
    (1 + rate step)^-1, so that in the end it rests.

    Attributes:
        c: how many standard deviations above the mean a weight has to be; from about -1 (few go) to
            3 (few stay).
        margin: 0.1 for thresholds of 0.9 and 1.1.
        rate: at which looks become rare.
        stop: step from which masks rest; None is never.
        objective: what is learned.

    Raises:
        ValueError: a field is out of range.
    """

    c: float = 1.0
    margin: float = 0.1
    rate: float = 1e-3
    stop: int | None = None
    objective: Objective = CROSS_ENTROPY

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.between("c", self.c, -10, 10)
        checks.between("margin", self.margin, 0, 1)
        checks.at_least("rate", self.rate, 0)
        if self.stop is not None:
            checks.whole("stop", self.stop, 1)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The objective's terms, and "closed", the share of the weights that is."""
        spliced = behind_fabric(model, Spliced, self)
        step = int(spliced.steps)
        spliced.steps += 1
        if step == 0:
            spliced.set_thresholds(self.c)
        chance = (1 + self.rate * step) ** -1.0
        drawn = torch.rand((), generator=batch.noise, device=batch.images.device)
        if (self.stop is None or step < self.stop) and bool(drawn < chance):
            spliced.look(self.margin)
        return self.objective(model, batch) | {"closed": spliced.closed}


class Spliced(Masked):
    """A `Masked` network with dense gradients, and one threshold for every layer.

    Args:
        network: trained in place.
        layers: see `prunable_weights`.
    """

    thresholds: Tensor

    def __init__(self, network: nn.Module, layers: Sequence[str] | None = None) -> None:
        weights = prunable_weights(network, layers)
        ones = {name: torch.ones_like(w.detach()) for name, w in weights.items()}
        super().__init__(network, ones, dense_gradients=True)
        first = next(iter(weights.values()))
        self.register_buffer("thresholds", first.detach().new_zeros(len(weights)))

    def set_thresholds(self, c: float) -> None:
        """Take max(0, mean + c std) of the sizes of each layer's weights."""
        for place, weight in enumerate(self.weights.values()):
            size = weight.abs()
            spread = size.std(correction=0)
            self.thresholds[place] = (size.mean() + c * spread).clamp_min(0)

    def look(self, margin: float) -> None:
        """Let masks follow the weights."""
        found = {}
        for (name, weight), t in zip(self.weights.items(), self.thresholds, strict=True):
            mask = self.masks[name]
            found[name] = spliced_mask(weight, mask, (1 - margin) * t, (1 + margin) * t)
        self.set_masks(found)


def prune_by_surgery(
    network: nn.Module,
    dataset: TrainingData,
    settings: TrainSettings,
    *,
    seed: int,
    surgery: Surgery = Surgery(),
    layers: Sequence[str] | None = None,
    cache_dir: Path | None = None,
) -> tuple[Spliced, History]:
    """Train a network whose weights go and come back.

    Args:
        network: trained in place; thresholds fit one that has been trained before.
        dataset, settings, seed, cache_dir: as in `smallnets.training.fit`.
        surgery: when weights go.
        layers: see `prunable_weights`.
    """
    spliced = Spliced(network, layers)
    history = fit(
        spliced, dataset, settings, seed=seed, objective=surgery, cache_dir=cache_dir,
        label="surgery",
    )  # fmt: skip
    return spliced, history
