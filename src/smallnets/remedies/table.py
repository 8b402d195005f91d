"""What became of the remedies: a table, the Pareto front, and the best within a budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallnets.checks import one_of
from smallnets.measure import Latency
from smallnets.measure.pareto import pareto
from smallnets.remedies.plan import COSTS, Budget

if TYPE_CHECKING:
    import pandas

UNITS = {"bytes": "bytes", "macs": "MACs", "milliseconds": "milliseconds"}


@dataclass(frozen=True)
class Row:
    """One remedy as its file was measured.

    Attributes:
        name, family, trained: of the remedy.
        accuracy: share of right answers; None without labels.
        agreement: share of answers that are the original's.
        parameters: numbers of weights and biases that the file computes with.
        macs: multiply-adds of one example.
        bit_operations: multiply-adds times bits of weights and inputs in which it computes.
        bytes: of the file.
        latency: batch -> seconds a pass.
        path: of the file.
        difference: between its answers and those of the network that it was made of, over the
            largest output; at most `tolerance`.
    """

    name: str
    family: str
    trained: bool
    accuracy: float | None
    agreement: float
    parameters: int
    macs: int
    bit_operations: int
    bytes: int
    latency: Mapping[int, Latency]
    path: Path
    difference: float
    tolerance: float

    @property
    def quality(self) -> float:
        """Accuracy, or agreement where there are no labels."""
        return self.agreement if self.accuracy is None else self.accuracy

    @property
    def milliseconds(self) -> float:
        """Of a pass with one example, the median.

        Raises:
            ValueError: it was not timed.
        """
        if 1 not in self.latency:
            raise ValueError("batch 1 must be timed for milliseconds; it was not")
        return 1000 * self.latency[1].median

    @property
    def values(self) -> dict[str, Any]:
        """All of it by name, times as median and half the distance of the quartiles."""
        times: dict[str, Any] = {}
        for batch, one in self.latency.items():
            times[f"ms, batch {batch}"] = 1000 * one.median
            times[f"± batch {batch}"] = 500 * (one.high - one.low)
        return {
            "accuracy": self.accuracy,
            "agreement": self.agreement,
            "parameters": self.parameters,
            "MACs": self.macs,
            "bit operations": self.bit_operations,
            "bytes": self.bytes,
            **times,
            "difference": self.difference,
            "family": self.family,
            "trained": self.trained,
            "file": self.path.name,
        }


@dataclass(frozen=True)
class Tried:
    """What `try_remedies` found.

    Attributes:
        rows: remedies that worked, the original first.
        refused: name of a remedy -> why this network does not allow it.
        budget: what was asked for.
        examples: how many judged.
        folder: with the files and `table.csv`.
    """

    rows: tuple[Row, ...]
    refused: Mapping[str, str]
    budget: Budget | None
    examples: int
    folder: Path

    @property
    def quality(self) -> str:
        """By what files are judged: "accuracy", or "agreement" where there are no labels."""
        return "agreement" if self.rows[0].accuracy is None else "accuracy"

    def __getitem__(self, name: str) -> Row:
        """The row of a remedy.

        Raises:
            ValueError: there is none.
        """
        rows = {row.name: row for row in self.rows}
        if name in self.refused:
            raise ValueError(f"{name} was refused: {self.refused[name]}")
        return rows[one_of("remedy", name, rows)]

    def front(self, *costs: str) -> list[Row]:
        """The rows that no other beats in quality and all costs, the cheapest first.

        Args:
            costs: some of "bytes", "macs" and "milliseconds"; none is what the budget limits, or
                else bytes and, where it was measured, milliseconds.

        Raises:
            ValueError: another cost, or one that was not measured.
        """
        if not costs:
            timed = 1 in self.rows[0].latency
            usual = ("bytes", "milliseconds" if timed else "macs")
            costs = usual if self.budget is None else tuple(self.budget.limits)
        for cost in costs:
            one_of("cost", cost, COSTS)
        points = {
            row.name: {"quality": row.quality, **{cost: getattr(row, cost) for cost in costs}}
            for row in self.rows
        }
        return [self[name] for name in pareto(points, least=costs, most=("quality",))]

    def excess(self, row: Row) -> dict[str, float]:
        """How many times a limit of the budget a row costs: at most 1 is within it."""
        limits = {} if self.budget is None else self.budget.limits
        return {name: getattr(row, name) / limit for name, limit in limits.items()}

    @property
    def within(self) -> list[Row]:
        """The rows within the budget, the best first; of equals the smallest file."""
        found = [row for row in self.rows if all(one <= 1 for one in self.excess(row).values())]
        return sorted(found, key=lambda row: (-row.quality, row.bytes))

    @property
    def best(self) -> Row | None:
        """The best row within the budget, if there is one."""
        return next(iter(self.within), None)

    @property
    def nearest(self) -> Row:
        """The row that is the least above the budget, by its worst cost; or within it."""
        return min(self.rows, key=lambda row: max(self.excess(row).values(), default=0.0))

    @property
    def verdict(self) -> str:
        """The answer, in one line."""
        best, limits = self.best, {} if self.budget is None else self.budget.limits
        asked = " and ".join(f"{limit:,g} {UNITS[name]}" for name, limit in limits.items())
        if best is None:
            row = self.nearest
            cost, times = max(self.excess(row).items(), key=lambda one: one[1])
            return (
                f"nothing meets the budget of {asked}: the nearest is {row.name}, with "
                f"{times:.3g} times the {UNITS[cost]} and {_described(row, self.quality)}"
            )
        original = self.rows[0]
        compared = f"{_described(best, self.quality)}; the original: "
        compared += _described(original, self.quality)
        if not limits:
            return f"without a budget, the best is {best.name}: {compared}"
        count = len(self.within)
        return f"of {count} within {asked} the best is {best.name}: {compared}"

    def table(self) -> "pandas.DataFrame":
        """All remedies, those that were refused at the end with the reason in "why not"."""
        import pandas

        front = {row.name for row in self.front()}
        lines = {row.name: row.values | {"front": row.name in front} for row in self.rows}
        table = pandas.DataFrame.from_dict(lines, orient="index")
        if self.refused:
            reasons = pandas.DataFrame({"why not": dict(self.refused)})
            table = table.join(reasons, how="outer").loc[[*lines, *self.refused]]
        table.index.name = "remedy"
        return table

    def __str__(self) -> str:
        """The main columns, and the verdict."""
        batches = list(self.rows[0].latency)
        head = f"{'remedy':34}{self.quality:>10}{'bytes':>13}{'MACs':>15}"
        head += "".join(f"{f'ms, batch {batch}':>20}" for batch in batches)
        lines = [head]
        front = {row.name for row in self.front()}
        for row in self.rows:
            name = f"{'* ' if row.name in front else '  '}{row.name}"
            line = f"{name:34}{row.quality:>10.1%}{row.bytes:>13,}{row.macs:>15,}"
            for batch in batches:
                time = row.latency[batch]
                spread = f"{1000 * time.median:.2f} ±{500 * (time.high - time.low):5.2f}"
                line += f"{spread:>20}"
            lines.append(line)
        lines += [f"  {name}: {why}" for name, why in self.refused.items()]
        return "\n".join([*lines, "* on the Pareto front", self.verdict])


def _described(row: Row, quality: str) -> str:
    parts = [f"{quality} {row.quality:.1%}", f"{row.bytes:,} bytes", f"{row.macs:,} MACs"]
    if 1 in row.latency:
        parts.append(f"{row.milliseconds:.3g} ms")
    return ", ".join(parts)
