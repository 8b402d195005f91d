"""How long networks take on this machine, in ONNX Runtime on one thread, all in turns.

Times are taken in the main process after all training, and never kept.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smallnets.data import Dataset
from smallnets.deploy import roofline
from smallnets.deploy.reading import measure_side_by_side
from smallnets.deploy.roofline import Machine
from smallnets.studies.landscape.conditions import taxonomy, trade_off
from smallnets.studies.landscape.experiments import FILE, finish
from smallnets.studies.landscape.plan import Settings

Timed = dict[str, dict[str, Any]]


def files_of(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    names: Sequence[str],
    cache_dir: Path | None = None,
) -> dict[str, bytes]:
    """The exported networks of a seed, by name; those that are not timed are left out."""
    found = {name: finish(dataset, settings, seed, name, cache_dir) for name in names}
    return {name: one[FILE].tobytes() for name, one in found.items() if FILE in one}


def time_networks(
    files: Mapping[str, bytes], settings: Settings, machine: Machine
) -> dict[str, dict[str, float]]:
    """Times of exported networks, and what a roofline predicts.

    Returns:
        For each batch B of the settings "ms, batch B" (median milliseconds of a pass), "low ms,
        batch B" and "high ms, batch B" (quartiles), "roofline ms, batch B" (the least that the
        machine needs), and "memory bound, batch B" (share of that in layers that wait for memory):
        name -> number.
    """
    timed = measure_side_by_side(
        files, batches=settings.batches, threads=[machine.threads], rounds=settings.passes
    )
    found: dict[str, dict[str, float]] = {}
    for batch in settings.batches:
        for one in roofline.place(files, machine, batch=batch, measured=timed):
            for kind, value in (
                ("ms", 1000 * one.measured),
                ("low ms", 1000 * one.low),
                ("high ms", 1000 * one.high),
                ("roofline ms", 1000 * one.predicted),
                ("memory bound", one.memory_bound),
            ):
                found.setdefault(f"{kind}, batch {batch}", {})[one.name] = value
    return found


def time_seeds(
    dataset: Dataset, settings: Settings, cache_dir: Path | None = None, first: int = 0
) -> Timed:
    """Times of the networks of `trade_off`, of every seed.

    Returns:
        As `time_networks`, with a list over seeds in the place of every number; and "machine":
        "peak" (multiply-adds a second) and "bandwidth" (bytes a second) -> list over seeds.
    """
    found: Timed = {"machine": {"peak": [], "bandwidth": []}}
    for seed in range(first, first + settings.seeds):
        files = files_of(dataset, settings, seed, trade_off(settings), cache_dir)
        machine = roofline.measure_machine(megabytes=64)
        found["machine"]["peak"].append(machine.peak)
        found["machine"]["bandwidth"].append(machine.bandwidth)
        for kind, values in time_networks(files, settings, machine).items():
            for name, value in values.items():
                found.setdefault(kind, {}).setdefault(name, []).append(value)
    return found


def time_table(
    dataset: Dataset, settings: Settings, cache_dir: Path | None = None, first: int = 0
) -> Timed:
    """Times of the networks of `taxonomy`, of the first seed: as `time_seeds`, with lists of one
    number.
    """
    files = files_of(dataset, settings, first, taxonomy(settings), cache_dir)
    found = time_networks(files, settings, roofline.measure_machine(megabytes=64))
    return {
        kind: {name: [value] for name, value in values.items()} for kind, values in found.items()
    }
