"""How long networks take for one image, in PyTorch and in ONNX Runtime. Nothing of it is kept on
disk; within a process a thing is timed once. Call it while nothing else runs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from smallnets.deploy import onnx_runtime
from smallnets.gan.networks import count
from smallnets.measure import evaluating
from smallnets.measure.latency import Timing, interleaved
from smallnets.measure.ranking import correlations
from smallnets.studies.gan.domain import Domain
from smallnets.studies.gan.gallery import random_configs
from smallnets.studies.gan.learners import REMEMBERED, pairs_of, train_supernet
from smallnets.studies.gan.named import network
from smallnets.studies.gan.plan import Settings
from smallnets.training.workers import threads

RUNTIMES = ("PyTorch", "ONNX Runtime")
COUNTS = ("exact", "published")
COMPARED = ("teacher", "blocks", "compressed")
BLOCK = 5.0  # milliseconds that a block of calls lasts at least
Shape = tuple[int, ...]


def timed(
    networks: Mapping[str, nn.Module | bytes], shape: Shape, thread_count: int, rounds: int
) -> dict[str, Timing]:
    """Milliseconds that one image takes each network, measured in turns.

    Args:
        networks: on the CPU; one that was exported runs in ONNX Runtime.
        shape: of one input.
        thread_count: CPU threads.
        rounds: of measuring.
    """
    calls: dict[str, Callable[[], object]] = {}
    example = torch.zeros(1, *shape)
    for name, one in networks.items():
        if isinstance(one, bytes):
            session = onnx_runtime.load(one, thread_count)
            calls[name] = partial(onnx_runtime.predict, session, example)
        else:
            calls[name] = partial(one.eval(), example)
    with threads(thread_count), torch.inference_mode():
        return interleaved(calls, rounds=rounds, block=BLOCK)


def _by_runtime(
    networks: Mapping[str, nn.Module], shape: Shape
) -> dict[str, Mapping[str, nn.Module | bytes]]:
    """Networks for both of `RUNTIMES`."""
    exported = {name: onnx_runtime.export(one, shape) for name, one in networks.items()}
    return dict(zip(RUNTIMES, (networks, exported), strict=True))


def time_side_by_side(
    domain: Domain, settings: Settings, seed: int, cache_dir: Path
) -> list[dict[str, Any]]:
    """`COMPARED` of one seed, one image of `settings.timed_side` pixels a side, with one thread.

    Args:
        domain, settings, seed, cache_dir: see `learners.alone`.

    Returns:
        One row for each network and runtime: "name", "runtime", "milliseconds" (median), "low" and
        "high" (quartiles), "exact" and "published" multiply-accumulates.
    """
    return _side_by_side(domain, settings, seed, cache_dir)


@lru_cache(REMEMBERED)
def _side_by_side(
    domain: Domain, settings: Settings, seed: int, cache_dir: Path
) -> list[dict[str, Any]]:
    data = pairs_of(domain, settings, cache_dir)
    shape = (data.a_channels, settings.timed_side, settings.timed_side)
    networks = {name: network(domain, settings, seed, name, cache_dir) for name in COMPARED}
    prices = {name: count(one, shape) for name, one in networks.items()}
    return [
        {
            "name": name,
            "runtime": runtime,
            "milliseconds": one.median,
            "low": one.low,
            "high": one.high,
            "exact": prices[name].exact,
            "published": prices[name].published,
        }
        for runtime, things in _by_runtime(networks, shape).items()
        for name, one in timed(things, shape, 1, settings.rounds).items()
    ]


def time_configurations(
    domain: Domain, settings: Settings, seed: int, cache_dir: Path
) -> dict[str, np.ndarray]:
    """Latency of random configurations of the seed's supernet, one image, one thread.

    Returns:
        "exact" and "published" multiply-accumulates and milliseconds in "PyTorch" and in "ONNX
        Runtime", one number a configuration.
    """
    return _configurations(domain, settings, seed, cache_dir)


@lru_cache(REMEMBERED)
def _configurations(
    domain: Domain, settings: Settings, seed: int, cache_dir: Path
) -> dict[str, np.ndarray]:
    made = train_supernet(domain, settings, seed, cache_dir)
    data = pairs_of(domain, settings, cache_dir)
    shape = (data.a_channels, settings.timed_side, settings.timed_side)
    configs = random_configs(settings, made.space, seed, settings.timed)
    networks = {str(one): made.network.export(one).eval() for one in configs}
    prices = [made.network.cost(one, shape[1:]) for one in configs]
    found = {
        "exact": np.array([float(one.exact) for one in prices]),
        "published": np.array([float(one.published) for one in prices]),
    }
    for runtime, things in _by_runtime(networks, shape).items():
        times = timed(things, shape, 1, settings.rounds)
        found[runtime] = np.array([times[str(one)].median for one in configs])
    return found


def measure_latency(
    domain: Domain, settings: Settings, seeds: Sequence[int], cache_dir: Path
) -> dict[str, dict[str, list[float]]]:
    """What the claims on latency need, seed after seed in this process: other work beside it would
    be measured too.

    Returns:
        "gain": "exact" and "published" -> how many times fewer multiply-accumulates the compressed
        network has than the teacher; "timed gain": "PyTorch" and "ONNX Runtime" -> how many times
        faster it is, for one image and one thread; "timed rank": "exact, PyTorch", ... ->
        Spearman's correlation of a count and a latency over random configurations. Lists over
        seeds.
    """
    found: dict[str, dict[str, list[float]]] = {"gain": {}, "timed gain": {}, "timed rank": {}}
    for seed in seeds:
        rows = time_side_by_side(domain, settings, seed, cache_dir)
        times = time_configurations(domain, settings, seed, cache_dir)
        for measure, values in {**_gains(rows), "timed rank": _ranks(times)}.items():
            for name, value in values.items():
                found[measure].setdefault(name, []).append(value)
    return found


def _gains(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Teacher over compressed, of counts and of milliseconds."""
    mine = {(row["name"], row["runtime"]): row for row in rows}

    def gain(measure: str, runtime: str = RUNTIMES[0]) -> float:
        whole, small = (mine[name, runtime][measure] for name in ("teacher", "compressed"))
        return float(whole / small)

    return {
        "gain": {name: gain(name) for name in COUNTS},
        "timed gain": {runtime: gain("milliseconds", runtime) for runtime in RUNTIMES},
    }


def _ranks(times: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of every count and every runtime."""
    return {
        f"{counted}, {runtime}": correlations(
            torch.from_numpy(times[counted]), torch.from_numpy(times[runtime])
        ).spearman
        for counted in COUNTS
        for runtime in RUNTIMES
    }


def same_images(one: nn.Module, shape: Shape, seed: int = 0) -> float:
    """The largest difference, pixel by pixel, between a network's images in PyTorch and in ONNX
    Runtime, as a share of the largest pixel.
    """
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.rand(2, *shape, generator=draw) * 2 - 1
    session = onnx_runtime.load(onnx_runtime.export(one, shape))
    with evaluating(one):
        return onnx_runtime.difference(one, session, inputs)
