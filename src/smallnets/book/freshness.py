"""Whether stored outputs still come from the code beside them.

`smallnets run --store` puts into a record the hashes of the chapter's code, of the library files
that it imported and of the lock file; a test compares them with what is there. PyTorch is not
needed for that, so the process that runs chapters does without it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smallnets.storage import SOURCE, atomic_path


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write a record as readable JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n")


def shown(value: str) -> str:
    """A value as it is recorded: of a file only the name, wherever it lay."""
    kind, colon, file = value.rpartition(":")
    return f"{kind}{colon}{Path(file).name}" if colon else value


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
