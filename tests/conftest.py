"""What every test may use: the golden values, and a hypothesis profile without a clock."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# As in the Makefile, for `pytest` alone: with more threads sums have other last digits.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The first call of a torch operation can take longer than hypothesis allows an example.
settings.register_profile("smallnets", deadline=None, derandomize=True)
settings.load_profile("smallnets")


class Scheduler(LoadScopeScheduling):
    """Goes on with the next test where one has killed its process.

    xdist's own scheduler would run that test again and again, and give work to successors of dead
    processes that have not collected their tests yet, which ends with an internal error.
    """

    def _reschedule(self, node: WorkerController) -> None:
        if node in self.registered_collections:
            super()._reschedule(node)

    def remove_node(self, node: WorkerController) -> str | None:
        units = self.assigned_work.pop(node)
        left = [(unit, test) for unit in units.values() for test, done in unit.items() if not done]
        killer = left[0][1] if left else None
        if left:
            left[0][0][killer] = True
        self.workqueue.update({s: unit for s, unit in units.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return killer


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduler:
    return Scheduler(config, log)


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
        type=lambda given: Path(given).resolve(),
        default=GOLDEN,
        help="folder with the golden values NN-slug.npz (default: tests/golden)",
    )
