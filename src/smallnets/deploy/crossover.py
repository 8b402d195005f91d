"""From which size of a layer on 8-bit integers are faster than floating point on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from smallnets.checks import each, one_of, whole
from smallnets.deploy import onnx_runtime
from smallnets.deploy.int8 import POLICY, export_int8
from smallnets.measure import Latency, macs
from smallnets.quantize.genie.network import calibrate, quantize

KINDS = ("3x3", "1x1", "depthwise", "linear")


@dataclass(frozen=True)
class LayerRace:
    """A layer in floating point and in integers.

    Attributes:
        channels: of its input and output.
        macs: multiply-adds of one example in all layers that were timed together.
        float32, int8: seconds a pass.
    """

    channels: int
    macs: int
    float32: Latency
    int8: Latency

    @property
    def speedup(self) -> float:
        """How many times as fast integers are, by medians."""
        return self.float32.median / self.int8.median


@dataclass(frozen=True)
class Crossover:
    """Races of layers of growing size.

    Attributes:
        kind: of the layers.
        races: in order of size.
        exact_sums: whether this processor needs the slower integer kernels, see
            `onnx_runtime.cuts_sums_off`.
    """

    kind: str
    races: tuple[LayerRace, ...]
    exact_sums: bool

    @property
    def wins_from(self) -> int | None:
        """The least number of channels from which on integers were faster at every larger size,
        the quartiles apart; None if they never were.
        """
        least = None
        for race in reversed(self.races):
            if race.int8.high >= race.float32.low:
                break
            least = race.channels
        return least


def int8_crossover(
    channels: Sequence[int] = (8, 16, 32, 64, 128),
    *,
    kind: str = "3x3",
    side: int = 16,
    depth: int = 3,
    batch: int = 1,
    threads: int = 1,
    warm_up: int = 3,
    rounds: int = 30,
) -> Crossover:
    """Time layers of growing width in ONNX Runtime, in float32 and in int8, all in turns.

    Args:
        channels: widths, rising.
        kind: "3x3", "1x1", "depthwise" (3x3) or "linear".
        side: of the square maps; linear layers have none.
        depth: layers one after the other, two or more, each with a ReLU, so that turning the input
            into integers weighs less.
        batch, threads: of the timing.
        warm_up, rounds: untimed and timed passes of each.

    Raises:
        ValueError: an unknown kind, no widths or falling ones, numbers that are too small.
    """
    one_of("kind", kind, KINDS)
    widths = list(channels)
    each("channels", widths, whole, 1)
    if widths != sorted(set(widths)):
        raise ValueError(f"channels must rise; got {widths}")
    for name, number, least in (("side", side, 1), ("depth", depth, 2), ("batch", batch, 1)):
        whole(name, number, least)
    races = []
    for width in tqdm(widths, desc="int8 against float32", leave=False, delay=2):
        shape = (width,) if kind == "linear" else (width, side, side)
        network = _layers(kind, width, depth)
        images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
        made = quantize(network, 8, 8, mode="nearest", symmetric=True, policy=POLICY, ratios=1)
        files = {
            "float32": onnx_runtime.export(network, shape),
            "int8": export_int8(calibrate(made, images), shape),
        }
        found = onnx_runtime.latencies(
            {name: onnx_runtime.load(file, threads) for name, file in files.items()},
            shape,
            batch=batch,
            warm_up=warm_up,
            rounds=rounds,
        )
        races.append(LayerRace(width, macs(network, shape), found["float32"], found["int8"]))
    return Crossover(kind, tuple(races), onnx_runtime.cuts_sums_off())


def _layers(kind: str, width: int, depth: int) -> nn.Module:
    parts: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(depth):
            if kind == "linear":
                parts.append(nn.Linear(width, width))
            else:
                size, groups = (1 if kind == "1x1" else 3), (width if kind == "depthwise" else 1)
                parts.append(nn.Conv2d(width, width, size, padding=size // 2, groups=groups))
            parts.append(nn.ReLU())
    return nn.Sequential(*parts).eval()
