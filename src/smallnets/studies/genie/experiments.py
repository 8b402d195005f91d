"""The chapter's experiments: one network and one case a call, to run side by side."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smallnets import measure
from smallnets.data import Dataset
from smallnets.losses import check_finite
from smallnets.quantize.genie.network import QuantizedNetwork, calibrate, quantize
from smallnets.quantize.genie.reconstruct import (
    ReconstructionSettings,
    UnitHistory,
    reconstruct,
)
from smallnets.quantize.genie.statistics import matching_loss
from smallnets.quantize.genie.synthesis import (
    Synthesis,
    corner_energy,
    roughness,
    synthesize,
)
from smallnets.quantize.genie.units import Unit
from smallnets.storage import Arrays, kept_arrays, source_digest
from smallnets.studies.genie.plan import SOURCES, Settings
from smallnets.studies.networks import build_network
from smallnets.studies.study import run_grid
from smallnets.studies.watching import curve, train_watched
from smallnets.training.checkpoint import GROUND, History, cache_path

METHODS = {
    "nearest": "nearest",
    "adaround": "AdaRound",
    "naive": "recomputed base",
    "genie": "GENIE-M",
}
PUBLISHED_RATE = ReconstructionSettings().lr_bit


@dataclass(frozen=True)
class Case:
    """One way of quantising: widths, calibration images, method.

    Attributes:
        weights, activations: bits.
        source: "real" or a name in `SOURCES`.
        mode: of the weights, see `METHODS`.
        drop: QDrop's probability.
        count: calibration images; None is the settings' number.
        lr_bit: of the soft bits; None is the settings'.
    """

    weights: int
    activations: int
    source: str = "GENIE-D"
    mode: str = "genie"
    drop: float = 0.5
    count: int | None = None
    lr_bit: float | None = None

    @property
    def name(self) -> str:
        """Under which measurements stand, such as "W2A4, GENIE-M, real"."""
        parts = [f"W{self.weights}A{self.activations}", METHODS[self.mode], self.source]
        if self.drop != 0.5:
            parts.append(f"drop {self.drop:g}")
        if self.count is not None:
            parts.append(f"{self.count} pictures")
        if self.lr_bit is not None:
            parts.append(f"rate {self.lr_bit:g}")
        return ", ".join(parts)


def train_teacher(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> nn.Module:
    """The network of a seed, trained on all training images, in evaluation mode, on the device of
    its training; so is all that is made of it.
    """
    network = _trained(dataset, settings, seed, cache_dir)[0]
    return network.to(settings.training.accelerator)


def learning_curve(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, list[float]]:
    """How `train_teacher` went, see `smallnets.studies.watching.curve`."""
    return curve(_trained(dataset, settings, seed, cache_dir)[1])


def _trained(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None
) -> tuple[nn.Module, History]:
    of_cifar = settings.network.startswith("resnet-")
    stride = settings.stem_stride if of_cifar else 1
    network = build_network(settings.network, dataset, seed, stem_stride=stride)
    return network, train_watched(network, dataset, settings.training, seed, cache_dir)


def synthesize_images(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    source: str,
    cache_dir: Path | None = None,
) -> Synthesis:
    """Images that a seed's network takes for its training data, made in one of the ways."""
    method, swing = SOURCES[source]
    network = train_teacher(dataset, settings, seed, cache_dir)
    shape = (dataset.channels, settings.resolution, settings.resolution)
    made = synthesize(
        network,
        settings.images,
        shape,
        method,
        swing=swing,
        settings=settings.synthesis,
        seed=seed,
        cache_dir=cache_dir,
    )
    return replace(made, images=made.images.cpu())


def calibration_images(dataset: Dataset, settings: Settings) -> Tensor:
    """The first training images, as the network takes them: what few-shot methods may see."""
    return dataset.for_choosing(settings.images).images


def describe_images(network: nn.Module, images: Tensor) -> dict[str, float]:
    """What can be said of calibration images without quantising anything."""
    images = images.to(next(network.parameters()).device)
    return {
        "loss": matching_loss(network, images),
        "roughness": roughness(images),
        "corner": corner_energy(images),
        "diversity": diversity(network, images),
        "classes": classes_seen(network, images),
    }


def diversity(network: nn.Module, images: Tensor) -> float:
    """Mean distance of two images' logits."""
    return float(torch.pdist(_logits(network, images)).mean())


def classes_seen(network: nn.Module, images: Tensor) -> float:
    """In how many classes the images are, by the network's word: exp of the classes' entropy."""
    share = torch.bincount(_logits(network, images).argmax(1)).double() / len(images)
    return float((-(share * share.clamp(min=1e-12).log()).sum()).exp())


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits = network(images)
    check_finite("logits", logits)
    return logits


def cases(settings: Settings) -> list[Case]:
    """All cases of the chapter."""
    found = []
    for widths in settings.widths:
        found.append(Case(*widths, "real", "nearest"))
        found += [Case(*widths, source) for source in ("real", "GENIE-D")]
    main = settings.main
    found += [Case(*main, source) for source in settings.sources]
    found += [
        Case(*main, source, mode) for mode in ("adaround", "naive") for source in settings.taught_on
    ]
    found += [Case(*main, count=count) for count in settings.counts]
    if settings.published_rate:
        found.append(Case(*main, lr_bit=PUBLISHED_RATE))
    return list(dict.fromkeys(found))


def quantize_case(
    network: nn.Module, case: Case, images: Tensor, settings: Settings, seed: int
) -> tuple[QuantizedNetwork, list[UnitHistory]]:
    """A network quantised as a case says, on calibration images."""
    images = images[: case.count].to(next(network.parameters()).device)
    result = quantize(
        network, case.weights, case.activations, mode=case.mode, sample=settings.sample
    )
    if case.mode == "nearest":
        return calibrate(result, images[: settings.reconstruction.init_images]), []
    how = replace(settings.reconstruction, drop=case.drop)
    if case.lr_bit is not None:
        how = replace(how, lr_bit=case.lr_bit)
    return result, reconstruct(result, images, how, seed=seed)


def assess(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    case: Case,
    images: Tensor,
    cache_dir: Path | None = None,
) -> dict[str, float]:
    """Quantise a seed's network as a case says, and measure it on test images.

    Args:
        dataset, settings, seed, case, images: what, how, and calibration images of its source.
        cache_dir: folder in which the network and these results are kept.

    Returns:
        "accuracy"; "error": the squared error of the features in front of the last layer, over
        their squared size; "KL": of the quantised network's predictions from the network's, in
        nats; "seconds".
    """
    network = train_teacher(dataset, settings, seed, cache_dir)
    path = cache_dir and cache_path(
        cache_dir,
        "assessed",
        ".npz",
        network=network,
        data=dataset.key,
        case=case,
        images=images,
        how=(settings.reconstruction, settings.sample, seed),
        code=source_digest(*GROUND, "quantize", "studies/genie"),
    )

    def assessed() -> Arrays:
        began = time.perf_counter()
        result, _ = quantize_case(network, case, images, settings, seed)
        seconds = time.perf_counter() - began
        found = evaluate_quantised(network, result, dataset)
        return {name: np.array(value) for name, value in (found | {"seconds": seconds}).items()}

    return {name: float(value) for name, value in kept_arrays(path, assessed).items()}


def evaluate_quantised(
    network: nn.Module, result: QuantizedNetwork, dataset: Dataset
) -> dict[str, float]:
    """ "accuracy", "error" and "KL" of a quantised network, see `assess`."""
    units = result.units()
    nodes = tuple(node for unit in units[:-1] for node in unit.nodes)
    body = Unit("features", nodes, (result.entry,), (), units[-1].entries[0], ())
    x = dataset.normalise(dataset.x_test).to(next(network.parameters()).device)
    with torch.no_grad():
        exact, got = (
            torch.cat([part(batch)[-1] for batch in x.split(250)]) for part in result.pair(body)
        )
    wanted, logits = (
        measure.predict(one, dataset.x_test, dataset.normalise) for one in (network, result)
    )
    return {
        "accuracy": measure.accuracy(logits, dataset.y_test),
        "error": float((got - exact).square().sum() / exact.square().sum()),
        "KL": measure.predictive_kl(student_logits=logits, teacher_logits=wanted),
    }


def assess_all(
    dataset: Dataset,
    settings: Settings,
    images: Sequence[Mapping[str, Tensor]],
    cache_dir: Path | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Measure of `assess` -> name of the case -> one value a seed, side by side.

    Args:
        dataset, settings, cache_dir: as everywhere.
        images: one dictionary a seed, source -> calibration images.
    """
    cells = {
        (case, seed): {"case": case, "images": images[seed][case.source]}
        for case in cases(settings)
        for seed in range(settings.seeds)
    }
    grid = run_grid(
        assess,
        cells,
        description="networks",
        dataset=dataset,
        settings=settings,
        cache_dir=cache_dir,
    )
    return {
        measured: {case.name: [one[measured] for one in results] for case, results in grid.items()}
        for measured in next(iter(grid.values()))[0]
    }


@dataclass(frozen=True)
class LearningTrace:
    """What learning does to one network.

    Attributes:
        histories: of its units.
        bits_before, bits_after: all soft bits (n,) of layers with the case's own width.
        moved: relative change (n,) of the steps of those layers' channels.
        flipped: share of those weights that are not rounded to nearest.
        undecided: share of the soft bits after learning that lie between 0.05 and 0.95.
        network: the result.
    """

    histories: list[UnitHistory]
    bits_before: Tensor
    bits_after: Tensor
    moved: Tensor
    flipped: float
    undecided: float
    network: QuantizedNetwork


def trace_learning(
    network: nn.Module, case: Case, images: Tensor, settings: Settings, seed: int = 0
) -> LearningTrace:
    """Quantise a network as a case says and keep what happens to bits and steps."""
    start = quantize(network, case.weights, case.activations, mode=case.mode)
    result, histories = quantize_case(network, case, images, settings, seed)
    before = [one for one in start.weights.values() if one.bits == case.weights]
    after = [one for one in result.weights.values() if one.bits == case.weights]
    with torch.no_grad():
        nearest = torch.cat([(one.logit >= 0).flatten() for one in before])
        chosen = torch.cat([(one.logit >= 0).flatten() for one in after])
        bits = torch.cat([one.soft_bits.flatten() for one in after])
        return LearningTrace(
            histories,
            torch.cat([one.soft_bits.flatten() for one in before]),
            bits,
            torch.cat(
                [(b.step / a.step).flatten() - 1 for a, b in zip(before, after, strict=True)]
            ),
            float((nearest != chosen).double().mean()),
            float(((bits > 0.05) & (bits < 0.95)).double().mean()),
            result,
        )
