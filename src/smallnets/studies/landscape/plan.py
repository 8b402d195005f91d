"""Sizes and schedules of the study at four scales."""

import re
from dataclasses import dataclass, replace
from typing import Any

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.models import is_named
from smallnets.structure import BLOCKS
from smallnets.studies.study import SizedOptions, SizedSettings, enough_images, open_study
from smallnets.training import TrainSettings

CONTROLS = ("drawn anew", "random masks")
WIDTH = re.compile(r"((?:convnet|mobile|resnet-\d+|wrn-\d+)-)(\d+)")


@dataclass(frozen=True, kw_only=True)
class Settings(SizedSettings):
    """Sizes of the chapter's experiments.

    Attributes:
        network: one whose name ends with its width, see `narrower`.
        training: of the dense network, and of every network that starts anew.
        tuning: of whatever is made from the dense network, and of the dense network itself where
            it is compared with that.
        short: of the remedies that are shown in the table of all families and decide nothing.
        bits: widths of the sweep of weights, activations and both, from high to low.
        named_bits: widths, of weights and activations alike, of the named quantisers.
        sparsities: shares of the weights that unstructured pruning takes.
        cuts: shares of the channels that structured pruning takes.
        rank_cost: share of weights and multiply-adds that is left at low rank.
        designs: hand-designed blocks whose networks are trained to their plateau.
        factors: by which the networks are narrower that have more bits.
        rounds: of pruning for a lottery ticket.
        controls: of the ticket, see `smallnets.studies.landscape.pruned.ticket`.
        ticket_epochs: of each training of a ticket and of its controls.
        slow_epochs: of networks of signs and of distributions over weights, which learn slowly and
            to which the dense network is hardly a start, and of gates.
        pull: how far the penalties of a group lasso and of learned scales reach in a training if
            nothing holds against them: 1 is from the median channel, and from a scale of 1, to 0.
        anew_epochs: of networks that start anew and that only the table shows; with 0 they are
            counted and timed, and their accuracy is not measured.
        table: whether the representatives of all families are made, too.
        batches: images a pass when networks are timed.
        passes: timed passes of each network and batch.
        calibration: training images that ranges and statistics are taken from.
    """

    training: TrainSettings
    tuning: TrainSettings
    short: TrainSettings
    bits: tuple[int, ...] = (8, 4, 3, 2, 1)
    named_bits: tuple[int, ...] = (4, 2)
    sparsities: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95)
    cuts: tuple[float, ...] = (0.3, 0.5, 0.7)
    rank_cost: float = 0.5
    designs: tuple[str, ...] = ("separable",)
    factors: tuple[int, ...] = (2, 4)
    rounds: int = 3
    controls: tuple[str, ...] = CONTROLS
    ticket_epochs: int = 24
    slow_epochs: int = 24
    pull: float = 2.0
    anew_epochs: int = 40
    table: bool = True
    batches: tuple[int, ...] = (1, 32)
    passes: int = 100
    calibration: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        narrower(self.network, 1)
        for name, least in (("bits", 1), ("named_bits", 2)):
            checks.each(name, getattr(self, name), checks.whole, least)
            checks.between(f"the largest of {name}", max(getattr(self, name)), least, 16)
        if not {4, 2, 1} <= set(self.bits) or 2 not in self.named_bits:
            raise ValueError(
                "bits must contain 4, 2 and 1, and named_bits 2, which are compared; got "
                f"{self.bits} and {self.named_bits}"
            )
        for name, needed in (("sparsities", 0.8), ("cuts", 0.5)):
            checks.each(name, getattr(self, name), checks.between, 0.05, 0.99)
            if needed not in getattr(self, name):
                raise ValueError(f"{name} must contain {needed:g}; got {getattr(self, name)}")
        checks.between("rank_cost", self.rank_cost, 0.05, 1)
        for one in self.designs:
            checks.one_of("every one of designs", one, [name for name in BLOCKS if name != "skip"])
        if "separable" not in self.designs:
            raise ValueError(f"designs must contain 'separable'; got {self.designs}")
        checks.each("factors", self.factors, checks.whole, 2)
        checks.between("the largest of factors", max(self.factors), 2, 8)
        checks.whole("rounds", self.rounds, 1)
        for one in self.controls:
            checks.one_of("every one of controls", one, CONTROLS)
        checks.whole("ticket_epochs", self.ticket_epochs, 1)
        checks.whole("slow_epochs", self.slow_epochs, 1)
        checks.above("pull", self.pull, 0)
        checks.whole("anew_epochs", self.anew_epochs, 0)
        checks.each("batches", self.batches, checks.whole, 1)
        checks.whole("passes", self.passes, 1)
        checks.whole("calibration", self.calibration, 2)


def narrower(network: str, factor: int) -> str:
    """The name of a network with the width of another divided by a whole number, at least 1.

    Raises:
        ValueError: its name does not end with a width.
    """
    found = WIDTH.fullmatch(network)
    if not found or not is_named(network):
        raise ValueError(
            "network must be convnet-WIDTH, mobile-WIDTH, resnet-DEPTH-WIDTH or wrn-DEPTH-WIDTH, "
            f"so that there are narrower ones and layers to quantise; got {network!r}"
        )
    return f"{found[1]}{max(1, int(found[2]) // factor)}"


def _training(epochs: int, lr: float, batch: int = 100, decay: float = 5e-4) -> TrainSettings:
    """A training with a warm-up, in float32: codes of 8 bits do not fit bfloat16's eight digits."""
    return TrainSettings(
        epochs=epochs,
        batch_size=batch,
        lr=lr,
        weight_decay=decay,
        warmup_epochs=epochs / 10,
        augmentation=Augmentation(crop=1),
        precision="32-true",
    )


PRESETS = {
    "smoke": Settings(
        network="resnet-8-4",
        resolution=12,
        train=120,
        test=100,
        seeds=1,
        training=_training(1, 0.1, 40),
        tuning=_training(1, 0.02, 40),
        short=_training(1, 0.02, 40),
        bits=(4, 2, 1),
        named_bits=(2,),
        sparsities=(0.8,),
        cuts=(0.5,),
        factors=(2,),
        rounds=1,
        ticket_epochs=1,
        slow_epochs=1,
        anew_epochs=1,
        table=False,
        passes=3,
        calibration=40,
    ),
    "small": Settings(
        network="resnet-8-8",
        resolution=16,
        train=1000,
        test=800,
        seeds=1,
        training=_training(40, 0.2, 50),
        tuning=_training(4, 0.015, 25, 2e-4),
        short=_training(2, 0.015, 25, 2e-4),
        bits=(4, 2, 1),
        named_bits=(2,),
        sparsities=(0.8, 0.9),
        cuts=(0.3, 0.5),
        factors=(2,),
        rounds=1,
        controls=("drawn anew",),
        ticket_epochs=10,
        slow_epochs=9,
        pull=1.0,
        anew_epochs=0,
        passes=20,
        calibration=200,
    ),
    "evidence": Settings(
        network="resnet-8-12",
        resolution=16,
        train=4000,
        test=4000,
        seeds=8,
        training=_training(40, 0.2, 50),
        tuning=_training(12, 0.1, 100, 2e-4),
        short=_training(12, 0.1, 100, 2e-4),
    ),
    # The published networks are a DenseNet-BC-100 and wide residual networks; this is one of these.
    "paper": Settings(
        network="wrn-16-4",
        resolution=32,
        train=None,
        test=None,
        seeds=3,
        training=replace(_training(200, 0.1, 128), augmentation=Augmentation(crop=4)),
        tuning=replace(_training(60, 0.01, 128, 1e-4), augmentation=Augmentation(crop=4)),
        short=replace(_training(60, 0.01, 128, 1e-4), augmentation=Augmentation(crop=4)),
        bits=(8, 7, 6, 5, 4, 3, 2, 1),
        named_bits=(4, 3, 2),
        designs=("separable", "inverted2", "fire", "shuffle"),
        rounds=4,
        ticket_epochs=200,
        slow_epochs=200,
        anew_epochs=200,
        calibration=2048,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options(SizedOptions):
    """What a reader may ask for: also the widths of the sweep, and whether there is a table.

    Attributes:
        epochs: of the training of the dense network; those of the others change in proportion.
        bits: from 1 to 16, with 4, 2 and 1 among them.
        table: whether the representatives of all families are made.
    """

    bits: tuple[int, ...] | None = None
    table: bool | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, something else in place of a list or of
            True and False, or too few images.
    """
    dataset, settings = open_study(name, scale, PRESETS, options, multiple=4)
    enough_images(dataset, 2 * settings.training.batch_size)
    if options.bits is not None:
        if not isinstance(options.bits, list | tuple):
            raise ValueError(f"bits must be a list of widths; got {options.bits!r}")
        checks.each("bits", options.bits, checks.whole, 1)
        settings = replace(settings, bits=tuple(sorted(set(options.bits), reverse=True)))
    if options.table is not None:
        if not isinstance(options.table, bool):
            raise ValueError(f"table must be True or False; got {options.table!r}")
        settings = replace(settings, table=options.table)
    if options.epochs is not None:
        share = checks.whole("epochs", options.epochs, 1) / settings.training.epochs
        scaled: dict[str, Any] = {
            name: part.with_epochs(max(1, round(part.epochs * share)))
            for name, part in vars(settings).items()
            if isinstance(part, TrainSettings)
        }
        scaled |= {
            name: max(min(1, epochs), round(epochs * share))
            for name in ("ticket_epochs", "slow_epochs", "anew_epochs")
            for epochs in (getattr(settings, name),)
        }
        settings = replace(settings, **scaled)
    return dataset, replace(settings, calibration=min(settings.calibration, len(dataset.y_train)))
