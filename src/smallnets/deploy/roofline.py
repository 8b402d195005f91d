"""A roofline of the reader's own machine, and networks on it.

Williams, Waterman and Patterson, Roofline: an insightful visual performance model (2009). A layer
takes at least its multiply-adds over the machine's peak, and at least its bytes over the bandwidth:
time = max(MACs / peak, bytes / bandwidth). What has few multiply-adds a byte, as depthwise and 1x1
layers of small batches, waits for memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from smallnets import measure
from smallnets.checks import above, at_least, whole
from smallnets.deploy.cost import sizes_of
from smallnets.deploy.files import File
from smallnets.deploy.reading import Measured, file_layers, measure_side_by_side
from smallnets.measure.layers import LayerSize
from smallnets.training import workers


@dataclass(frozen=True)
class Machine:
    """What a machine can do at most.

    Attributes:
        peak: multiply-adds a second.
        bandwidth: bytes a second.
        threads: with which that was measured.

    Raises:
        ValueError: a number not above 0.
    """

    peak: float
    bandwidth: float
    threads: int = 1

    def __post_init__(self) -> None:
        above("peak", self.peak, 0)
        above("bandwidth", self.bandwidth, 0)
        whole("threads", self.threads, 1)

    @property
    def ridge(self) -> float:
        """Multiply-adds a byte from which on arithmetic is what takes time."""
        return self.peak / self.bandwidth

    def roof(self, intensity: float) -> float:
        """Most multiply-adds a second at so many multiply-adds a byte."""
        return min(self.peak, intensity * self.bandwidth)


def measure_machine(
    threads: int = 1,
    *,
    side: int = 1024,
    megabytes: int = 128,
    warm_up: int = 2,
    rounds: int = 7,
) -> Machine:
    """Peak by a large product of float32 matrices, bandwidth by a large copy, timed in turns.

    Args:
        threads: of torch.
        side: of the square matrices.
        megabytes: that are copied, far more than the caches hold; reading and writing both count.
        warm_up, rounds: untimed and timed calls of each; the medians are taken.

    Raises:
        ValueError: a number below 1.
    """
    whole("threads", threads, 1)
    whole("side", side, 1)
    whole("megabytes", megabytes, 1)
    a, b = torch.ones(side, side), torch.ones(side, side)
    source = torch.ones(megabytes * 2**20 // 4)
    target, product = torch.zeros_like(source), torch.zeros_like(a)
    with workers.threads(threads), torch.inference_mode():
        found = measure.interleaved(
            {
                "product": lambda: torch.mm(a, b, out=product),
                "copy": lambda: target.copy_(source),
            },
            rounds=rounds,
            warm_up=warm_up,
        )
    seconds = {name: one.median / 1000 for name, one in found.items()}
    return Machine(side**3 / seconds["product"], 2 * 4 * len(source) / seconds["copy"], threads)


@dataclass(frozen=True)
class LayerTime:
    """What the roofline says of one layer and batch.

    Attributes:
        name, kind: of the layer.
        macs: multiply-adds of the batch.
        bytes: of its weights, its inputs and its outputs.
        seconds: at least.
        bound: "arithmetic" or "memory": which of the two takes so long.
    """

    name: str
    kind: str
    macs: int
    bytes: float
    seconds: float
    bound: str


def predict(
    layers: Sequence[LayerSize],
    machine: Machine,
    batch: int = 1,
    bits: Mapping[str, tuple[int, int]] | None = None,
) -> list[LayerTime]:
    """The least time of every layer; their sum is that of the network, layer after layer.

    Args:
        layers: of `layer_sizes` or `file_layers`.
        machine: of `measure_machine`. Integer arithmetic has a higher peak than it knows of.
        batch: examples a pass; weights are read once.
        bits: layer -> (bits of its weight, bits of its input and output); 32 elsewhere, and what
            `file_layers` found.
    """
    whole("batch", batch, 1)
    found = []
    for one in layers:
        known = (getattr(one, "weight_bits", 32), getattr(one, "input_bits", 32))
        wide, narrow = (bits or {}).get(one.name, known)
        moved = (one.parameters * wide + batch * (one.inputs + one.outputs) * narrow) / 8
        times = {
            "arithmetic": batch * one.macs / machine.peak,
            "memory": moved / machine.bandwidth,
        }
        bound = max(times, key=lambda name: times[name])
        found.append(LayerTime(one.name, one.kind, batch * one.macs, moved, times[bound], bound))
    return found


@dataclass(frozen=True)
class Placed:
    """A network on the roofline, for a figure.

    Attributes:
        name: of the network.
        intensity: multiply-adds a byte of the whole network.
        macs: of the batch.
        predicted: seconds, the sum over layers of the least time.
        measured: median seconds of a pass.
        low, high: quartiles.
        memory_bound: share of the predicted time in layers that wait for memory.
    """

    name: str
    intensity: float
    macs: int
    predicted: float
    measured: float
    low: float
    high: float
    memory_bound: float

    @property
    def speed(self) -> float:
        """Multiply-adds a second that were reached."""
        return self.macs / self.measured


def place(
    networks: Mapping[str, File | nn.Module],
    machine: Machine,
    input_shape: tuple[int, ...] | None = None,
    *,
    batch: int = 1,
    warm_up: int = 5,
    rounds: int = 30,
    measured: Mapping[str, Measured] | None = None,
) -> list[Placed]:
    """Put every variant on the roofline: predicted time beside measured time.

    Both are of what runs: quantised layers in torch move and multiply floating-point numbers, and
    count so.

    Args:
        networks: name -> exported file or `nn.Module`.
        machine: of `measure_machine`; its number of threads is used.
        input_shape: one example's shape, of networks in torch.
        batch: examples a pass.
        warm_up, rounds: of the timing, of all in turns.
        measured: of `measure_side_by_side`, if that has been done with this batch and these
            threads: nothing is timed again.

    Raises:
        ValueError: as `measure_side_by_side`; or `measured` lacks something.
    """
    whole("batch", batch, 1)
    if measured is None:
        measured = measure_side_by_side(
            networks,
            input_shape,
            batches=[batch],
            threads=[machine.threads],
            warm_up=warm_up,
            rounds=rounds,
        )
    found = []
    for name, network in networks.items():
        if name not in measured or (batch, machine.threads) not in measured[name].latency:
            raise ValueError(
                f"measured must have {name} with batch {batch} and {machine.threads} threads"
            )
        time = measured[name].latency[batch, machine.threads]
        if isinstance(network, nn.Module):
            if input_shape is None:
                raise ValueError("input_shape must be given for networks in torch; got None")
            layers: Sequence[LayerSize] = sizes_of(network, input_shape)
            times = predict(layers, machine, batch)
        else:
            times = predict(file_layers(network), machine, batch)
        total, macs = sum(one.seconds for one in times), sum(one.macs for one in times)
        waiting = sum(one.seconds for one in times if one.bound == "memory")
        moved = sum(one.bytes for one in times)
        found.append(
            Placed(
                name,
                macs / moved if moved else 0.0,
                macs,
                total,
                time.median,
                time.low,
                time.high,
                waiting / total if total else 0.0,
            )
        )
    return found


def rank_agreement(placed: Sequence[Placed]) -> dict[str, float]:
    """How well multiply-adds, and the prediction, order networks as their measured times do.

    Kendall's tau of each with the measured times: 1 is the same order, -1 the reverse.

    Raises:
        ValueError: fewer than two networks.
    """
    at_least("number of networks", len(placed), 2)
    pairs = [(a, b) for i, a in enumerate(placed) for b in placed[i + 1 :]]

    def tau(key: str) -> float:
        signs = [
            _sign(getattr(a, key) - getattr(b, key)) * _sign(a.measured - b.measured)
            for a, b in pairs
        ]
        return sum(signs) / len(signs)

    return {"macs": tau("macs"), "predicted": tau("predicted")}


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
