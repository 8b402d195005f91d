"""Timing rivals side by side: in turns, so that a busy machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def race(rivals: Mapping[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """Median seconds of every rival over `rounds` rounds of one run each, after a warm-up."""
    for run in rivals.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, run in rivals.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def meet(folder: Path, number: int, count: int) -> None:
    """Wait until each of `count` processes, numbered from 0, has come to the same empty folder."""
    (folder / str(number)).touch()
    while len(list(folder.iterdir())) < count:
        time.sleep(0.001)


def report(title: str, seconds: Mapping[str, float], ours: str) -> None:
    """Print every rival's time and how many times faster ours is."""
    print(title)
    for name, value in seconds.items():
        ratio = "" if name == ours else f"   ours is {value / seconds[ours]:.2f} x as fast"
        print(f"  {name:34} {1000 * value:9.2f} ms{ratio}")


def race_at_threads(
    title: str, rivals: Mapping[str, Callable[[], float]], ours: str, asked: float
) -> None:
    """Race at one and at two threads, with the ratio that is asked for and every rival's memory.

    Each run gives its loss. That the first losses agree is checked before.
    """
    torch.set_num_threads(1)
    losses = {name: run() for name, run in rivals.items()}
    wanted = losses[ours]
    if any(abs(loss - wanted) > 1e-3 * abs(wanted) for loss in losses.values()):
        raise ValueError(f"rivals must compute one loss; got {losses}")
    memory = {name: peak(run) for name, run in rivals.items()}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        report(f"{title}, {threads} thread(s)", race(rivals, rounds=7), ours)
    torch.set_num_threads(1)
    print(f"  at least {asked} x is asked for")
    print("  peak memory: " + ", ".join(f"{name} {size:.0f} MB" for name, size in memory.items()))


def peak(run: Callable[[], object]) -> float:
    """MB of tensors that a run holds at most beyond what there was before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = (e for e in record.profiler.kineto_results.events() if e.name() == "[memory]")
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most / 1e6
