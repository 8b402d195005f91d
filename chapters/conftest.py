"""How nbval compares a chapter's stored outputs with new ones.

Words must match exactly. Numbers may differ by the tolerance in the
cell's metadata, such as {"nbval": {"rtol": 0.01}}, or else by rounding;
counts such as 1,234,567 are exact unless the cell has a tolerance.
A figure must be there. A trailing semicolon works.
"""

import math
import os
import re

import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell

from smallnets.book.execution import ENVIRONMENT

NUMBER = re.compile(
    r"\b\d{1,3}(?:,\d{3})+\b"
    r"|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|\bnan\b|\binf\b"
)


class Tolerant(str):
    """Equals a text of the same words and of numbers that are close."""

    rtol, atol = 1e-4, 1e-6
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return False
        if (
            NUMBER.sub("#", self).split()
            != NUMBER.sub("#", other).split()
        ):
            return False
        return all(
            a == b or self.close(a, b)
            for a, b in zip(
                NUMBER.findall(self), NUMBER.findall(other), strict=True
            )
        )

    def close(self, a: str, b: str) -> bool:
        stated = self.rtol != Tolerant.rtol
        rtol = self.rtol if stated or "," not in a + b else 0.0
        numbers = (float(one.replace(",", "")) for one in (a, b))
        return math.isclose(*numbers, rel_tol=rtol, abs_tol=self.atol)

    def __ne__(self, other: object) -> bool:
        return not self == other


def pytest_configure(config: pytest.Config) -> None:
    os.environ |= ENVIRONMENT
    plain_sanitize = IPyNbCell.sanitize

    def sanitize(self: IPyNbCell, text: object) -> object:
        text = plain_sanitize(self, text)
        if not isinstance(text, str):
            return text
        if "<svg" in text[:1000]:
            return "a figure"
        tolerant, given = (
            Tolerant(text),
            self.cell.metadata.get("nbval", {}),
        )
        tolerant.rtol = given.get("rtol", Tolerant.rtol)
        tolerant.atol = given.get("atol", Tolerant.atol)
        return tolerant

    def execute_with_history(
        self: RunningKernel, code: str, allow_stdin: bool | None = None
    ) -> str:
        """IPython looks for a silencing semicolon in its history."""
        return self.kc.execute(
            code,
            store_history=True,
            allow_stdin=allow_stdin,
            stop_on_error=False,
        )

    IPyNbCell.sanitize = sanitize
    RunningKernel.execute_cell_input = execute_with_history
