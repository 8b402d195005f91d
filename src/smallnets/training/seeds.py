"""Seeds: a model's random start, and many seeds side by side in processes of one thread each.

On two cores two one-thread processes train more images than one two-thread process, and a run of
one thread gives the same bits however many run beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import parent_process
from typing import Any, TypeVar

import torch
from joblib import cpu_count
from tqdm import tqdm

from smallnets import checks
from smallnets.training.memory import give_back, workers_that_fit
from smallnets.training.workers import in_one_thread, in_workers

Result = TypeVar("Result")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw a model's initial weights from `seed`, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def run_parallel(
    function: Callable[..., Result],
    jobs: Sequence[dict[str, Any]],
    *,
    workers: int | None = None,
    description: str = "",
) -> list[Result]:
    """Call `function(**job)` for every job, each in one thread, and return the results in the jobs'
    order.

    Args:
        function: anything that cloudpickle can send to a worker process.
        jobs: keyword arguments, one dictionary a call.
        workers: processes; by default one a core, as far as memory allows, but one in all where a
            GPU does the work or where this process is a worker itself. One is this process.
        description: what the progress bar is called.

    Raises:
        ValueError: fewer than one worker.
        RuntimeError: a worker was ended from outside.
    """
    give_back()
    if workers is None:
        alone = torch.cuda.is_available() or parent_process() is not None
        workers = 1 if alone else workers_that_fit(cpu_count())
    workers = min(checks.whole("workers", workers, 1), len(jobs))
    results: Iterator[tuple[int, Result]]
    if workers <= 1:
        results = ((number, in_one_thread(function, job)) for number, job in enumerate(jobs))
    else:
        results = in_workers(function, jobs, workers)
    found = dict(tqdm(results, total=len(jobs), desc=description, leave=False, delay=2))
    return [found[number] for number in range(len(jobs))]


def for_seeds(count: int, **common: Any) -> list[dict[str, Any]]:
    """Jobs for `run_parallel`: the `common` arguments, once for each of `count` seeds."""
    return [{**common, "seed": seed} for seed in range(count)]
