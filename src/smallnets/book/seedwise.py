"""Measuring seed by seed: what one seed gave is written when it is done, and not measured again."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from smallnets import checks
from smallnets.book.freshness import read_record, write_record
from smallnets.book.machine import arithmetic
from smallnets.book.parameters import Parameters
from smallnets.storage import source_digest
from smallnets.training import run_parallel
from smallnets.training.naming import name_of

Measured = dict[str, Any]


def seed_by_seed(
    measure: Callable[..., Mapping[str, Any]],
    run: Parameters,
    *,
    seeds: int,
    first: int = 0,
    description: str = "seeds",
    **common: Any,
) -> Measured:
    """Call `measure(seed=..., **common)` for every seed, side by side, and join what it returns.

    Each seed's numbers are written to the folder `seeds` of the run's output as they come. Started
    again, a run reads them and measures the others; it ends with the same bits as one that was
    never stopped. What was measured by other code, with other arguments or in another arithmetic is
    left alone.

    Args:
        measure: returns name -> number, list of numbers, or such a mapping again; the same names
            for every seed.
        run: says where the output goes.
        seeds: how many.
        first: the first of them; a repetition of a run has others.
        description: of the progress bar.
        common: further arguments; `cache_dir` may change between two starts.

    Returns:
        The mapping of one seed with a list over seeds in the place of every number or list.

    Raises:
        ValueError: fewer than one seed, a seed below 0, an argument that has no name, or seeds with
            other names.
    """
    checks.whole("seeds", seeds, 1)
    checks.whole("first", first, 0)
    decides = {name: value for name, value in common.items() if name != "cache_dir"}
    key = name_of(
        measure=measure, common=decides, arithmetic=arithmetic(), library=source_digest(".")
    )
    folder = run.folder / "seeds" / key
    one = partial(_one_seed, measure=measure, common=common, folder=folder)
    jobs = [{"seed": seed} for seed in range(first, first + seeds)]
    return joined(run_parallel(one, jobs, description=description))


def _one_seed(
    seed: int, measure: Callable[..., Mapping[str, Any]], common: Mapping[str, Any], folder: Path
) -> Measured:
    file = folder / f"{seed}.json"
    if not file.exists():
        write_record({"seed": seed, "measured": measure(seed=seed, **common)}, file)
    return read_record(file, "measured")["measured"]


def joined(measured: Sequence[Mapping[str, Any]]) -> Measured:
    """One mapping a seed as one mapping with lists over seeds.

    Raises:
        ValueError: two seeds have other names.
    """
    for seed, other in enumerate(measured):
        if other.keys() != measured[0].keys():
            names = ", ".join(sorted(map(str, other.keys() ^ measured[0].keys())))
            raise ValueError(
                f"every seed must measure the same; seeds 0 and {seed} differ in {names}"
            )
    return {
        name: joined([one[name] for one in measured])
        if isinstance(value, Mapping)
        else [one[name] for one in measured]
        for name, value in measured[0].items()
    }
