"""Dataset condensation with distribution matching (Zhao & Bilen, WACV 2023, arXiv:2110.04181).

In every iteration a network with random weights is drawn and never trained; the mean embedding of
every class's synthetic images is moved towards that of a batch of its real ones, both changed by
one transform; one step of SGD on the pixels follows. The official code makes one update more than
it evaluates; `iterations` counts the updates behind the set that is evaluated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.models import memory_format
from smallnets.synthesize.condense import chance
from smallnets.synthesize.condense.augmentation import FULL, apply_dsa, sample_dsa
from smallnets.synthesize.condense.matching import (
    class_mean_loss,
    groups,
    in_cache,
    mean_embedding,
)
from smallnets.synthesize.condense.networks import check_embeds, couples_examples
from smallnets.synthesize.condense.pixels import PixelState
from smallnets.synthesize.condense.running import Condensed, Watch, run
from smallnets.synthesize.condense.samplers import Sampler
from smallnets.synthesize.condense.sets import Data
from smallnets.synthesize.condense.steps import ClassSteps, check_shared
from smallnets.synthesize.condense.threads import in_threads
from smallnets.training import seeded


@dataclass(frozen=True)
class DMSettings:
    """Settings of distribution matching; the defaults are the published ones for CIFAR-10.

    Attributes:
        ipc: images a class.
        iterations: updates of the pixels.
        lr: of the pixels. 1 for up to 50 images a class and 10 from 100 on, with 2,048 embedding
            dimensions; the loss is a sum over dimensions, so smaller networks need larger ones.
        momentum: of the pixels.
        batch_real: real images of a class in an iteration; all of a class that has fewer.
        batch_syn: synthetic ones; None is all, as in the official code.
        init: "real" images or "noise".
        strategy: of the siamese augmentation, see `check_strategy`; None is none.
        align_corners: see `apply_dsa`.
        joint: whether all classes pass through the network together, as batch norm needs. False is
            class by class, with an update after each, for the least memory. None takes batch norm
            together, and other networks as many classes at a time as is fastest; without batch norm
            the result is the same.
        network: a name for `network`; ignored where a sampler is given.
        device: "auto" takes a GPU if there is one.
        precision: of the real branch, whose embeddings are averaged: "auto" is "bf16-mixed" where
            the hardware has it. The synthetic branch is always float32.

    Raises:
        ValueError: a field is out of range.
    """

    ipc: int = 10
    iterations: int = 20_000
    lr: float = 1.0
    momentum: float = 0.5
    batch_real: int = 256
    batch_syn: int | None = None
    init: str = "real"
    strategy: str | None = FULL
    align_corners: bool = False
    joint: bool | None = None
    network: str = "ConvNet"
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check_shared(self)
        if self.batch_syn is not None:
            checks.between("batch_syn", checks.whole("batch_syn", self.batch_syn, 1), 1, self.ipc)
        if self.joint is not None and not isinstance(self.joint, bool):
            raise ValueError(f"joint must be True, False or None; got {self.joint!r}")


def condense(
    data: Data,
    settings: DMSettings = DMSettings(),
    *,
    seed: int = 0,
    embed_factory: Sampler | None = None,
    only: Sequence[int] | None = None,
    resume: PixelState | None = None,
    callback: Watch | None = None,
    every: int = 2000,
    cache_dir: Path | None = None,
    label: str = "condensed",
) -> Condensed:
    """Learn a small set by distribution matching.

    Args:
        data: a `Dataset`, whose training part is used, or an `ImageSet`, as of tensors of your own.
        settings: how.
        seed: of everything random. What an iteration draws, and for a class, depends on these
            numbers alone.
        embed_factory: () -> a network with `embed`, called in every iteration; None draws
            `settings.network` with fresh weights. See `Fresh`, `Pool` and `AccuracyBands`.
        only: labels of the classes to condense; None is all. Without batch norm a class alone gets
            the images that it gets among others, see `merged`.
        resume: the state of a run of the same settings, data and seed, to go on from; `iterations`
            may be larger than its.
        callback: (updates so far, set, seconds) before every `every`-th update and after the last.
        every: see `callback`. The state is kept in `cache_dir` as often, and every half a minute.
        cache_dir: folder in which the finished run is kept and, while it runs, its state. The same
            run is never done twice, and one that was killed goes on where it was, bit for bit.
        label: start of the kept file's name, and of the progress bar.

    Raises:
        ValueError: a class without images, or with fewer than ipc where they are the start; a
            network that does not embed the images; pixels that become infinite, with iteration and
            rate; a state of another run, with what differs; a sampler without a name, if kept.
    """
    return run(
        MatchingStep, data, settings, seed, embed_factory, only, resume, callback, every,
        cache_dir, label,
    )  # fmt: skip


class MatchingStep(ClassSteps):
    """One iteration: a network, the loss of all classes, an update of the pixels.

    Args: as of `ClassSteps`.
    """

    settings: DMSettings

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        with seeded(chance.number_of(self.seed, chance.NETWORK, 0)):
            network = self.sampler()
            check_embeds(network, self.real.take(self.members[self.classes[0]][:2]))

    def __call__(self, state: PixelState) -> float:
        """Update the state's pixels; return the loss before the update."""
        i = state.iteration
        with seeded(chance.number_of(self.seed, chance.NETWORK, i)):
            network = self.sampler().train().requires_grad_(False)
            network.to(self.device, memory_format=memory_format(network))
            joint = self.settings.joint
            if joint is True or (joint is None and couples_examples(network)):
                return self._joint(network, state)
            return self._by_groups(network, state)

    def _draw(self, i: int, label: int) -> Tensor:
        """Real images of a class."""
        return self.draw(label, self.settings.batch_real, i, label)

    def _chosen(self, i: int, label: int) -> Tensor:
        """Places of the synthetic images of a class that take part."""
        draws = chance.generator(self.seed, chance.SYNTHETIC, i, label)
        order = torch.randperm(self.settings.ipc, generator=draws)[: self.settings.batch_syn]
        return order.to(self.device)

    def _by_groups(self, network: nn.Module, state: PixelState) -> float:
        """A few classes at a time; their gradients are disjoint, so they are updated at once."""
        ipc = self.settings.batch_syn or self.settings.ipc
        wide = in_cache(network, self.real.size, self.device)
        together = 1 if self.settings.joint is False else wide
        parts = list(groups(range(len(self.classes)), ipc, together))
        if self.device.type != "cpu":
            return sum(self._group(network, state, rows) for rows in parts)
        return sum(in_threads(lambda rows: self._group(network, state, rows), parts))

    def _group(self, network: nn.Module, state: PixelState, rows: Sequence[int]) -> float:
        """Update some of the classes; return their loss."""
        place = slice(rows[0], rows[-1] + 1)
        leaf = state.images[place].clone().requires_grad_()
        views, means = [], []
        for row, images in zip(rows, leaf, strict=True):
            label = self.classes[row]
            draws = chance.generator(self.seed, chance.VIEW, state.iteration, label)
            view = sample_dsa(self.settings.strategy, None, self.real.size, draws)
            corners = self.settings.align_corners
            batch = apply_dsa(self._draw(state.iteration, label), view, corners)
            means.append(mean_embedding(network, batch, self.precision))
            if self.settings.batch_syn is not None:
                images = images[self._chosen(state.iteration, label)]
            views.append(apply_dsa(images, view, corners))
        found = network.embed(torch.cat(views))  # type: ignore[operator]
        synthetic = found.view(len(rows), -1, found.shape[1]).mean(1)
        loss = (torch.stack(means) - synthetic).square().sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        state.descend(place, gradient, self.settings.lr, self.settings.momentum)
        return float(loss.detach())

    def _joint(self, network: nn.Module, state: PixelState) -> float:
        """All real images in one pass and all synthetic ones in another."""
        leaf = state.images.clone().requires_grad_()
        real, synthetic, views = [], [], []
        for label, images in zip(self.classes, leaf, strict=True):
            draws = chance.generator(self.seed, chance.VIEW, state.iteration, label)
            views.append(sample_dsa(self.settings.strategy, None, self.real.size, draws))
            real.append(self._draw(state.iteration, label))
            chosen = self.settings.batch_syn is not None
            synthetic.append(images[self._chosen(state.iteration, label)] if chosen else images)
        corners = self.settings.align_corners
        loss = class_mean_loss(
            network.embed, real, torch.stack(synthetic), joint=True, params=views,  # type: ignore[arg-type]
            align_corners=corners,
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(loss, leaf)
        state.descend(slice(None), gradient, self.settings.lr, self.settings.momentum)
        return float(loss.detach())
