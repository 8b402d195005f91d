"""The operations that may stand in for a layer, each built from its name.

A name is a family and its options, such as "conv3", "ir_e3_k5_se0.25" or "mhsa4". The families are
those that the paper describes: identity, plain and separable convolutions, residual and bottleneck
blocks, inverted residuals with depthwise (`ir`) or full (`fused`) kernels and squeeze-and-excite,
low-rank and re-parametrisable convolutions, attention. The paper's exact list of 197 is not
published; `FULL_POOL` is one of that size and kind, and ours.

All convolutions are without bias, padded by half their kernel and followed by BatchNorm; a stride
is that of the layer that is replaced. Odd sizes are halved upwards.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import checks

TEACHER = "teacher"  # the layer that is there already


@dataclass(frozen=True)
class Shape:
    """What a layer maps to what: channels, stride, and the size of its input in pixels."""

    in_channels: int
    channels: int
    stride: int = 1
    height: int = 16
    width: int = 16

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in ("in_channels", "channels", "stride", "height", "width"):
            checks.whole(name, getattr(self, name), 1)

    @property
    def same(self) -> bool:
        """Whether input and output have one shape."""
        return self.stride == 1 and self.in_channels == self.channels

    def __str__(self) -> str:
        size = f"{self.height}x{self.width}"
        return f"{self.in_channels} to {self.channels} channels, stride {self.stride}, {size}"


def operation(name: str, shape: Shape) -> nn.Module:
    """A freshly initialised operation.

    Args:
        name: a family of `FAMILIES` with its options.
        shape: of the layer that it stands in for.

    Raises:
        ValueError: for an unknown name, or an operation that this shape cannot have.
    """
    family, options = parsed(name)
    try:
        return FAMILIES[family](shape, **options)
    except TypeError as error:  # an option that the family lacks
        raise unknown(name) from error


def available(names: Sequence[str], shape: Shape) -> tuple[str, ...]:
    """Those of the named operations that a shape can have, in their order.

    Raises:
        ValueError: a name is unknown, or given twice.
    """
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise ValueError(f"names of operations must differ; got {repeated[0]!r} twice")
    for name in names:
        parsed(name)
    return tuple(name for name in names if _can_have(name, shape))


def _can_have(name: str, shape: Shape) -> bool:
    try:
        with torch.device("meta"):
            operation(name, shape)
    except ImpossibleError:
        return False
    return True


class ImpossibleError(ValueError):
    """An operation that a shape cannot have, such as attention where channels change."""


def unknown(name: str) -> ValueError:
    """The error for a name that is no operation's."""
    return ValueError(
        f"operation must be one of {', '.join(FAMILIES)} with its options, "
        f"such as conv3 or ir_e3_k5_se0.25; got {name!r}"
    )


def parsed(name: str) -> tuple[str, dict[str, Any]]:
    """Family and options: "ir_e3_k5" -> ("ir", {"e": 3, "k": 5}); a number at the family is "n"."""
    match = re.fullmatch(r"([a-z]+)(\d+)?((?:_[a-z]+[\d.]+)*)", name)
    if not match or match[1] not in FAMILIES:
        raise unknown(name)
    options: dict[str, Any] = {"n": int(match[2])} if match[2] else {}
    for key, value in re.findall(r"_([a-z]+)([\d.]+)", match[3]):
        options[key] = float(value) if "." in value else int(value)
    return match[1], options


# ---------------------------------------------------------------- parts


def _unit(
    in_channels: int,
    channels: int,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    *,
    groups: int = 1,
    act: bool = True,
) -> nn.Sequential:
    """Convolution, BatchNorm, and ReLU if `act`."""
    if in_channels % groups or channels % groups:
        raise ImpossibleError(
            f"channels must be divisible by {groups} groups; got {in_channels} and {channels}"
        )
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (sides[0] // 2, sides[1] // 2)
    convolution = nn.Conv2d(
        in_channels, channels, sides, stride, padding, groups=groups, bias=False
    )
    parts: list[nn.Module] = [convolution, nn.BatchNorm2d(channels)]
    return nn.Sequential(*parts, nn.ReLU()) if act else nn.Sequential(*parts)


def skip(shape: Shape) -> nn.Module:
    """The identity; where the shape changes, average pooling and a 1x1 convolution."""
    if shape.same:
        return nn.Identity()
    pool = nn.AvgPool2d(shape.stride, shape.stride, ceil_mode=True, count_include_pad=False)
    projection = _unit(shape.in_channels, shape.channels, 1, act=False)
    return nn.Sequential(pool, projection) if shape.stride > 1 else projection


class Residual(nn.Module):
    """A path and a shortcut, added; nothing after the sum."""

    def __init__(self, path: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.path = path
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h / stride, w / stride)."""
        return self.path(x) + self.shortcut(x)


class SqueezeExcite(nn.Module):
    """Every channel times a number in (0, 1) computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape."""
        return x * self.gate(x)


def _excited(channels: int, se: float, of: int) -> list[nn.Module]:
    """Squeeze-and-excite to int(of * se) channels, or nothing for 0."""
    return [SqueezeExcite(channels, max(1, int(of * se)))] if se else []


# ---------------------------------------------------------------- convolutions


def conv(shape: Shape, n: int, se: float = 0) -> nn.Module:
    """One n x n convolution."""
    unit = _unit(shape.in_channels, shape.channels, n, shape.stride)
    return nn.Sequential(unit, *_excited(shape.channels, se, shape.channels)) if se else unit


def stack(shape: Shape, n: int, k: int) -> nn.Module:
    """n convolutions of k x k in a row."""
    first = _unit(shape.in_channels, shape.channels, k, shape.stride)
    more = (_unit(shape.channels, shape.channels, k) for _ in range(n - 1))
    return nn.Sequential(first, *more)


def dwsep(shape: Shape, n: int, se: float = 0) -> nn.Module:
    """Depthwise n x n convolution, then 1x1."""
    deep = shape.in_channels
    return nn.Sequential(
        _unit(deep, deep, n, shape.stride, groups=deep),
        *_excited(deep, se, deep),
        _unit(deep, shape.channels, 1),
    )


def group(shape: Shape, n: int, k: int) -> nn.Module:
    """k x k convolution in n groups, then 1x1."""
    return nn.Sequential(
        _unit(shape.in_channels, shape.channels, k, shape.stride, groups=n),
        _unit(shape.channels, shape.channels, 1),
    )


def sep(shape: Shape, n: int) -> nn.Module:
    """n x 1 convolution, then 1 x n."""
    return nn.Sequential(
        _unit(shape.in_channels, shape.channels, (n, 1), (shape.stride, 1), act=False),
        _unit(shape.channels, shape.channels, (1, n), (1, shape.stride)),
    )


def lowrank(shape: Shape, r: float, k: int) -> nn.Module:
    """A k x k convolution of rank r * channels: down to few channels, and linearly up again."""
    rank = max(1, int(shape.channels * r))
    return nn.Sequential(
        _unit(shape.in_channels, rank, k, shape.stride, act=False),
        _unit(rank, shape.channels, 1),
    )


class Reparametrisable(nn.Module):
    """Branches of several kernels with one sum and one ReLU, as RepVGG trains them."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h / stride, w / stride)."""
        return torch.stack([branch(x) for branch in self.branches]).sum(dim=0).relu()


def rep(shape: Shape, n: int) -> nn.Module:
    """n x n, 1x1 and (where the shape stays) identity branches."""
    branches: list[nn.Module] = [
        _unit(shape.in_channels, shape.channels, kernel, shape.stride, act=False)
        for kernel in (n, 1)
    ]
    return Reparametrisable(branches + ([nn.BatchNorm2d(shape.channels)] if shape.same else []))


class Ghost(nn.Module):
    """Half of the channels by a convolution, the others by a depthwise one of these."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h / stride, w / stride)."""
        half = self.first(x)
        return torch.cat([half, self.second(half)], dim=1)


def ghost(shape: Shape, n: int) -> nn.Module:
    """An n x n convolution to half of the channels, and n x n depthwise for the other half."""
    if shape.channels % 2:
        raise ImpossibleError(f"ghost{n} needs an even number of channels; got {shape.channels}")
    half = shape.channels // 2
    return Ghost(_unit(shape.in_channels, half, n, shape.stride), _unit(half, half, n, groups=half))


# ---------------------------------------------------------------- blocks


def basic(shape: Shape, r: float = 1) -> nn.Module:
    """Two 3x3 convolutions with r * channels between them, plus `skip`."""
    inner = max(1, int(shape.channels * r))
    path = nn.Sequential(
        _unit(shape.in_channels, inner, 3, shape.stride),
        _unit(inner, shape.channels, 3, act=False),
    )
    return Residual(path, skip(shape))


def bottleneck(shape: Shape, r: float, k: int, g: int = 1) -> nn.Module:
    """1x1 to r * channels, k x k (in g groups), 1x1 back, plus `skip`."""
    inner = max(1, int(shape.channels * r))
    path = nn.Sequential(
        _unit(shape.in_channels, inner, 1),
        _unit(inner, inner, k, shape.stride, groups=g),
        _unit(inner, shape.channels, 1, act=False),
    )
    return Residual(path, skip(shape))


def ir(shape: Shape, e: int, k: int, se: float = 0) -> nn.Module:
    """Inverted residual: 1x1 to e times the channels, depthwise k x k, 1x1."""
    deep = shape.in_channels * e
    widen = [_unit(shape.in_channels, deep, 1)] if e > 1 else []
    path = nn.Sequential(
        *widen,
        _unit(deep, deep, k, shape.stride, groups=deep),
        *_excited(deep, se, shape.in_channels),
        _unit(deep, shape.channels, 1, act=False),
    )
    return Residual(path, nn.Identity()) if shape.same else path


def fused(shape: Shape, e: int, k: int, se: float = 0) -> nn.Module:
    """Dense inverted residual: the first two convolutions of `ir` in one full k x k."""
    deep = shape.in_channels * e
    excited = _excited(deep, se, shape.in_channels)
    if e == 1:
        path = nn.Sequential(_unit(shape.in_channels, shape.channels, k, shape.stride))
        path.extend(_excited(shape.channels, se, shape.in_channels))
    else:
        path = nn.Sequential(
            _unit(shape.in_channels, deep, k, shape.stride),
            *excited,
            _unit(deep, shape.channels, 1, act=False),
        )
    return Residual(path, nn.Identity()) if shape.same else path


def next_block(shape: Shape, e: int, k: int) -> nn.Module:
    """Depthwise k x k first, then 1x1 to e times the channels and back, plus `skip`."""
    deep = shape.in_channels
    path = nn.Sequential(
        _unit(deep, deep, k, shape.stride, groups=deep, act=False),
        _unit(deep, deep * e, 1),
        _unit(deep * e, shape.channels, 1, act=False),
    )
    return Residual(path, skip(shape))


# ---------------------------------------------------------------- attention


class Attention(nn.Module):
    """Multi-head self-attention over positions with LayerNorm before and x added after.

    Args:
        channels: of input and output.
        heads: must divide the channels.
        pool: keys and values are averaged over windows of this side.
    """

    def __init__(self, channels: int, heads: int, pool: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.pool = nn.AvgPool2d(pool, pool, ceil_mode=True) if pool > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape."""
        height, width = x.shape[2:]
        tokens = self.norm(x.flatten(2).transpose(1, 2))  # (n, h w, channels)
        q, k, v = self.qkv(tokens).chunk(3, dim=2)
        k, v = (
            self.pool(part.transpose(1, 2).unflatten(2, (height, width))).flatten(2)
            for part in (k, v)
        )  # (n, channels, positions)
        q = q.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (n, heads, h w, depth)
        k, v = (part.unflatten(1, (self.heads, -1)) for part in (k, v))  # (n, heads, depth, p)
        weights = (q @ k / q.shape[-1] ** 0.5).softmax(dim=-1)  # (n, heads, h w, p)
        mixed = (weights @ v.transpose(2, 3)).transpose(1, 2).flatten(2)  # (n, h w, channels)
        return x + self.out(mixed).transpose(1, 2).unflatten(2, (height, width))


class TokenMLP(nn.Module):
    """LayerNorm, two linear layers at every position, x added."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, expansion * channels),
            nn.GELU(),
            nn.Linear(expansion * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape."""
        return x + self.path(x.movedim(1, 3)).movedim(3, 1)


def mhsa(shape: Shape, n: int, pool: int = 1) -> nn.Module:
    """Attention with n heads, where the shape stays."""
    if not shape.same:
        raise ImpossibleError(f"mhsa{n} keeps the shape of its input; got {shape}")
    if shape.channels % n:
        raise ImpossibleError(f"channels must be divisible by {n} heads; got {shape.channels}")
    return Attention(shape.channels, n, pool)


def vit(shape: Shape, n: int, e: int) -> nn.Module:
    """Attention with n heads, then a perceptron of e times the channels."""
    return nn.Sequential(mhsa(shape, n), TokenMLP(shape.channels, e))


FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "skip": skip, "conv": conv, "stack": stack, "dwsep": dwsep, "group": group, "sep": sep,
    "lowrank": lowrank, "rep": rep, "ghost": ghost, "basic": basic, "bottleneck": bottleneck,
    "ir": ir, "fused": fused, "next": next_block, "mhsa": mhsa, "vit": vit,
}  # fmt: skip


def _full_pool() -> tuple[str, ...]:
    squeezes = ("", "_se0.04", "_se0.25")
    wide = (1, 2, 3, 4, 6, 8)
    names = [TEACHER, "skip", "conv1", *(f"conv{k}{s}" for k in (3, 5, 7) for s in ("", "_se0.25"))]
    names += [f"stack{n}_k{k}" for n in (2, 3) for k in (3, 5)]
    names += [f"dwsep{k}{s}" for k in (3, 5, 7) for s in ("", "_se0.25")]
    names += [f"group{n}_k{k}" for n in (2, 4, 8) for k in (3, 5)]
    names += [f"sep{k}" for k in (3, 5, 7)] + ["rep3", "rep5", "ghost3", "ghost5"]
    names += [f"lowrank_r{r}_k{k}" for r in (0.125, 0.25, 0.5) for k in (3, 5)]
    names += ["basic", *(f"basic_r{r}" for r in (0.25, 0.5, 2))]
    names += [f"bottleneck_r{r}_k{k}" for r in (0.125, 0.25, 0.5, 1) for k in (3, 5, 7)]
    names += [
        f"bottleneck_r{r}_k{k}_g{g}" for r in (0.25, 0.5, 1) for k in (3, 5) for g in (2, 4, 8)
    ]
    names += [f"ir_e{e}_k{k}{se}" for e in wide for k in (3, 5, 7) for se in squeezes]
    names += [f"fused_e{e}_k{k}{se}" for e in wide for k in (3, 5) for se in squeezes]
    names += [f"fused_e{e}_k7" for e in wide]
    names += [f"next_e{e}_k{k}" for e in (1, 2, 4) for k in (3, 5, 7)]
    names += [f"mhsa{n}{pool}" for n in (1, 2, 4, 8) for pool in ("", "_pool2")]
    names += [f"vit{n}_e{e}" for n in (1, 2, 4, 8) for e in (1, 2, 4)]
    return tuple(names)


FULL_POOL = _full_pool()  # 197 names, the teacher's own layer among them
