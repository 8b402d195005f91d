"""What one seed of the study measures: measure -> name of a network -> number."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from smallnets import measure as measures
from smallnets import structure
from smallnets.data import Dataset
from smallnets.deploy.cost import cost
from smallnets.deploy.exporting import Exported, export_checked
from smallnets.quantize.modules import Quantizer
from smallnets.storage import kept_arrays, source_digest
from smallnets.studies.landscape.conditions import (
    conditions,
    core_conditions,
    further_conditions,
)
from smallnets.studies.landscape.making import Bench, Made
from smallnets.studies.landscape.plan import Settings
from smallnets.studies.landscape.storing import file_bytes
from smallnets.studies.landscape.structural import DESIGNS
from smallnets.studies.watching import curve
from smallnets.training import run_parallel
from smallnets.training.naming import name_of

FILE = "onnx"
# A network of few bits rounds otherwise where sums differ in their last digits; the largest
# difference is among what is measured.
ROUNDED = 2.0
DENSE_IN_FILES = (
    structure.CirculantLinear,
    structure.TTLinear,
    structure.HashedConv2d,
    structure.HashedLinear,
    structure.CodebookConv2d,
    structure.CodebookLinear,
)
Finished = dict[str, np.ndarray]
Measured = dict[str, Any]


def train_side_by_side(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> None:
    """Make, judge and keep networks of one seed, as many at a time as there are cores: those of the
    table, and of a study of one seed all.

    Args:
        dataset, settings, seed: as of `finish`.
        cache_dir: folder for what is kept; without one nothing is done.
    """
    made = further_conditions if settings.seeds > 1 else conditions
    common = {"dataset": dataset, "settings": settings, "seed": seed, "cache_dir": cache_dir}
    jobs = [{**common, "name": name} for name in _in_order(list(made(settings)))]
    if jobs and cache_dir is not None:
        run_parallel(_finish_only, jobs, description="networks")


def _in_order(names: Sequence[str]) -> list[str]:
    """The dense network first, then what does not need it, so that nobody waits for it or trains it
    once more; then what takes longest, so that none is left alone at the end.
    """
    anew = {*DESIGNS.values(), "half as wide", "searched by gradients", "searched at random"}
    long = {"BNN, 1/1", "XNOR, 1/1", "probabilistic, 2/32", "iterative"}

    def place(name: str) -> int:
        if name == "float":
            return 0
        if name in anew:
            return 1
        return 2 if name in long or name.startswith("ticket") else 3

    return sorted(names, key=place)


def _finish_only(**job: Any) -> None:
    finish(**job)


def finish(
    dataset: Dataset, settings: Settings, seed: int, name: str, cache_dir: Path | None = None
) -> Finished:
    """One network made, judged, counted and exported, or what was kept of that.

    Args:
        dataset: all images.
        settings: of the study.
        seed: of the repetition.
        name: of `conditions`.
        cache_dir: folder for finished trainings and for this.

    Returns:
        Measure -> number, as arrays (), and "onnx", the exported network's bytes; none of a network
        that is not timed.
    """
    kept = None
    if cache_dir is not None:
        decides = replace(settings, seeds=1, passes=1, batches=(1,), table=True)
        key = name_of(
            data=dataset.key, settings=decides, seed=seed, condition=name,
            library=source_digest("."), capability=torch.backends.cpu.get_cpu_capability(),
        )  # fmt: skip
        kept = cache_dir / "landscape" / f"{key}.npz"
    bench = Bench(dataset, settings, seed, cache_dir)
    return kept_arrays(kept, lambda: _finished(bench, name))


def _finished(bench: Bench, name: str) -> Finished:
    made = conditions(bench.settings)[name].make(bench)
    found = count(made, bench.shape)
    if made.trained:
        found["accuracy"] = bench.accuracy(made.network)
    if made.before is not None:
        found["no training"] = made.before
    arrays = {key: np.array(float(value)) for key, value in found.items()}
    if made.macs is None:
        exported = export(made, bench)
        arrays["off when exported"] = np.array(exported.difference)
        arrays[FILE] = np.frombuffer(exported.file, np.uint8)
    return arrays


def export(made: Made, bench: Bench) -> Exported:
    """The network for ONNX Runtime, compared with the original. Weights that are made anew in every
    pass are made once.
    """
    plain = made.plain
    if structure.structured(plain):
        plain = _without_shared(plain)
    rounds = any(isinstance(one, Quantizer) for one in plain.modules())
    return export_checked(
        plain, bench.shape, examples=bench.images[:8], tolerance=ROUNDED if rounds else None
    )


def _without_shared(network: nn.Module) -> nn.Module:
    """The network, or one whose layers are all dense if it shares weights, or has layers that
    exporters do not know.
    """
    layers = structure.structured(network).values()
    unknown = any(isinstance(one, DENSE_IN_FILES) for one in layers)
    return structure.to_dense(network) if unknown else network


def count(made: Made, shape: tuple[int, ...]) -> dict[str, float]:
    """What a network costs on paper, and the size of a file that holds it.

    Args:
        made: by a remedy.
        shape: of an image.

    Returns:
        "parameters", those that are "nonzero", "macs" of an image, "nonzero macs", "bit
        operations", "bytes" with indices and code books, and "file bytes".
    """
    network = made.plain if made.counted is None else made.counted
    structured = bool(structure.structured(network))
    found = cost(structure.to_dense(network) if structured else network, shape, bits=made.bits)
    counts: dict[str, float] = {
        "parameters": found.parameters,
        "nonzero": found.nonzero,
        "macs": found.macs,
        "nonzero macs": found.nonzero_macs,
        "bit operations": found.bit_operations,
        "bytes": found.bytes,
    }
    if structured:
        macs, size = structure.multiply_adds(network, shape), measures.parameters(network)
        counts |= {
            "parameters": size,
            "nonzero": size,
            "macs": macs,
            "nonzero macs": macs,
            "bit operations": 32 * 32 * macs,
            "bytes": math.ceil(structure.stored_bits(network) / 8),
        }
    if made.macs is not None:
        share = made.macs / counts["macs"]
        for name in ("macs", "nonzero macs", "bit operations"):
            counts[name] *= share
    return counts | {"file bytes": file_bytes(made.plain, made.bits)}


def measure(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measured:
    """Everything that is measured of every seed, time apart.

    Returns:
        "accuracy" (test images, 0 to 1), "no training" (straight after the conversion), what
        `count` gives, and "off when exported" (largest difference over the largest output): name of
        `core_conditions` -> number. "curve": "train" and "test" -> shares of right answers of the
        dense network, epoch by epoch.
    """
    found = _measured(dataset, settings, seed, list(core_conditions(settings)), cache_dir)
    history = Bench(dataset, settings, seed, cache_dir).watched()[1]
    return found | {"curve": curve(history)}


def measure_further(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measured:
    """As `measure`, of `further_conditions`, and without a curve; no "accuracy" of networks that
    are only counted.
    """
    return _measured(dataset, settings, seed, list(further_conditions(settings)), cache_dir)


def _measured(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    names: Sequence[str],
    cache_dir: Path | None,
) -> Measured:
    with TemporaryDirectory() as folder:  # conditions share trainings, kept or not
        place = Path(folder) if cache_dir is None else cache_dir
        found = {name: finish(dataset, settings, seed, name, place) for name in names}
    kinds = dict.fromkeys(key for one in found.values() for key in one if key != FILE)
    return {
        kind: {name: float(one[kind]) for name, one in found.items() if kind in one}
        for kind in kinds
    }
