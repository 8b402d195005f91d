"""Dataset condensation with gradient matching (DC, Zhao et al., ICLR 2021) and with siamese
augmentation (DSA, Zhao & Bilen, ICML 2021): the rivals of distribution matching.

The gradient of the cross-entropy on synthetic images, with respect to the weights, is moved towards
that on real ones, class by class, while the network is trained on the synthetic set; the pixels'
gradient is a gradient of a gradient.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks, measure
from smallnets.models import memory_format
from smallnets.synthesize.condense import chance
from smallnets.synthesize.condense.augmentation import (
    FULL,
    DSAParams,
    apply_dsa,
    sample_dsa,
)
from smallnets.synthesize.condense.closed import suits, sum_of_gradients
from smallnets.synthesize.condense.convnets import ConvNet
from smallnets.synthesize.condense.matching import in_cache
from smallnets.synthesize.condense.pixels import PixelState
from smallnets.synthesize.condense.running import Condensed, Watch, run
from smallnets.synthesize.condense.samplers import Sampler
from smallnets.synthesize.condense.sets import Data
from smallnets.synthesize.condense.steps import ClassSteps, check_shared
from smallnets.synthesize.condense.threads import in_threads
from smallnets.training import seeded

DISTANCES = ("ours", "mse", "cos")
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
SMALL = 1e-6  # in the denominator of "ours" and "cos"
FROZEN = 16  # real images a class for the statistics of batch norm


@dataclass(frozen=True)
class GradientMatchingSettings:
    """Settings of gradient matching; the defaults are those of DC. `dsa` gives those of DSA.

    Attributes:
        ipc: images a class.
        iterations: outer iterations K, each with a new network.
        outer: matching steps of one network; None takes the published number for `ipc`.
        inner: epochs of training on the set between two matching steps; None as for `outer`.
        lr, momentum: of the pixels.
        lr_network: of the inner training, SGD without momentum.
        batch_real: real images of a class in a step.
        batch_train: of the inner training.
        distance: "ours" (DC's: one minus the cosine of every row of every weight), "mse" or "cos".
        init: "noise" or "real".
        strategy: siamese augmentation of matching and inner training; None is DC.
        align_corners: see `apply_dsa`.
        network, device: as in `DMSettings`.
        precision: of the real branch, whose gradients are averaged over the batch.

    Raises:
        ValueError: a field is out of range, or loops that are not published for this `ipc`.
    """

    ipc: int = 10
    iterations: int = 1000
    outer: int | None = None
    inner: int | None = None
    lr: float = 0.1
    momentum: float = 0.5
    lr_network: float = 0.01
    batch_real: int = 256
    batch_train: int = 256
    distance: str = "ours"
    init: str = "noise"
    strategy: str | None = None
    align_corners: bool = False
    network: str = "ConvNet"
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check_shared(self)
        checks.whole("batch_train", self.batch_train, 1)
        for name, least in (("outer", 1), ("inner", 0)):
            if getattr(self, name) is not None:
                checks.whole(name, getattr(self, name), least)
        if None in (self.outer, self.inner) and self.ipc not in LOOPS:
            raise ValueError(
                "outer and inner must be given where none are published, which is for ipc "
                f"{', '.join(map(str, LOOPS))}; got ipc {self.ipc}"
            )
        checks.above("lr_network", self.lr_network, 0)
        checks.one_of("distance", self.distance, DISTANCES)

    @property
    def loops(self) -> tuple[int, int]:
        """Matching steps of one network, and epochs of training between them."""
        outer, inner = LOOPS.get(self.ipc, (0, 0))
        return (
            outer if self.outer is None else self.outer,
            inner if self.inner is None else self.inner,
        )


def dsa(ipc: int = 10, strategy: str = FULL, **changed: object) -> GradientMatchingSettings:
    """The published settings of DSA: DC with siamese augmentation, started from real images."""
    return GradientMatchingSettings(ipc, init="real", strategy=strategy, **changed)  # type: ignore[arg-type]


def gradient_distance(a: Sequence[Tensor], b: Sequence[Tensor], kind: str = "ours") -> Tensor:
    """How far two gradients of one network are apart, a scalar.

    Args:
        a, b: gradients of the parameters, in one order.
        kind: "ours": over the output rows of every weight, the sum of 1 - cosine; biases and
            parameters of norms count nothing. "mse": the sum of squared differences of all. "cos":
            1 - the cosine of all in one vector.

    Raises:
        ValueError: an unknown kind, or gradients of different networks.
    """
    checks.one_of("distance", kind, DISTANCES)
    if [one.shape for one in a] != [one.shape for one in b] or not a:
        raise ValueError(
            f"gradients must be of one network; got {len(a)} and {len(b)} of other shapes"
        )
    if kind == "mse":
        return torch.stack([(x - y).square().sum() for x, y in zip(a, b, strict=True)]).sum()
    if kind == "cos":
        x, y = (torch.cat([one.reshape(-1) for one in side]) for side in (a, b))
        return 1 - (x * y).sum() / (x.norm() * y.norm() + SMALL)
    terms = [_rows(x, y) for x, y in zip(a, b, strict=True) if x.dim() > 1]
    return torch.stack(terms).sum() if terms else a[0].sum() * 0


def _rows(a: Tensor, b: Tensor) -> Tensor:
    """Sum over output rows of 1 - cosine; of a LayerNorm every channel is a row."""
    a, b = a.flatten(1), b.flatten(1)
    return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + SMALL)).sum()


def real_gradient(
    network: nn.Module, x: Tensor, label: int, together: int, precision: str = "32-true"
) -> list[Tensor]:
    """Gradients of the mean cross-entropy of one class's batch, constants, a few images at a time.

    Args:
        network: that treats every image by itself.
        x: (B, channels, height, width).
        label: of all of them.
        together: images at a time.
        precision: "32-true" or "bf16-mixed".
    """
    if suits(network, x):
        return sum_of_gradients(cast(ConvNet, network), x.split(together), label, precision)
    weights = list(network.parameters())
    total = [torch.zeros_like(weight) for weight in weights]
    autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    for part in x.split(together):
        target = torch.full((len(part),), label, device=x.device)
        with autocast:
            logits = network(part)
        loss = F.cross_entropy(logits.float(), target, reduction="sum") / len(x)
        for sum_, gradient in zip(total, torch.autograd.grad(loss, weights), strict=True):
            sum_.add_(gradient)
    return total


def match_gradients(
    data: Data,
    settings: GradientMatchingSettings = GradientMatchingSettings(),
    *,
    seed: int = 0,
    factory: Sampler | None = None,
    only: Sequence[int] | None = None,
    resume: PixelState | None = None,
    callback: Watch | None = None,
    every: int = 100,
    cache_dir: Path | None = None,
    label: str = "matched",
) -> Condensed:
    """Learn a small set by gradient matching: DC, or DSA with a strategy.

    Args:
        data, seed, only, resume, callback, every, cache_dir, label: as in `condense`; iterations
            are outer ones. The network tells the classes of `only` apart from all others.
        settings: how.
        factory: () -> a network, called in every outer iteration; None draws `settings.network`.

    Returns:
        The set; a loss of the history is the mean over matching steps and classes, as printed by
        the official code.

    Raises:
        ValueError: as `condense`.
    """
    return run(
        GradientStep, data, settings, seed, factory, only, resume, callback, every, cache_dir, label
    )


class GradientStep(ClassSteps):
    """One outer iteration: a network, its matching steps and the training between them.

    Args: as of `ClassSteps`.
    """

    settings: GradientMatchingSettings

    def __call__(self, state: PixelState) -> float:
        """Update the state's pixels; return the mean loss of a matching step and class."""
        i = state.iteration
        outer, inner = self.settings.loops
        with seeded(chance.number_of(self.seed, chance.NETWORK, i)):
            network = self.sampler().train()
            network.to(self.device, memory_format=memory_format(network))
            total = 0.0
            for step in range(outer):
                total += self.match(network, state, step)
                if step < outer - 1:  # after the last step the network is of no more use
                    self._train(network, state, step, inner)
        return total / (outer * len(self.classes))

    def match(self, network: nn.Module, state: PixelState, step: int) -> float:
        """One matching step: the distances of all classes, then an update of their pixels."""
        with frozen_statistics(network, self._for_statistics(state.iteration, step)):
            # Batch norm stands still here, so every image is treated by itself.
            rows = range(len(self.classes))
            if self.device.type != "cpu":
                return sum(self._match(network, state, step, row) for row in rows)
            return sum(in_threads(lambda row: self._match(network, state, step, row), rows))

    def _match(self, network: nn.Module, state: PixelState, step: int, row: int) -> float:
        """Update the pixels of one class; return its distance."""
        i, size, label = state.iteration, self.real.size, self.classes[row]
        draws = chance.generator(self.seed, chance.VIEW, i, step, label)
        view = sample_dsa(self.settings.strategy, None, size, draws)
        batch = apply_dsa(self._batch(i, step, label), view, self.settings.align_corners)
        together = in_cache(network, size, self.device)
        target = real_gradient(network, batch, label, together, self.precision)
        leaf = state.images[row].clone().requires_grad_()
        gradient = self._synthetic(network, leaf, view, label, list(network.parameters()))
        distance = gradient_distance(target, gradient, self.settings.distance)
        (pixels,) = torch.autograd.grad(distance, leaf)
        state.descend(row, pixels, self.settings.lr, self.settings.momentum)
        return float(distance.detach())

    def _synthetic(
        self, network: nn.Module, leaf: Tensor, view: DSAParams | None, label: int,
        weights: list[nn.Parameter],
    ) -> Sequence[Tensor]:  # fmt: skip
        logits = network(apply_dsa(leaf, view, self.settings.align_corners))
        target = torch.full((len(leaf),), label, device=leaf.device)
        return torch.autograd.grad(F.cross_entropy(logits, target), weights, create_graph=True)

    def _batch(self, i: int, step: int, label: int) -> Tensor:
        return self.draw(label, self.settings.batch_real, i, step, label, 0)

    def _for_statistics(self, i: int, step: int) -> Tensor:
        batches = [self.draw(c, FROZEN, i, step, c, FROZEN) for c in self.classes]
        return torch.cat(batches)

    def _train(self, network: nn.Module, state: PixelState, step: int, epochs: int) -> None:
        """SGD without momentum on the synthetic set."""
        x = state.images.flatten(0, 1)
        y = torch.tensor(self.classes, device=self.device).repeat_interleave(self.settings.ipc)
        optimizer = torch.optim.SGD(network.parameters(), self.settings.lr_network)
        draws = chance.generator(self.seed, chance.INNER, state.iteration, step)
        for _ in range(epochs):
            for which in torch.randperm(len(x), generator=draws).split(self.settings.batch_train):
                strategy, count = self.settings.strategy, len(which)
                view = sample_dsa(strategy, count, self.real.size, draws)
                batch = apply_dsa(x[which], view, self.settings.align_corners)
                optimizer.zero_grad()
                F.cross_entropy(network(batch), y[which]).backward()
                optimizer.step()
        network.zero_grad()


@contextmanager
def frozen_statistics(network: nn.Module, images: Tensor) -> Iterator[None]:
    """Batch norm that stands still inside the block, after one look at some images.

    As in the official code the look moves the running statistics by their momentum, no further.

    Args:
        network: in training mode; networks without batch norm stay as they are.
        images: (n, channels, height, width).
    """
    kinds = nn.modules.batchnorm._BatchNorm
    norms = nn.ModuleList(one for one in network.modules() if isinstance(one, kinds))
    if len(norms):
        with torch.no_grad():
            network(images)
    with measure.evaluating(norms):
        yield
