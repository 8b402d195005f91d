"""How long a forward pass takes on this machine."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from smallnets.checks import above, at_least, whole
from smallnets.measure.evaluation import evaluating, example_input


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            yield
    finally:
        logger.setLevel(level)


# The timer looks for compilers, and would warn of a CUDA toolkit on a machine without a GPU; older
# versions print that.
with _quiet(logging.getLogger("torch.utils.cpp_extension")):
    from torch.utils.benchmark import Timer


@dataclass(frozen=True)
class Latency:
    """Seconds per forward pass, and how they were measured."""

    median: float
    low: float  # lower quartile
    high: float  # upper quartile
    runs: int  # forward passes timed
    threads: int
    warm_up: int  # forward passes before the first timed one
    batch: int


def latency(
    model: nn.Module,
    input_shape: tuple[int, ...],
    threads: int = 1,
    *,
    batch: int = 1,
    warm_up: int = 5,
    seconds: float = 0.5,
) -> Latency:
    """Time the model's forward pass in evaluation mode, on its own device and in its own dtype.

    Passes are timed in blocks long enough for the clock; the quartiles are those of the blocks'
    means. The number of threads is set for the measurement alone. On a GPU every block waits for
    the device.

    Args:
        model: takes a batch `(batch, *input_shape)` of floats.
        input_shape: one example's shape, such as (3, 32, 32).
        threads: CPU threads of torch's operations.
        batch: examples per forward pass.
        warm_up: untimed passes before the first timed one; torch adds some of its own.
        seconds: time to spend on timing; at least one block is timed.

    Raises:
        ValueError: if a size is below 1, or `seconds` is not above 0.
    """
    whole("threads", threads, 1)
    whole("warm_up", warm_up, 1)
    above("seconds", seconds, 0)
    example = example_input(model, input_shape, batch)
    timer = Timer(
        "model(example)", globals={"model": model, "example": example}, num_threads=threads
    )
    with evaluating(model), torch.inference_mode():
        timer.timeit(warm_up)
        result = timer.blocked_autorange(min_run_time=seconds)
    times = torch.tensor(result.times, dtype=torch.float64)
    low, median, high = times.quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    ).tolist()
    runs = result.number_per_run * len(result.times)
    return Latency(median, low, high, runs, threads, warm_up, batch)


class Timing(NamedTuple):
    """Milliseconds of one call: quartiles over the rounds."""

    low: float
    median: float
    high: float


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 15,
    block: float = 0.0,
    warm_up: int = 2,
    wait: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time several things in turns, round after round, so that a busy moment slows all alike. The
    order of a round is drawn, so that none always comes behind the same other one.

    Args:
        calls: name -> what is timed.
        rounds: blocks of each; the quartiles are those of the blocks' means.
        block: milliseconds that a block lasts at least; 0 is one call.
        warm_up: untimed calls of each; the first ones allocate.
        wait: called before and after every block, such as `torch.cuda.synchronize`.

    Raises:
        ValueError: a number is out of range, or there is nothing to time.
    """
    whole("rounds", rounds, 1)
    at_least("block", block, 0)
    whole("warm_up", warm_up, 1)
    whole("number of things to time", len(calls), 1)
    runs = {}
    for name, call in calls.items():
        _milliseconds(call, warm_up, wait)
        once = min(_milliseconds(call, 1, wait) for _ in range(3)) if block else 1.0
        runs[name] = max(1, round(block / max(once, 1e-4)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    draw = np.random.default_rng(0)
    for _ in range(rounds):
        for name in draw.permutation(list(calls)).tolist():  # else each finds the same cache
            times[name].append(_milliseconds(calls[name], runs[name], wait))
    return {
        name: Timing(*np.quantile(values, (0.25, 0.5, 0.75)).tolist())
        for name, values in times.items()
    }


def _milliseconds(call: Callable[[], object], runs: int, wait: Callable[[], object]) -> float:
    wait()
    began = time.perf_counter()
    for _ in range(runs):
        call()
    wait()
    return 1000 * (time.perf_counter() - began) / runs
