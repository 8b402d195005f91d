"""All experiments of the study by name, so that they can run side by side."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smallnets import checks
from smallnets.data import Dataset
from smallnets.studies.fidelity.experiments import (
    capacities,
    data_policies,
    ensembles,
    growing,
    optimisers,
    recycled,
    representations,
    search,
    targets,
)
from smallnets.studies.fidelity.near import near_teacher
from smallnets.studies.fidelity.plan import Settings
from smallnets.studies.study import every, run_grid

Experiment = Callable[[Dataset, Settings, int, Path | None], Any]

# The main comparison, which trains what others use too; then the longest first, so that no worker
# is left alone with it at the end.
EXPERIMENTS: dict[str, Experiment] = {
    "ensembles": ensembles,
    "policies": data_policies,
    "near": near_teacher,
    "targets": targets,
    "optimisers": optimisers,
    "growing": growing,
    "recycled": recycled,
    "capacity": capacities,
    "search": search,
    "representations": representations,
}


def experiment(
    name: str, dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Any:
    """One seed of one of `EXPERIMENTS`: an `Outcome` of "ensembles", else measures by name.

    Raises:
        ValueError: there is no experiment of that name.
    """
    checks.one_of("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name](dataset, settings, seed, cache_dir)


def run_experiments(
    names: Sequence[str], dataset: Dataset, settings: Settings, cache_dir: Path | None = None
) -> dict[str, list[Any]]:
    """Several experiments, all their seeds side by side: name -> one result a seed.

    The "ensembles" have the settings' `seeds`, and two at least, for the control; the "search" has
    one; all others have `side_seeds`.
    """
    seeds = dict.fromkeys(names, settings.side_seeds)
    seeds |= {"ensembles": max(2, settings.seeds), "search": 1}
    return run_grid(
        experiment,
        every({name: {"name": name} for name in names}, seeds),
        description="experiments",
        dataset=dataset,
        settings=settings,
        cache_dir=cache_dir,
    )
