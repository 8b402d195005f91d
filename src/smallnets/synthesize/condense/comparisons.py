"""Tables over sets and networks: what a set is worth to other architectures, and at other sizes."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from smallnets import checks
from smallnets.synthesize.condense.evaluation import (
    PUBLISHED_EVALUATION,
    EvalSettings,
    Factory,
    evaluate_set,
)
from smallnets.synthesize.condense.sets import Data, ImageSet, SyntheticSet


def transfer_table(
    sets: Mapping[str, Sequence[ImageSet]],
    test: Data,
    factories: Mapping[str, Factory],
    settings: EvalSettings = PUBLISHED_EVALUATION,
    seeds: Sequence[int] = range(5),
    *,
    workers: int | None = None,
) -> dict[str, dict[str, Tensor]]:
    """The cross-architecture table: sets learned on one network, tested on all.

    Args:
        sets: what each set was learned on, or "random" -> independently learned sets.
        test, settings, seeds, workers: see `evaluate_set`.
        factories: name -> () -> a network.

    Returns:
        Learned on -> tested on -> accuracies (sets, networks).
    """
    return {
        learned: {
            tested: evaluate_set(
                list(some), test, factory, settings, seeds, workers=workers
            ).accuracies
            for tested, factory in factories.items()
        }
        for learned, some in sets.items()
    }


def accuracy_by_ipc(
    makers: Mapping[str, Callable[[int, int], SyntheticSet]],
    ipcs: Sequence[int],
    test: Data,
    factory: Factory,
    settings: EvalSettings = PUBLISHED_EVALUATION,
    *,
    sets: int = 3,
    seeds: Sequence[int] = range(5),
    workers: int | None = None,
) -> dict[str, Tensor]:
    """Accuracy against images a class, up to large sets.

    Args:
        makers: method -> (ipc, seed) -> a set.
        ipcs: images a class.
        test, factory, settings, seeds, workers: see `evaluate_set`.
        sets: independently made sets of every size.

    Returns:
        Method -> accuracies (sizes, sets, networks).
    """
    checks.whole("sets", sets, 1)
    checks.each("ipcs", ipcs, checks.whole, 1)
    found: dict[str, Tensor] = {}
    for name, make in makers.items():
        rows = [
            evaluate_set(
                [make(ipc, seed) for seed in range(sets)], test, factory, settings, seeds,
                workers=workers,
            ).accuracies
            for ipc in ipcs
        ]  # fmt: skip
        found[name] = torch.stack(rows)
    return found


class Cost(NamedTuple):
    """What a piece of work takes."""

    seconds: float
    peak_bytes: int  # the largest this process has been, its imports included


def cost_of(work: Callable[[], object]) -> Cost:
    """Run something once; for its own memory, in a process that has done nothing else."""
    began = time.perf_counter()
    work()
    return Cost(time.perf_counter() - began, peak_bytes())


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def seconds_to(target: float, seconds: Sequence[float], accuracies: Sequence[float]) -> float:
    """Seconds until an accuracy is reached for the first time, linear in between; inf if never.

    Args:
        target: accuracy.
        seconds: rising.
        accuracies: at these seconds, as a callback of `condense` measures them.

    Raises:
        ValueError: lists of different lengths, empty, or seconds that fall.
    """
    if len(seconds) != len(accuracies) or len(seconds) == 0:
        raise ValueError(
            "seconds and accuracies must be equally many, at least one; "
            f"got {len(seconds)} and {len(accuracies)}"
        )
    if any(b < a for a, b in pairwise(seconds)):
        raise ValueError(f"seconds must rise; got {list(seconds)}")
    for place, reached in enumerate(accuracies):
        if reached >= target:
            if place == 0:
                return float(seconds[0])
            before, now = accuracies[place - 1], reached
            share = (target - before) / (now - before)
            return float(seconds[place - 1] + share * (seconds[place] - seconds[place - 1]))
    return float("inf")
