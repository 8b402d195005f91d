"""The dense network of a seed, what every remedy is given, and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from smallnets.data import Dataset
from smallnets.studies.landscape.plan import Settings, narrower
from smallnets.studies.networks import build_network, evaluate_accuracy
from smallnets.studies.watching import train_watched
from smallnets.surgery import recalibrate
from smallnets.training import Classification, TrainSettings, fit
from smallnets.training.checkpoint import History
from smallnets.training.loop import Objective

QUANTISED, PRUNED, STRUCTURAL = "I quantised", "II pruned", "III structural"
CROSS_ENTROPY = Classification()
FAMILIES = (QUANTISED, PRUNED, STRUCTURAL)


@dataclass(frozen=True, eq=False)
class Made:
    """What a remedy made of the dense network.

    Attributes:
        network: what answers; its accuracy is measured.
        exported: the network that is written, counted and timed; None where that is `network`.
        counted: the network that is counted, where that is another one again.
        before: accuracy straight after the conversion, where something was trained afterwards.
        bits: name of a layer -> (bits of its weight, bits of its input), where the layers of
            that network do not say so themselves.
        macs: multiply-adds of a pass, where they depend on the image; such a network is not timed.
        trained: False for what is only counted and timed.
    """

    network: nn.Module
    exported: nn.Module | None = None
    counted: nn.Module | None = None
    before: float | None = None
    bits: Mapping[str, tuple[int, int]] | None = None
    macs: float | None = None
    trained: bool = True

    @property
    def plain(self) -> nn.Module:
        """What is written, counted and timed."""
        return self.network if self.exported is None else self.exported


@dataclass(frozen=True, eq=False)
class Bench:
    """What every remedy works with: the dense network of a seed, and images.

    Attributes:
        dataset: all images.
        settings: of the study.
        seed: of the repetition.
        cache_dir: folder for finished trainings.
    """

    dataset: Dataset
    settings: Settings
    seed: int
    cache_dir: Path | None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of an image."""
        return (self.dataset.channels, *self.dataset.size)

    @cached_property
    def images(self) -> Tensor:
        """Training images for ranges, statistics and traces, as networks take them."""
        return self.dataset.for_choosing(self.settings.calibration).images

    @cached_property
    def judged(self) -> list[tuple[Tensor, Tensor]]:
        """The same images with their labels, in batches, for criteria that look at data."""
        images, labels = self.dataset.for_choosing(self.settings.calibration)
        return list(zip(images.split(100), labels.split(100), strict=True))

    def start(self, factor: int = 1) -> nn.Module:
        """The untrained network of the seed, or one whose width is divided by a factor."""
        return build_network(narrower(self.settings.network, factor), self.dataset, self.seed)

    def dense(self) -> nn.Module:
        """The trained network of the seed, from which every converter starts: a copy of its own."""
        return self.watched()[0]

    def watched(self) -> tuple[nn.Module, History]:
        """The same, and the log of its training, see `smallnets.studies.watching.curve`."""
        network, training = self.start(), self.settings.training
        history = train_watched(
            network, self.dataset, training, self.seed, self.cache_dir, label="dense"
        )
        return network, history

    def fit(
        self,
        network: nn.Module,
        training: TrainSettings,
        objective: Objective = CROSS_ENTROPY,
        label: str = "remedy",
    ) -> nn.Module:
        """Train a network in place, or take the kept one, and return it."""
        fit(
            network,
            self.dataset,
            training,
            seed=self.seed,
            objective=objective,
            cache_dir=self.cache_dir,
            label=label,
        )
        return network

    def tune(self, network: nn.Module, label: str = "remedy", *, short: bool = False) -> Made:
        """A converted network after its training, with its accuracy before that."""
        before = self.accuracy(network)
        training = self.settings.short if short else self.settings.tuning
        return Made(self.fit(network, training, label=label), before=before)

    def anew(self, network: nn.Module, label: str) -> Made:
        """A network that starts anew and that only the table shows. If such networks are not
        trained, BatchNorm still takes the statistics of training images: without them images fade
        from layer to layer, every answer is the last bias, and a file that ignores its input would
        pass for the network.
        """
        if not self.settings.anew_epochs:
            return Made(recalibrate(network, [self.images]).eval(), trained=False)
        how = self.settings.training.with_epochs(self.settings.anew_epochs)
        return Made(self.fit(network, how, label=label))

    def slowly(self, lr: float) -> TrainSettings:
        """A long training by Adam, without weight decay."""
        how = replace(self.settings.tuning, optimizer="adam", lr=lr, weight_decay=0.0)
        return how.with_epochs(self.settings.slow_epochs)

    def accuracy(self, network: nn.Module) -> float:
        """Share of the test images that are right."""
        return evaluate_accuracy(network, self.dataset)

    def common(self, training: TrainSettings) -> dict[str, Any]:
        """Arguments that rooms which train by themselves take."""
        return {
            "dataset": self.dataset,
            "settings": training,
            "seed": self.seed,
            "cache_dir": self.cache_dir,
        }


@dataclass(frozen=True)
class Remedy:
    """A way to make a network smaller or faster.

    Attributes:
        family: one of `FAMILIES`; "" for the dense network itself.
        kind: which part of the family.
        make: what does it.
    """

    family: str
    kind: str
    make: Callable[[Bench], Made]
