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

from smallnets.checks import plain
from smallnets.storage import SOURCE, atomic_path, one_line


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write a record as readable JSON, atomically: the same bytes in every locale and system."""
    text = json.dumps(record, indent=1, ensure_ascii=False, default=_plain) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())


def plainly(value: Any) -> Any:
    """A value as a record holds it: lists for tuples and arrays, texts for names in mappings."""
    return json.loads(json.dumps(value, default=_plain))


def result_name(number: str, dataset: str) -> str:
    """Name of the record of a chapter's evidence, such as "03-cifar10-evidence".

    Args:
        number: of the chapter, such as "03".
        dataset: a data set's name, or "npz:FILE" in any folder.
    """
    return f"{number}-{Path(dataset.rpartition(':')[2]).stem}-evidence"


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's; anything else as text."""
    found = plain(value)
    return str(value) if found is value else found


def read_record(path: Path, *needed: str) -> dict[str, Any]:
    """What `write_record` wrote, or a notebook, which is JSON as well.

    Args:
        path: of the file.
        needed: names that must be in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or a name is not in it.
    """
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {one_line(error)}") from error
    missing = [name for name in needed if not isinstance(record, dict) or name not in record]
    if missing:
        raise ValueError(f"{path} must hold {', '.join(needed)}; it lacks {', '.join(missing)}")
    return record


def shown(value: str) -> str:
    """A value as it is recorded: of a file only the name, wherever it lay."""
    kind, colon, file = value.rpartition(":")
    return f"{kind}{colon}{Path(file).name}" if colon else value


def hashes(notebook: Path, imports: Sequence[str]) -> dict[str, str]:
    """SHA-256 of a chapter's code cells, of the library files that it imports, and of the lock file
    beside it.
    """
    cells = read_record(notebook, "cells")["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    contents = {"code cells": "\0".join(code).encode()}
    contents |= {f"smallnets/{file}": _read(SOURCE / file) for file in imports}
    contents["requirements.lock"] = _read(notebook.parent.parent / "requirements.lock")
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _read(path: Path) -> bytes:
    # A checkout on Windows may end its lines otherwise.
    return path.read_bytes().replace(b"\r\n", b"\n") if path.exists() else b"missing"


def stale(record: Mapping[str, Any], notebook: Path) -> list[str]:
    """What has changed since a record was made: names of code, files, or the lock file."""
    now = hashes(notebook, record["imports"])
    return [name for name, digest in now.items() if record["hashes"].get(name) != digest]
