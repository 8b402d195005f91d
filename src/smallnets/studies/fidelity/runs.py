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
from smallnets.studies.fidelity.plan import StudySettings
from smallnets.training import run_parallel

Experiment = Callable[[Dataset, StudySettings, int, Path | None], Any]

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
    name: str, dataset: Dataset, settings: StudySettings, seed: int, cache_dir: Path | None = None
) -> Any:
    """One seed of one of `EXPERIMENTS`: an `Outcome` of "ensembles", else measures by name.

    Raises:
        ValueError: there is no experiment of that name.
    """
    checks.one_of("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name](dataset, settings, seed, cache_dir)


def run_experiments(
    names: Sequence[str], dataset: Dataset, settings: StudySettings, cache_dir: Path | None = None
) -> dict[str, list[Any]]:
    """Several experiments, all their seeds side by side: name -> one result a seed.

    The "ensembles" have the settings' `seeds`, and two at least, for the control; the "search" has
    one; all others have `side_seeds`.
    """
    seeds = {"ensembles": max(2, settings.seeds), "search": 1}
    pairs = [(name, seed) for name in names for seed in range(seeds.get(name, settings.side_seeds))]
    common = {"dataset": dataset, "settings": settings, "cache_dir": cache_dir}
    results = run_parallel(
        experiment,
        [{"name": name, "seed": seed, **common} for name, seed in pairs],
        description="experiments",
    )
    found: dict[str, list[Any]] = {name: [] for name in names}
    for (name, _), result in zip(pairs, results, strict=True):
        found[name].append(result)
    return found
