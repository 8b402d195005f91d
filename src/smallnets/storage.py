"""The folder for what is made once and kept: where it is, how its files are named and written.

A file is named by the content that decides it (settings, data, the source code that made it), so a
changed setting or a changed library never meets an old file.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePath
from typing import Any
from uuid import uuid4

import numpy as np

Arrays = dict[str, np.ndarray]
DIGEST = "sha256 of the arrays"  # the name under which it stands among them

SOURCE = Path(__file__).parent
# When each file of the library was written that this process may have imported.
WRITTEN = {file: file.stat().st_mtime_ns for file in SOURCE.rglob("*.py")}


def cache_directory() -> Path:
    """Folder for generated data and finished trainings: $SMALLNETS_CACHE, or ~/.cache/smallnets.

    A relative one is seen from the current folder.

    Raises:
        ValueError: the variable is not set and there is no home folder.
    """
    given = os.environ.get("SMALLNETS_CACHE")
    if given:
        return user_path(given).absolute()
    try:
        return Path.home() / ".cache" / "smallnets"
    except RuntimeError:
        raise ValueError(
            "there is no home folder: set SMALLNETS_CACHE to a folder for generated data and "
            "finished trainings"
        ) from None


def user_path(path: str | Path) -> Path:
    """A path in which a leading ~ stands for a home folder.

    Raises:
        ValueError: nobody knows where that is.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"the home folder of {path} is not known: write it out") from None


def content_key(**content: Any) -> str:
    """Sixteen hexadecimal digits that change when any of `content` changes.

    Args:
        content: None, truth values, numbers, texts, bytes, paths, and lists, tuples and
            dictionaries of these. A list and a tuple of the same are the same.

    Raises:
        ValueError: it is something else.
    """
    text = json.dumps({key: _exact(key, value) for key, value in content.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _exact(name: str, thing: Any) -> Any:
    """What JSON tells apart as Python does: it would take 1 and "1" for the same key."""
    if type(thing) in (type(None), bool, int, float, str):
        return thing
    if type(thing) in (list, tuple):
        return [_exact(f"{name}[{place}]", value) for place, value in enumerate(thing)]
    if type(thing) is dict:
        pairs = [[_exact(name, k), _exact(f"{name}[{k!r}]", v)] for k, v in thing.items()]
        return {"pairs": sorted(pairs, key=json.dumps)}
    if type(thing) is bytes:
        return {"bytes": thing.hex()}
    if isinstance(thing, PurePath):
        return {"path": str(thing)}
    kind = type(thing).__qualname__
    raise ValueError(
        f"{name} must be a number, a text, a path, or a list or dictionary of these; got a {kind}"
    )


def source_digest(*parts: str) -> str:
    """SHA-256 over the library's Python files below `parts`, such as "data" or "cli.py".

    Where a file was written after the library was imported, nobody knows which of the two runs. The
    digest is then one that no other process has.
    """
    digest = hashlib.sha256()
    for part in parts:
        path = SOURCE / part
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            written = file.stat().st_mtime_ns
            digest.update(_named_digest(file, written))
            if written != (imported := WRITTEN.get(file)):
                digest.update(f"imported as of {imported}".encode())
    return digest.hexdigest()


@cache
def _named_digest(file: Path, written: int) -> bytes:
    """The name of a file in the library, and SHA-256 of it as it was written at a time, without
    regard to its line ends.
    """
    content = file.read_bytes().replace(b"\r\n", b"\n")
    return file.relative_to(SOURCE).as_posix().encode() + hashlib.sha256(content).digest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it if the block ends well, and is removed if
    not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def kept_arrays(file: Path | None, make: Callable[[], Arrays]) -> Arrays:
    """What `make()` returns: read from the file if there is one, else made and written to it.

    Args:
        file: a name ending in .npz that says what decides the result, see `content_key`; None keeps
            nothing.
        make: name -> array.

    A file that cannot be read, or holds anything else than what was written, is made again with a
    warning. Where nothing can be written, a warning says so and the arrays are returned.
    """
    if file is not None and file.exists():
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                arrays = dict(archive)
            if arrays.pop(DIGEST).tobytes() != _digest(arrays):
                raise ValueError("its digest differs")
            return arrays
        except Exception as error:  # a damaged archive ends in whatever its bytes happen to mean
            warnings.warn(
                f"{file} cannot be read ({one_line(error)}): making it again", stacklevel=3
            )
    made = make()
    if file is not None:
        try:
            with atomic_path(file) as temporary:
                digest = np.frombuffer(_digest(made), np.uint8)
                np.savez(temporary, **made, **{DIGEST: digest})  # type: ignore[arg-type]
        except OSError as error:
            warnings.warn(f"{file} cannot be kept ({one_line(error)})", stacklevel=3)
    return made


def _digest(arrays: Arrays) -> bytes:
    """SHA-256 over names, types, shapes and bytes: a zip file has no checksum of its names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()


def one_line(error: BaseException) -> str:
    """What an error says, in one line, or its kind if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
