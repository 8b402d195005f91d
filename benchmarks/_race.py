"""Timing rivals side by side: in turns, so that a busy machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path


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
