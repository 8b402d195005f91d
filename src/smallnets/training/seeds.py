"""Seeds: a model's random start, and many seeds side by side in processes of one thread each.

On two cores two one-thread processes train more images than one two-thread process, and a run of
one thread gives the same bits however many run beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from joblib import Parallel, cpu_count, delayed, parallel_config
from tqdm import tqdm

from smallnets import checks
from smallnets.training.memory import give_back, workers_that_fit

IDLE = 20  # seconds after which workers without a job end and give their memory back

Result = TypeVar("Result")
Settings = TypeVar("Settings")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw a model's initial weights from `seed`, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_one_thread(function: Callable[..., Result], job: dict[str, Any]) -> Result:
    with threads(1):
        result = function(**job)
    give_back()
    return result


def side_by_side(
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
        workers: processes; by default one a core, as far as memory allows, or one in all where a
            GPU does the work.
        description: what the progress bar is called.
    """
    give_back()
    if workers is None:
        workers = 1 if torch.cuda.is_available() else workers_that_fit(cpu_count())
    with parallel_config(backend="loky", inner_max_num_threads=1, idle_worker_timeout=IDLE):
        results = Parallel(n_jobs=min(workers, max(len(jobs), 1)), return_as="generator")(
            delayed(_in_one_thread)(function, job) for job in jobs
        )
        return list(tqdm(results, total=len(jobs), desc=description, leave=False, delay=2))


def for_seeds(count: int, **common: Any) -> list[dict[str, Any]]:
    """Jobs for `side_by_side`: the `common` arguments, once for each of `count` seeds."""
    return [{**common, "seed": seed} for seed in range(count)]


def with_seeds(settings: Settings, seeds: int | None) -> Settings:
    """Settings (a dataclass) with `seeds` repetitions, and no more in their other fields named
    "..._seeds". None changes nothing.

    Raises:
        ValueError: fewer than one.
    """
    if seeds is None:
        return settings
    checks.whole("seeds", seeds, 1)
    others = [field.name for field in fields(settings) if field.name.endswith("_seeds")]  # type: ignore[arg-type]
    fewer = {name: min(seeds, getattr(settings, name)) for name in others}
    return replace(settings, seeds=seeds, **fewer)  # type: ignore[type-var]
