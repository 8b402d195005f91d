"""The record of a run: what was asked for, what was measured, and what code did it.

A chapter writes it in its last cell; `smallnets run --store` completes it, see `freshness`.
"""

import platform
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from IPython.display import HTML
from joblib import cpu_count

from smallnets.book import STARTED
from smallnets.book.catalogue import chapter
from smallnets.book.claims import JUDGING, Claim, definitions, judge
from smallnets.book.freshness import read_record, shown, write_record
from smallnets.book.machine import METER, arithmetic
from smallnets.book.parameters import Parameters
from smallnets.book.proof import results_folder
from smallnets.book.verdicts import stored_table
from smallnets.storage import SOURCE

PACKAGES = ("torch", "numpy", "scipy", "lightning-fabric", "smallnets")


def save_record(
    number: str,
    parameters: Parameters,
    *,
    claims: Sequence[Claim],
    measurements: Mapping[str, Any],
    settings: Any,
    seeds: int | Sequence[int],
    precision: str,
) -> dict[str, Any]:
    """Write the record of a chapter's run into its output folder and return it.

    Args:
        number: of the chapter.
        parameters: as validated.
        claims: judged at the scales "evidence" and "paper".
        measurements: name -> number, or list with one number a seed; JSON-representable.
        settings: dataclass with what the scale stands for.
        seeds: which were run, or how many from 0.
        precision: the arithmetic that was used.
    """
    about = chapter(number)
    record = {
        "chapter": about.number,
        "slug": about.slug,
        "title": about.title,
        "scale": parameters.scale,
        "dataset": shown(parameters.dataset),
        "parameters": {
            k: v for k, v in asdict(parameters).items() if k not in ("dataset", "output_dir")
        },
        "seeds": list(range(seeds) if isinstance(seeds, int) else seeds),
        "seconds": round(time.monotonic() - STARTED, 1),
        "peak_memory_mb": METER.look(),
        "cores": cpu_count(),
        "precision": precision,
        "arithmetic": arithmetic(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "settings": asdict(settings),
        "measurements": dict(measurements),
        "claims": [],
        "imports": imported_files(),
    }
    path = parameters.folder / f"{about.stem}.record.json"
    write_record(record, path)  # what was measured is kept, whatever judging it ends in
    record["claims"] = judge(claims, parameters.scale in JUDGING)
    record["definitions"] = definitions(claims)
    write_record(record, path)
    return record


def imported_files() -> list[str]:
    """The library's files that this process has imported, relative to the package, in order."""
    files = (
        getattr(module, "__file__", None)
        for name, module in sys.modules.items()
        if name.startswith("smallnets")
    )
    return sorted(Path(file).relative_to(SOURCE).as_posix() for file in files if file)


def stored_results(number: str, start: Path | None = None) -> HTML:
    """Claims of a chapter as stored runs have them, from the book's `results` folder. Those that
    were judged under an earlier rule say so.

    Args:
        number: of the chapter.
        start: folder from which to look upwards for `book/results`; the current one by default.

    Returns:
        A table with a row a claim and run, without rows where no stored results are at hand.
    """
    folder = results_folder(start)
    rows = []
    for file in sorted(folder.glob("*.json")) if folder else []:
        try:
            record = read_record(file, "chapter", "claims")
        except ValueError as error:
            warnings.warn(f"{error}; it is left out", stacklevel=2)
            continue
        if record["chapter"] == chapter(number).number:
            rows += [{"run": file.stem, **claim} for claim in record["claims"]]
    return HTML(stored_table(rows))
