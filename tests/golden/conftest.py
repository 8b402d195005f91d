"""Tests that are driven by files of golden values: numbers computed by the papers' own code.

`test_NN_slug.py` reads `NN-slug.npz` of `--golden-dir`; where a file has several modules, they
begin alike, and each names the FAMILIES of arrays that it reads. Cases come from the names of its
arrays and sizes from the arrays, so that another file of the same families is tested by the same
lines.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent


def golden_file(config: pytest.Config, module: Path) -> Path:
    """The file of golden values that belongs to a module of tests."""
    slug = module.stem.removeprefix("test_").replace("_", "-")
    own = [one.stem for one in HERE.glob("*.npz") if f"{slug}-".startswith(f"{one.stem}-")]
    return config.getoption("--golden-dir") / f"{max(own, default=slug, key=len)}.npz"


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; none where a folder from elsewhere lacks the file."""
    if file.parent != HERE and not file.exists():
        return {}
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for every set of named groups with which a `cases` pattern matches array names."""
    for mark in metafunc.definition.iter_markers("cases"):
        (pattern,) = mark.args
        names = list(re.compile(pattern).groupindex)
        arrays = arrays_of(golden_file(metafunc.config, metafunc.definition.path))
        matches = [re.fullmatch(pattern, key) for key in arrays]
        found = dict.fromkeys(match.groups() for match in matches if match)
        metafunc.parametrize(names, list(found), ids=["-".join(map(str, case)) for case in found])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Facts of the committed samples are no laws: other files are not held to them."""
    if config.getoption("--golden-dir") != HERE:
        items[:] = [item for item in items if item.get_closest_marker("sample") is None]


def pytest_deselected(items: list[pytest.Item]) -> None:
    """A module of which only a part is run need not read the whole file."""
    for item in items:
        item.config.stash.setdefault(PARTIAL, set()).add(item.path)


PARTIAL = pytest.StashKey[set[Path]]()


class Golden(Mapping[str, np.ndarray]):
    """The arrays of a file by name, which remembers what was read and skips what is absent."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self.arrays:
            pytest.skip(f"the golden file has no {key}")
        self.read.add(key)
        return self.arrays[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __contains__(self, key: object) -> bool:
        return key in self.arrays

    def tensor(self, key: str) -> torch.Tensor:
        """A copy of an array as a tensor."""
        return torch.tensor(self[key])

    def leaf(self, key: str) -> torch.Tensor:
        """A copy of an array as a tensor that takes a gradient."""
        return torch.tensor(self[key], requires_grad=True)

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """All arrays whose names begin with `prefix`, as tensors under the rest of their names."""
        return {key[len(prefix) :]: self.tensor(key) for key in self if key.startswith(prefix)}


@pytest.fixture(scope="module")
def values(request: pytest.FixtureRequest) -> Iterator[Golden]:
    """The golden values of this module's file, all of which its tests have to read.

    A module may name, in FAMILIES, beginnings of the only names that it has to read.
    """
    golden = Golden(arrays_of(golden_file(request.config, request.path)))
    yield golden
    whole = not any("::" in argument for argument in request.config.args)
    if whole and request.path not in request.config.stash.get(PARTIAL, set()):
        families = getattr(request.module, "FAMILIES", "")
        mine = {key for key in golden if key.startswith(families)}
        assert sorted(mine - golden.read) == [], "golden values that no test reads"


@pytest.fixture(scope="session")
def agrees() -> Callable[..., None]:
    """agrees(function, expected, rtol, atol): function() gives the expected numbers.

    Where any of them is not a number, there is none to give: the function must raise a ValueError
    of one line. Whole numbers agree exactly.
    """

    def check(
        function: Callable[[], Any], expected: np.ndarray, rtol: float = 1e-9, atol: float = 1e-12
    ) -> None:
        if np.issubdtype(expected.dtype, np.floating) and np.isnan(expected).any():
            with pytest.raises(ValueError, match=r"^[^\n]+$"):
                function()
            return
        if not np.issubdtype(expected.dtype, np.floating):
            rtol = atol = 0
        given = function()  # a tensor, or plain numbers, which torch would make single precision
        given = given.detach().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)
        assert given.size == expected.size, f"{given.shape} against {expected.shape}"
        np.testing.assert_allclose(given.reshape(expected.shape), expected, rtol=rtol, atol=atol)

    return check
