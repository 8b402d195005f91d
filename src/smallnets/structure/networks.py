"""Small complete networks, each of one hand-designed block, and how to scale one."""

from collections import OrderedDict
from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

from torch import nn

from smallnets.checks import above, at_least, whole
from smallnets.models.staged import StagedNetwork, pooled_classifier
from smallnets.structure.blocks import dense_block, make_block

STAGES = 3


class Place(NamedTuple):
    """Where a block stands."""

    in_channels: int
    channels: int
    stride: int
    shrunk: int  # by how much its input is smaller than the image


def places(width: int, blocks: int, stem_stride: int = 1) -> list[Place]:
    """The places of three stages of `blocks`: stage i has `width` * 2^(i-1) channels, and the first
    block of the second and third stage has stride 2.

    Raises:
        ValueError: a number is below 1.
    """
    whole("width", width, 1)
    whole("blocks", blocks, 1)
    found, channels, shrunk = [], width, whole("stem_stride", stem_stride, 1)
    for stage in range(STAGES):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            found.append(Place(channels, width * 2**stage, stride, shrunk))
            channels, shrunk = width * 2**stage, shrunk * stride
    return found


def small_by_design(
    block: str,
    width: int,
    num_classes: int,
    in_channels: int = 3,
    *,
    blocks: int = 2,
    stem_stride: int = 1,
    **options: Any,
) -> StagedNetwork:
    """A network of one kind of block: 3x3 stem, three stages, pooling, a linear layer.

    Args:
        block: a name of `BLOCKS` other than "skip".
        width: channels of the stem and of the first stage; they double from stage to stage.
        num_classes: length of the logits.
        in_channels: channels of the images.
        blocks: blocks a stage.
        stem_stride: stride of the first convolution.
        options: of the block, such as `expansion`.

    Raises:
        ValueError: an unknown block or option, or a number below 1; channels that a block cannot
            have, such as odd ones.
    """
    count = len(places(width, blocks, stem_stride))
    return assembled(
        [block] * count, width, num_classes, in_channels, stem_stride=stem_stride, **options
    )


def assembled(
    chosen: Sequence[str],
    width: int,
    num_classes: int,
    in_channels: int = 3,
    *,
    stem_stride: int = 1,
    **options: Any,
) -> StagedNetwork:
    """As `small_by_design`, with a block of its own at every place, in order.

    Raises:
        ValueError: their number is no multiple of three; otherwise as `small_by_design`.
    """
    chosen = list(chosen)
    per_stage, rest = divmod(len(chosen), STAGES)
    if rest or not chosen:
        raise ValueError(f"chosen must be three stages of blocks; got {len(chosen)} blocks")
    whole("in_channels", in_channels, 1)
    spots = places(width, per_stage, stem_stride)
    made = [
        make_block(name, spot.in_channels, spot.channels, spot.stride, **options)
        for name, spot in zip(chosen, spots, strict=True)
    ]
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stem=dense_block(in_channels, width, stem_stride)
    )
    for stage in range(STAGES):
        parts[f"stage{stage + 1}"] = nn.Sequential(
            *made[stage * per_stage : (stage + 1) * per_stage]
        )
    parts.update(pooled_classifier(spots[-1].channels, num_classes))
    return StagedNetwork(parts)


class Scaling(NamedTuple):
    """By how much a network grows."""

    depth: float
    width: float
    resolution: float

    @property
    def macs(self) -> float:
        """The factor of multiply-adds: depth * width^2 * resolution^2."""
        return self.depth * self.width**2 * self.resolution**2

    def of(self, blocks: int, width: int, side: int, *, multiple: int = 8) -> tuple[int, int, int]:
        """Blocks (rounded up), width (to a multiple) and the side of images (rounded).

        Raises:
            ValueError: a number is below 1.
        """
        for name, value in (
            ("blocks", blocks), ("width", width), ("side", side), ("multiple", multiple),
        ):  # fmt: skip
            whole(name, value, 1)
        wide = max(multiple, int(self.width * width / multiple + 0.5) * multiple)
        # A product such as 1.2 * 5 may end a digit above a whole number.
        return ceil(self.depth * blocks - 1e-9), wide, max(1, round(self.resolution * side))


def compound_scaling(
    phi: float, *, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15
) -> Scaling:
    """EfficientNet's compound scaling (Tan & Le, ICML 2019): depth alpha^phi, width beta^phi,
    resolution gamma^phi.

    With alpha * beta^2 * gamma^2 about 2, a step of phi doubles the multiply-adds.

    Args:
        phi: how many times, any finite number; below 0 a network shrinks.
        alpha, beta, gamma: at least 1; the published ones.

    Raises:
        ValueError: a number is out of range.
    """
    for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        at_least(name, value, 1)
    above("phi", phi, -float("inf"))
    return Scaling(alpha**phi, beta**phi, gamma**phi)
