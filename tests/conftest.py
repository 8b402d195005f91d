"""What every test may use: the golden values, and a hypothesis profile without a clock."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# The first call of a torch operation can take longer than hypothesis allows an example.
settings.register_profile("smallnets", deadline=None, derandomize=True)
settings.load_profile("smallnets")


GOLDEN = Path(__file__).parent / "golden"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A skipped test is a failed one: what is here can run wherever the README's commands run.

    Only files of golden values from elsewhere may lack optional arrays.
    """
    outcome = yield
    report = outcome.get_result()
    elsewhere = item.config.getoption("--golden-dir") != GOLDEN
    if report.skipped and not (elsewhere and item.path.is_relative_to(GOLDEN)):
        report.outcome = "failed"
        report.longrepr = f"skipped: {report.longrepr}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=GOLDEN,
        help="folder with the golden values NN-slug.npz (default: tests/golden)",
    )


@pytest.fixture(scope="session")
def golden(pytestconfig: pytest.Config) -> Callable[[str], dict[str, np.ndarray]]:
    """golden("02-similarity-preserving") -> the arrays of that file by name."""
    folder = pytestconfig.getoption("--golden-dir")

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    return load
