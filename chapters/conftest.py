"""How nbval compares a chapter's stored outputs with new ones.

In the arithmetic that made the stored outputs, words must match
exactly and numbers to rounding; counts such as 1,234,567 are exact. A
cell that shows the clock has a tolerance of its own in its metadata,
{"nbval": {"rtol": 9}}; there outcomes and verdicts may differ, too.

In another arithmetic trainings drift apart. Words and counts must match
there, too. Measured numbers need only be there, as must verdicts:
numbers with a decimal point or a unit, and all those of cells with a
tolerance or with {"nbval": {"measured": true}}. The measurements
themselves are compared by `smallnets verify`.

A figure must be there. A trailing semicolon works.
"""

import json
import math
import os
import re
from functools import cache
from pathlib import Path

import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell

from smallnets.book.execution import ENVIRONMENT
from smallnets.book.machine import arithmetic

NUMBER = re.compile(
    r"\b\d{1,3}(?:,\d{3})+\b"
    r"|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|\bnan\b|\binf\b"
)
# What is measured: a decimal point, an exponent, or a unit that only
# measurements have.
MEASURED = re.compile(
    r"[-+]?\b\d+\.\d+(?:[eE][-+]?\d+)?\b|[-+]?\b\d+[eE][-+]?\d+\b"
    r"|[-+]?\b\d+(?= ?(?:%|±|points|ms|µs|MB|s\b))|\bnan\b|\binf\b"
)
DEPENDS = re.compile(
    r"\b(?:holds|fails|open|reproduced|partly|contradicted"
    r"|not at this scale|inconclusive|bf16-mixed|32-true)\b"
)
# In a table of claims, the reason for a verdict and the pictures, whose
# alternative texts repeat the numbers beside them.
DRAWN = re.compile(
    r'<tr class="reason">.*?</tr>|<img\b[^>]*>', re.DOTALL
)


class Tolerant(str):
    """Equals a text of the same words and of numbers that are close."""

    rtol, atol = 1e-4, 1e-6
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return False
        one, two = self, other
        if self.stated:
            one, two = (
                DEPENDS.sub("*", DRAWN.sub("", text))
                for text in (self, other)
            )
        if NUMBER.sub("#", one).split() != NUMBER.sub("#", two).split():
            return False
        return all(
            a == b or self.close(a, b)
            for a, b in zip(
                NUMBER.findall(one), NUMBER.findall(two), strict=True
            )
        )

    @property
    def stated(self) -> bool:
        """Whether the cell has a tolerance of its own."""
        return self.rtol != Tolerant.rtol

    def close(self, a: str, b: str) -> bool:
        rtol = self.rtol if self.stated or "," not in a + b else 0.0
        numbers = (float(one.replace(",", "")) for one in (a, b))
        return math.isclose(*numbers, rel_tol=rtol, abs_tol=self.atol)

    def __ne__(self, other: object) -> bool:
        return not self == other


class Elsewhere(Tolerant):
    """Equals a text of the same words and counts, and any measurements.

    Where all numbers are `measured`, they are masked, counts included.
    """

    measured = False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return False
        return self.masked(self) == self.masked(other)

    def masked(self, text: str) -> list[str]:
        text = DRAWN.sub("", text)
        number = NUMBER if self.measured else MEASURED
        return number.sub("#", DEPENDS.sub("*", text)).split()


@cache
def same_arithmetic(notebook: Path) -> bool:
    """Whether the notebook's outputs were made in our arithmetic."""
    record = json.loads(
        notebook.with_suffix(".record.json").read_text("utf-8")
    )
    return record.get("arithmetic") == arithmetic()


def comparable(text: str, here: bool, given: dict) -> str:
    """What stands for an output: equal where outputs say the same.

    `here` says whether the stored one was made in our arithmetic, and
    `given` is what the cell's metadata has for nbval.
    """
    if "<svg" in text[:1000]:
        return "a figure"
    tolerant = Tolerant(text) if here else Elsewhere(text)
    tolerant.rtol = given.get("rtol", Tolerant.rtol)
    tolerant.atol = given.get("atol", Tolerant.atol)
    tolerant.measured = bool(given)
    return tolerant


def unfolded(outputs: list[dict]) -> list[dict]:
    """Outputs without the plain text of what has HTML, too.

    A table as plain text folds where its numbers are wider.
    """
    found = []
    for output in outputs:
        data = output.get("data", {})
        if "text/html" in data:
            data = {k: v for k, v in data.items() if k != "text/plain"}
            output = type(output)({**output, "data": data})
        found.append(output)
    return found


def pytest_configure(config: pytest.Config) -> None:
    os.environ |= ENVIRONMENT
    plain_sanitize = IPyNbCell.sanitize
    plain_compare = IPyNbCell.compare_outputs

    def compare_outputs(
        self: IPyNbCell,
        test: list[dict],
        ref: list[dict],
        skip_compare: list[str] | None = None,
    ) -> bool:
        if not same_arithmetic(Path(self.parent.path)):
            test, ref = unfolded(test), unfolded(ref)
        return plain_compare(self, test, ref, skip_compare)

    def sanitize(self: IPyNbCell, text: object) -> object:
        text = plain_sanitize(self, text)
        if not isinstance(text, str):
            return text
        here = same_arithmetic(Path(self.parent.path))
        return comparable(
            text, here, self.cell.metadata.get("nbval", {})
        )

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
    IPyNbCell.compare_outputs = compare_outputs
    RunningKernel.execute_cell_input = execute_with_history
