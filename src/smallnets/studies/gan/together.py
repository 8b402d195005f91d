"""Trainings side by side."""

from collections.abc import Callable, Sequence

from smallnets.training import run_parallel

Job = Callable[[], object]


def side_by_side(jobs: Sequence[Job], description: str) -> None:
    """Train and keep networks, as many at a time as there are cores. What is trained is kept on
    disk, and need not be sent to the process that waits for it.
    """
    calls = [{"train": job} for job in jobs]
    run_parallel(_train_only, calls, description=description)


def _train_only(train: Job) -> None:
    train()
