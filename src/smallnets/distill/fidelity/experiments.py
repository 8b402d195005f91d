"""All experiments of the study by name, so that they can run side by side."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smallnets import checks
from smallnets.data import Dataset
from smallnets.distill.fidelity.near import near_teacher
from smallnets.distill.fidelity.settings import StudySettings
from smallnets.distill.fidelity.study import (
    capacities,
    data_policies,
    ensembles,
    growing,
    optimisers,
    recycled,
    representations,
    targets,
)
from smallnets.training import side_by_side

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
    "representations": representations,
}


def experiment(
    name: str, dataset: Dataset, settings: StudySettings, seed: int, keep: Path | None = None
) -> Any:
    """One seed of one of `EXPERIMENTS`: an `Outcome` of "ensembles", else measures by name.

    Raises:
        ValueError: there is no experiment of that name.
    """
    checks.one_of("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name](dataset, settings, seed, keep)


def run_experiments(
    names: Sequence[str], dataset: Dataset, settings: StudySettings, keep: Path | None = None
) -> dict[str, list[Any]]:
    """Several experiments, all their seeds side by side: name -> one result a seed.

    The "ensembles" have the settings' `seeds`, and two at least, for the control; all others have
    `side_seeds`.
    """
    seeds = {"ensembles": max(2, settings.seeds)}
    pairs = [(name, seed) for name in names for seed in range(seeds.get(name, settings.side_seeds))]
    common = {"dataset": dataset, "settings": settings, "keep": keep}
    results = side_by_side(
        experiment,
        [{"name": name, "seed": seed, **common} for name, seed in pairs],
        description="experiments",
    )
    found: dict[str, list[Any]] = {name: [] for name in names}
    for (name, _), result in zip(pairs, results, strict=True):
        found[name].append(result)
    return found
