"""The candidates of every layer as one module, so that one training reaches all of them."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from torch import Tensor, nn

from smallnets.measure import macs, parameters
from smallnets.search.lana.layers import ReplaceableLayers
from smallnets.search.lana.operations import TEACHER, available, operation

Table = list[np.ndarray]  # one row a layer, one float64 a candidate; rows may differ in length


class Pool(nn.Module):
    """Named candidates for every layer; the teacher's own layer comes first and is not among the
    modules, which are those to be trained.

    Args:
        rows: for every layer, name -> candidate.

    Raises:
        ValueError: a candidate is called "teacher".
    """

    def __init__(self, rows: Sequence[dict[str, nn.Module]]) -> None:
        super().__init__()
        if any(TEACHER in row for row in rows):
            raise ValueError(
                f"{TEACHER!r} is the layer that is there; name the candidate otherwise"
            )
        self.names = [(TEACHER, *row) for row in rows]
        self.rows = nn.ModuleList(nn.ModuleList(row.values()) for row in rows)

    def forward(self, inputs: Sequence[Tensor]) -> list[list[Tensor]]:
        """Outputs of all candidates on their layer's input. Inputs of layers behind the last one
        that has candidates may be left out.
        """
        if any(len(row) for row in self.rows[len(inputs) :]):
            raise ValueError(f"inputs must be one a layer with candidates; got {len(inputs)}")
        rows = self.rows[: len(inputs)]
        return [[candidate(x) for candidate in row] for row, x in zip(rows, inputs, strict=True)]

    def module(self, layered: ReplaceableLayers, layer: int, choice: int) -> nn.Module:
        """The module behind a choice: 0 is the teacher's layer."""
        return self.rows[layer][choice - 1] if choice else layered.layers[layer]

    def stitched(self, layered: ReplaceableLayers, choices: Sequence[int]) -> nn.Module:
        """A student: the network with the chosen candidate in every layer, all deep copies.

        Args:
            layered: the teacher.
            choices: one a layer, 0 for the teacher's own.

        Raises:
            ValueError: a choice is not in the pool, or their number is not that of the layers.
        """
        check_choices(self.names, choices)
        return layered.stitched(
            [self.module(layered, layer, choice) for layer, choice in enumerate(choices)]
        )

    def part(self, pairs: Iterable[tuple[int, int]]) -> "Pool":
        """A pool of some (layer, choice) only, which shares their modules."""
        chosen = set(pairs)
        return Pool(
            [
                {
                    name: self.rows[layer][j - 1]
                    for j, name in enumerate(names)
                    if j and (layer, j) in chosen
                }
                for layer, names in enumerate(self.names)
            ]
        )

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(layer, choice) of every candidate that is not the teacher's."""
        return [(i, j) for i, names in enumerate(self.names) for j in range(1, len(names))]

    @property
    def space(self) -> float:
        """log10 of the number of networks that can be put together."""
        return log10_space([len(names) for names in self.names])


def check_choices(names: Sequence[Sequence[str]], choices: Sequence[int]) -> None:
    """Raise ValueError unless there is one choice a layer, each in the pool."""
    if len(choices) != len(names):
        raise ValueError(f"choices must be one for each of {len(names)} layers; got {len(choices)}")
    for layer, (row, choice) in enumerate(zip(names, choices, strict=True)):
        if not 0 <= choice < len(row):
            raise ValueError(
                f"choice of layer {layer} must be between 0 and {len(row) - 1}; got {choice}"
            )


def log10_space(counts: Sequence[int]) -> float:
    """log10 of the product of the numbers of candidates: 45 layers of 197 give 103.25."""
    return float(np.log10(np.asarray(counts, dtype=float)).sum())


def build_pool(layered: ReplaceableLayers, names: Sequence[str]) -> Pool:
    """Freshly initialised candidates of the given names for every layer, where its shape can have
    them. Draws from torch's default random numbers: seed them outside.

    Args:
        layered: the teacher.
        names: operations; "teacher" may be among them and is there in any case.

    Raises:
        ValueError: an unknown or repeated name, or a candidate of another output shape.
    """
    rows = []
    for layer, shape in enumerate(layered.shapes):
        possible = available([name for name in names if name != TEACHER], shape)
        row = {name: operation(name, shape) for name in possible}
        for name, candidate in row.items():
            layered.check(layer, name, candidate)
        rows.append(row)
    return Pool(rows)


def same_pool(layered: ReplaceableLayers, pool: Pool) -> Pool:
    """The pool, its candidates checked against the layers: for a pool of one's own.

    Raises:
        ValueError: the numbers of layers differ, or a candidate maps to another shape.
    """
    if len(pool.names) != len(layered.names):
        raise ValueError(
            f"the pool must have a row for each of {len(layered.names)} layers; "
            f"got {len(pool.names)}"
        )
    for layer, choice in pool.pairs:
        layered.check(layer, pool.names[layer][choice], pool.rows[layer][choice - 1])
    return pool


def sizes(layered: ReplaceableLayers, pool: Pool) -> dict[str, Table]:
    """Of every choice, "parameters", and "macs": multiply-accumulates for one example."""
    found: dict[str, Table] = {"parameters": [], "macs": []}
    for layer, names in enumerate(pool.names):
        given = layered.sizes[layer][0]
        modules = [pool.module(layered, layer, j) for j in range(len(names))]
        found["parameters"].append(np.array([float(parameters(m)) for m in modules]))
        found["macs"].append(np.array([float(macs(m, given)) for m in modules]))
    return found


def restricted(names: Sequence[Sequence[str]], keep: Collection[str]) -> list[tuple[int, int]]:
    """The (layer, choice) that a smaller pool lacks: all but the teacher's and those to keep.

    Raises:
        ValueError: a name is in no layer's pool.
    """
    known = {name for row in names for name in row}
    missing = sorted(set(keep) - known)
    if missing:
        raise ValueError(f"operations must be among {', '.join(sorted(known))}; got {missing[0]!r}")
    return [
        (i, j)
        for i, row in enumerate(names)
        for j, name in enumerate(row)
        if j and name not in keep
    ]
