"""The record of a run: what was asked for, what was measured, and what code did it.

A chapter writes its record in its last cell. `smallnets run --store` completes it with the hashes
of the chapter's code, of the library files that it imported and of the lock file, so that a test
can tell when stored outputs no longer come from the code beside them.
"""

import hashlib
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from IPython.display import HTML
from joblib import cpu_count

from smallnets.book.catalogue import chapter
from smallnets.book.claims import Claim, rows_table
from smallnets.book.machine import METER, arithmetic
from smallnets.book.parameters import Parameters
from smallnets.storage import SOURCE, atomic_path

STARTED = time.monotonic()
PACKAGES = ("torch", "numpy", "scipy", "lightning-fabric", "smallnets")


def save_record(
    number: str,
    parameters: Parameters,
    *,
    claims: Sequence[Claim],
    measurements: Mapping[str, Any],
    settings: Any,
    seeds: int,
    precision: str,
) -> dict[str, Any]:
    """Write the record of a chapter's run into its output folder and return it.

    Args:
        number: of the chapter.
        parameters: as validated.
        claims: judged unless the scale is "smoke".
        measurements: name -> number, or list with one number a seed; JSON-representable.
        settings: dataclass with what the scale stands for.
        seeds: how many repetitions were run.
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
        "seeds": list(range(seeds)),
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
        "claims": [claim.row(parameters.scale != "smoke") for claim in claims],
        "imports": imported_files(),
    }
    write_record(record, parameters.folder / f"{about.stem}.record.json")
    return record


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write a record as readable JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n")


def shown(value: str) -> str:
    """A value as it is recorded: of a file only the name, wherever it lay."""
    kind, colon, file = value.rpartition(":")
    return f"{kind}{colon}{Path(file).name}" if colon else value


def imported_files() -> list[str]:
    """The library's files that this process has imported, relative to the package, in order."""
    files = (
        getattr(module, "__file__", None)
        for name, module in sys.modules.items()
        if name.startswith("smallnets")
    )
    return sorted(Path(file).relative_to(SOURCE).as_posix() for file in files if file)


def hashes(notebook: Path, imports: Sequence[str]) -> dict[str, str]:
    """SHA-256 of a chapter's code cells, of the library files that it imports, and of the lock file
    beside it.
    """
    cells = json.loads(notebook.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    contents = {"code cells": "\0".join(code).encode()}
    contents |= {f"smallnets/{file}": _read(SOURCE / file) for file in imports}
    contents["requirements.lock"] = _read(notebook.parent.parent / "requirements.lock")
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b"missing"


def stale(record: Mapping[str, Any], notebook: Path) -> list[str]:
    """What has changed since a record was made: names of code, files, or the lock file."""
    now = hashes(notebook, record["imports"])
    return [name for name, digest in now.items() if record["hashes"].get(name) != digest]


def stored_results(number: str, start: Path | None = None) -> HTML:
    """Claims judged on real data by earlier, longer runs of a chapter, from the book's `results`
    folder.

    Args:
        number: of the chapter.
        start: folder from which to look upwards for `book/results`; the current one by default.

    Returns:
        A table with a row a claim and run, without rows where no stored results are at hand.
    """
    here = (start or Path.cwd()).resolve()
    folders = [folder / "book" / "results" for folder in (here, *here.parents)]
    files = next((sorted(folder.glob("*.json")) for folder in folders if folder.is_dir()), [])
    rows = []
    for file in files:
        record = json.loads(file.read_text())
        if record["chapter"] == chapter(number).number:
            rows += [{"run": file.stem, **claim} for claim in record["claims"]]
    return rows_table(rows, ("run", "claim", "measured", "verdict"))
