"""The chapter's experiments: one seed and one way of training a call, to run side by side."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import measure
from smallnets.data import Dataset
from smallnets.quantize.layered.baselines import recalibrate_width, truncated
from smallnets.quantize.layered.combine import gram_matrix
from smallnets.quantize.layered.fake import WeightRule, layered_value, search_start
from smallnets.quantize.layered.file import layered_bytes, load_layered
from smallnets.quantize.layered.network import LayeredNetwork, to_layered
from smallnets.quantize.layered.train import TrainOnce, train_once
from smallnets.studies.layered.plan import Settings
from smallnets.studies.layered.variants import JUDGED, VARIANTS
from smallnets.studies.networks import build_network, evaluate_accuracy
from smallnets.studies.study import every, run_grid
from smallnets.studies.watching import train_watched
from smallnets.training import for_seeds, run_parallel
from smallnets.training.checkpoint import History
from smallnets.training.workers import threads


def watch_float(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> tuple[nn.Module, History]:
    """The float network of a seed, and its log, see `smallnets.studies.watching.curve`."""
    network = build_network(settings.network, dataset, seed)
    return network, train_watched(
        network, dataset, settings.training, seed, cache_dir, label="float"
    )


def train_float(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> nn.Module:
    """The float network of a seed."""
    return watch_float(dataset, settings, seed, cache_dir)[0]


def evaluate_float(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> float:
    """Test accuracy of the float network of a seed."""
    return evaluate_accuracy(train_float(dataset, settings, seed, cache_dir), dataset)


@threads(1)  # steps start from sums, whose last bits depend on the number of threads
def train_quantised(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    variant: str | int,
    cache_dir: Path | None = None,
) -> tuple[LayeredNetwork, History]:
    """A network of all widths trained in some way, or a dedicated one of a single width.

    Args:
        dataset, settings, seed, cache_dir: as in `train_float`; all variants but "scratch" start
            from that network.
        variant: name among `VARIANTS`, or a bit width.
    """
    tuning = settings.tuning
    if variant == "scratch":
        network = build_network(settings.network, dataset, seed)
        tuning = tuning.with_epochs(settings.training.epochs + tuning.epochs)
    else:
        network = train_float(dataset, settings, seed, cache_dir)
    if isinstance(variant, int):
        tuning = replace(tuning, lr=settings.narrow_lr) if variant <= 2 else tuning
        rule, objective = WeightRule(start="lsq", per_channel=settings.per_channel), TrainOnce()
        layered = to_layered(network, (variant,), weights=rule)
    else:
        options, objective = VARIANTS[variant]
        weights = options.get("weights", WeightRule())
        if isinstance(weights, WeightRule):
            weights = replace(weights, per_channel=settings.per_channel)
        layered = to_layered(network, settings.widths, **{**options, "weights": weights})
    history = train_once(
        layered,
        dataset,
        tuning,
        seed=seed,
        objective=objective,
        cache_dir=cache_dir,
        label="quantised",
    )
    return layered, history


def accuracies(
    network: LayeredNetwork, dataset: Dataset, widths: Sequence[int]
) -> dict[int, float]:
    """Width -> share of the test images that are right."""
    return {bits: evaluate_accuracy(network.set_width(bits), dataset) for bits in widths}


def changed_answers(network: LayeredNetwork, dataset: Dataset) -> dict[str, float]:
    """Share of the test images whose class changes when more layers arrive, one entry for each step
    from a trained width to the next, such as "2 to 4 bits".
    """
    said = {
        bits: measure.predict(network.set_width(bits), dataset.x_test, dataset.normalise).argmax(1)
        for bits in sorted(network.widths)
    }
    return {
        f"{few} to {more} bits": float((said[few] != said[more]).float().mean())
        for few, more in pairwise(said)
    }


def evaluate_variant(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    variant: str | int,
    cache_dir: Path | None = None,
) -> dict[str, Any]:
    """What a training gives.

    Returns:
        "accuracy": width -> test accuracy; "weights": width -> mean weight of its gradient in the
        last epoch; for "layered" and dedicated networks the "bytes" of their file, in which a
        dedicated network is a single layer. For variant "layered" also "read", the accuracy of
        every width read from the file, "recalibrated", the same with fresh BatchNorm statistics,
        and "changed", see `changed_answers`; for the dedicated network of the highest width "cut"
        and "cut, recalibrated".
    """
    network, history = train_quantised(dataset, settings, seed, variant, cache_dir)
    last = {k.split()[1]: v for k, v in history[-1].items() if k.startswith("weight ")}
    found: dict[str, Any] = {
        "accuracy": accuracies(network, dataset, network.widths),
        "weights": {int(bits): value for bits, value in last.items()},
    }
    if variant == "layered" or isinstance(variant, int):
        data, _ = layered_bytes(network)
        found["bytes"] = len(data)
    fresh = dataset.for_choosing(settings.calibration).images.split(100)
    if variant == "layered":
        empty = build_network(settings.network, dataset, seed)
        all_widths = range(network.lowest, network.highest + 1)
        found["read"], found["recalibrated"] = {}, {}
        for bits in all_widths:
            read = load_layered(data, empty, bits=bits)
            found["read"][bits] = evaluate_accuracy(read, dataset)
            found["recalibrated"][bits] = evaluate_accuracy(recalibrate_width(read, fresh), dataset)
        found["changed"] = changed_answers(network, dataset)
    if variant == settings.widths[0]:
        cut = truncated(network, settings.widths)
        found["cut"] = accuracies(cut, dataset, settings.widths)
        found["cut, recalibrated"] = {
            bits: evaluate_accuracy(recalibrate_width(cut, fresh, bits), dataset)
            for bits in settings.widths
        }
    return found


def gradient_gram(network: LayeredNetwork, dataset: Dataset, images: int) -> Tensor:
    """(T, T) inner products of the widths' gradients by the weights that they share, from high to
    low, for the loss on the first training images, as a batch of training.
    """
    network = copy.deepcopy(network).train()
    x, labels = dataset.for_choosing(images)
    own = network.own_parameters()
    shared = [p for name, p in network.named_parameters() if name not in own]
    losses = [F.cross_entropy(network(x, bits), labels) for bits in network.widths]
    return gram_matrix([torch.autograd.grad(loss, shared) for loss in losses])


def conditions(settings: Settings) -> dict[tuple[str | int, int], Mapping[str, Any]]:
    """Cells of the grid: all variants, then dedicated networks, each with its number of seeds."""
    names: list[str | int] = [*settings.variants, *settings.widths]
    judged = (*JUDGED, *settings.widths)
    seeds = {v: settings.seeds if v in judged else settings.variant_seeds for v in names}
    return every({name: {"variant": name} for name in names}, seeds)


def run_variants(
    dataset: Dataset, settings: Settings, cache_dir: Path | None = None
) -> dict[str | int, list[dict[str, Any]]]:
    """Variant or width -> one result of `evaluate_variant` a seed."""
    return run_grid(
        evaluate_variant,
        conditions(settings),
        description="quantised",
        dataset=dataset,
        settings=settings,
        cache_dir=cache_dir,
    )


def measure_all(
    dataset: Dataset, settings: Settings, cache_dir: Path | None = None
) -> dict[str, Any]:
    """Everything that the chapter's figures and claims are made of, as lists over seeds.

    Returns:
        "float": test accuracy; "accuracy": the same under names such as "layered, 4 bits",
        "dedicated, 4 bits", "8 bits cut, 4 bits" and, with fresh BatchNorm statistics, "8 bits cut
        and recalibrated, 4 bits"; of the layered network also "read" and "recalibrated", under
        "3 bits", and "changed", under "2 to 4 bits", see `evaluate_variant`; "kilobytes" of
        real files, of the "layered" one and of all "dedicated together".
    """
    common: dict[str, Any] = {"dataset": dataset, "settings": settings, "cache_dir": cache_dir}
    full = run_parallel(
        evaluate_float, for_seeds(settings.seeds, **common), description="float networks"
    )
    found = run_variants(**common)
    high = settings.widths[0]
    rows = {name: [one["accuracy"] for one in found[name]] for name in settings.variants}
    rows |= {
        f"{high} bits cut{suffix}": [one[f"cut{part}"] for one in found[high]]
        for suffix, part in (("", ""), (" and recalibrated", ", recalibrated"))
    }
    accuracy = {
        f"dedicated, {bits} bits": [one["accuracy"][bits] for one in found[bits]]
        for bits in settings.widths
    }
    accuracy |= {
        f"{name}, {bits} bits": [one[bits] for one in results]
        for name, results in rows.items()
        for bits in settings.widths
    }
    layered = found["layered"]
    return {
        "float": full,
        "accuracy": accuracy,
        **{
            name: {
                f"{bits} bits": [one[name][bits] for one in layered] for bits in layered[0][name]
            }
            for name in ("read", "recalibrated")
        },
        "changed": {
            step: [one["changed"][step] for one in layered] for step in layered[0]["changed"]
        },
        "kilobytes": {
            "layered": [one["bytes"] / 1000 for one in layered],
            "dedicated together": [
                sum(found[bits][seed]["bytes"] for bits in settings.widths) / 1000
                for seed in range(settings.seeds)
            ],
        },
    }


def code_bytes(weights: int, widths: Sequence[int]) -> tuple[int, int]:
    """Bytes of the codes of some weights: in layers, and in one network a width."""
    return weights * max(widths) // 8, sum(weights * bits // 8 for bits in widths)


def rule_errors(
    weight: Tensor, high: int, rules: Sequence[str] = ("plain", "mid", "round", "direct")
) -> dict[str, list[float]]:
    """Rule -> mean squared error of tied weights at 2, 3, ... `high` bits, over the variance."""
    step = search_start(weight, high, 2)
    found = {}
    for rule in rules:
        values = [
            layered_value(weight, step, step * 2.0 ** (high - bits), high, bits, rule)
            for bits in range(2, high + 1)
        ]
        found[rule] = [float((v - weight).square().mean() / weight.var()) for v in values]
    return found


def confidences(
    data: bytes, model: nn.Module, dataset: Dataset, images: int, widths: Sequence[int]
) -> np.ndarray:
    """Probability of the right class for the first test images, (images, widths), of networks that
    are read from a layered file's beginning.
    """
    labels = dataset.y_test[:images]
    columns = []
    for bits in widths:
        network = load_layered(data, model, bits=bits)
        logits = measure.predict(network, dataset.x_test[:images], dataset.normalise)
        columns.append(logits.softmax(1)[torch.arange(len(labels)), labels])
    return torch.stack(columns, 1).numpy()
