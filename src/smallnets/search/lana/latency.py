"""How long every candidate takes here: measured in turns, kept as a table.

A look-up table of latencies replaces the running of networks by sums. What makes such sums wrong is
a machine that is busier while one entry is measured than while another is. So all entries are
measured in turns, round after round, each in a block long enough for the clock; a busy moment then
slows all of them alike, and the median over the rounds forgets it.
"""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.measure import Timing, evaluating, interleaved, parameters
from smallnets.search.lana.layers import ReplaceableLayers, Replay
from smallnets.search.lana.pool import Pool, Table
from smallnets.storage import atomic_path
from smallnets.training.naming import structure_of
from smallnets.training.workers import threads as torch_threads

STRUCTURE = "structure"  # of an entry, in its name


def interleaved_latency(
    things: Mapping[str, tuple[nn.Module, Tensor]],
    *,
    rounds: int = 15,
    block: float = 2.0,
    threads: int = 1,
) -> dict[str, Timing]:
    """Time modules on their inputs, in turns.

    Args:
        things: name -> module and input. Modules run in evaluation mode and are left as they were.
        rounds, block: see `smallnets.measure.interleaved`.
        threads: CPU threads of torch's operations.

    Raises:
        ValueError: a number is out of range.
    """
    checks.above("block", block, 0)
    checks.whole("threads", threads, 1)
    with ExitStack() as stack:
        for module, _ in things.values():
            stack.enter_context(evaluating(module))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch_threads(threads))
        calls = {name: partial(module, x) for name, (module, x) in things.items()}
        on_gpu = any(x.is_cuda for _, x in things.values())
        wait = torch.cuda.synchronize if on_gpu else time.perf_counter
        return interleaved(calls, rounds=rounds, block=block, wait=wait)


@dataclass(frozen=True)
class LatencyTable:
    """Measured milliseconds per batch, by what was measured.

    Attributes:
        batch: examples in a batch.
        threads: CPU threads.
        processor: where it was measured.
        entries: what -> quartiles. Layers of one kind, shape and structure share an entry.
    """

    batch: int
    threads: int
    processor: str
    entries: dict[str, Timing]

    def rows(self, layered: ReplaceableLayers, pool: Pool) -> Table:
        """Medians of every layer's candidates, the teacher's first.

        Raises:
            ValueError: a candidate is not in the table.
        """
        return [np.array([self._entry(key).median for key in row]) for row in _keys(layered, pool)]

    def fixed(self, layered: ReplaceableLayers) -> float:
        """Median of what is not replaced: stem, head, whatever lies between layers."""
        return self._entry(_fixed_key(layered)).median

    def covers(self, layered: ReplaceableLayers, pool: Pool) -> bool:
        """Whether all entries are there. What has no name of its own is never there: the table may
        be that of another network.
        """
        needed = {key for row in _keys(layered, pool) for key in row} | {_fixed_key(layered)}
        return all(
            key.startswith("nothing") or (key in self.entries and STRUCTURE in key)
            for key in needed
        )

    def _entry(self, key: str) -> Timing:
        if key.startswith("nothing"):
            return Timing(0.0, 0.0, 0.0)  # an identity costs nothing, whatever a clock says
        if key not in self.entries:
            raise ValueError(f"latency of {key} must be measured first; the table lacks it")
        return self.entries[key]

    def save(self, path: Path) -> None:
        """Write the table as JSON."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "LatencyTable":
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds no such table, or a latency that is negative or not finite.
        """
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            entries = {
                key: Timing(*map(float, value)) for key, value in read.pop("entries").items()
            }
            table = cls(**read, entries=entries)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{path.name} must be a latency table as save writes it; got {type(error).__name__}"
            ) from error
        for key, timing in entries.items():
            if not all(np.isfinite(part) and part >= 0 for part in timing):
                raise ValueError(f"latency of {key} must be finite and not negative; got {timing}")
        return table


def measure_table(
    layered: ReplaceableLayers,
    pool: Pool,
    *,
    batch: int = 16,
    rounds: int = 15,
    threads: int = 1,
    networks: Mapping[str, nn.Module] | None = None,
) -> tuple[LatencyTable, dict[str, Timing]]:
    """Measure every entry that a pool needs, and whole networks in the same turns.

    Args:
        layered: the teacher, on the device that is to be measured.
        pool: its candidates.
        batch: examples in a batch.
        rounds: see `interleaved_latency`.
        threads: see `interleaved_latency`.
        networks: whole networks to time beside the entries.

    Returns:
        The table, and the networks' latencies.
    """
    checks.whole("batch", batch, 1)
    example = layered.example[:1].repeat(batch, *[1] * (layered.example.ndim - 1))
    with evaluating(layered.network), torch.no_grad():
        seen = layered.passed(example)
    things: dict[str, tuple[nn.Module, Tensor]] = {}
    for layer, keys in enumerate(_keys(layered, pool)):
        for choice, key in enumerate(keys):
            if not key.startswith("nothing"):
                things[key] = (pool.module(layered, layer, choice), seen.inputs[layer])
    frame = layered.stitched([Replay(output) for output in seen.outputs])
    things[_fixed_key(layered)] = (frame, example)
    for name, network in (networks or {}).items():
        things[f"network {name}"] = (network, example)
    timings = interleaved_latency(things, rounds=rounds, threads=threads)
    whole = {name: timings.pop(f"network {name}") for name in networks or {}}
    processor = platform.processor() or platform.machine()
    return LatencyTable(batch, threads, processor, timings), whole


def _keys(layered: ReplaceableLayers, pool: Pool) -> list[list[str]]:
    """What is looked up for every candidate: its name, what it maps to what, its parameters, and
    the structure of its steps, in which layers of equal size may differ.
    """
    rows = []
    for layer, names in enumerate(pool.names):
        given, made = ("x".join(map(str, sides)) for sides in layered.sizes[layer])
        row = []
        for choice, name in enumerate(names):
            module = pool.module(layered, layer, choice)
            kind = "nothing" if isinstance(module, nn.Identity) else name
            size = f"{given} to {made}, {parameters(module)} parameters"
            row.append(f"{kind} {size}, {_structure(module) or f'of layer {layer}'}")
        rows.append(row)
    return rows


def _fixed_key(layered: ReplaceableLayers) -> str:
    size = "x".join(map(str, layered.example.shape[1:]))
    rest = parameters(layered.network) - sum(parameters(layer) for layer in layered.layers)
    structure = _structure(layered.network, layered.layers) or "of its own"
    return f"fixed part for {size}, {rest} parameters, {structure}"


def _structure(module: nn.Module, without: Sequence[nn.Module] = ()) -> str:
    """What tells modules of one size apart; nothing where a part has no name."""
    try:
        return f"{STRUCTURE} {structure_of(module, without)}"
    except ValueError:
        return ""
