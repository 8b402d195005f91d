"""scenes: landscapes drawn by rule, with surfaces cut from real photographs.

A scene is a label map of sky, ground, water, trees, houses and road, drawn from random numbers, and
the picture that belongs to it: every surface is a crop of a real photograph (grass, gravel, bricks,
the moon), coloured and lit as its class is in a style, summer or winter. Nothing is downloaded.

- paired: label map in colours -> summer picture.
- unpaired: summer pictures -> winter pictures of other scenes. In the test part both show the same
  scene, so that there is a truth to compare with.
- semantic: one-hot label map with the borders of instances -> summer picture.
- styles: label map in colours -> pictures of other scenes in both styles; more than one answer is
  right.

Scene i depends on the seed and on i alone, so a smaller set is the beginning of a larger one; and
it is the same scene at every size. Test pictures take their surfaces from parts of the photographs
that no training picture shows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.data.kept import kept
from smallnets.data.photographs import photograph
from smallnets.data.translation import (
    NPZ,
    Translation,
    one_hot_maps,
    translation_npz,
)
from smallnets.storage import source_digest

CLASSES = ("sky", "ground", "water", "tree", "house", "road")
SKY, GROUND, WATER, TREE, HOUSE, ROAD = range(len(CLASSES))
KINDS = ("paired", "unpaired", "semantic", "styles")
STYLES = ("summer", "winter")
PALETTE = torch.tensor(
    [[125, 184, 235], [142, 184, 92], [52, 104, 190], [34, 96, 56], [206, 98, 74], [132, 130, 138]],
    dtype=torch.uint8,
)
THINGS = 6  # places of trees and houses, from the horizon to the front
FIRST_THING = 16  # number of the first one in an instance map; below are the classes
CHUNK = 64  # scenes made at a time
COLUMNS = 32 + 8 * THINGS  # random numbers of a scene

Uniform = Callable[[float, float], Tensor]


@dataclass(frozen=True)
class Surface:
    """What a class looks like in a style.

    Attributes:
        photograph: that its crops come from.
        zoom: how much of a crop's height the image's height is; more is finer.
        stretch: how much wider than high the crop's details become.
        colour: mean, grey levels (red, green, blue).
        contrast: grey levels that one standard deviation of the crop is worth, in each colour.
    """

    photograph: str
    zoom: float
    stretch: float
    colour: tuple[float, float, float]
    contrast: tuple[float, float, float]


SURFACES = {
    "summer": (
        Surface("moon", 0.45, 2.2, (142, 192, 236), (22, 15, 6)),
        Surface("grass", 2.4, 1.3, (124, 158, 74), (30, 30, 20)),
        Surface("grass", 1.2, 5.0, (62, 124, 176), (14, 18, 20)),
        Surface("gravel", 2.2, 1.0, (50, 98, 48), (24, 32, 18)),
        Surface("brick", 4.5, 1.0, (204, 164, 128), (17, 16, 15)),
        Surface("gravel", 4.0, 1.4, (150, 140, 128), (15, 15, 15)),
    ),
    "winter": (
        Surface("moon", 0.45, 2.2, (186, 196, 212), (13, 11, 9)),
        Surface("grass", 2.4, 1.3, (232, 236, 244), (12, 11, 8)),
        Surface("grass", 1.2, 5.0, (150, 182, 204), (12, 12, 12)),
        Surface("gravel", 2.2, 1.0, (128, 140, 146), (44, 42, 40)),
        Surface("brick", 4.5, 1.0, (182, 146, 122), (14, 13, 13)),
        Surface("gravel", 4.0, 1.4, (168, 170, 178), (16, 16, 16)),
    ),
}
ROOF = {"summer": (168, 74, 56), "winter": (240, 243, 250)}
DARK = {"summer": (58, 46, 42), "winter": (60, 56, 60)}  # trunks, doors and windows
WARM = {"summer": (1.0, 1.0, 0.97), "winter": (0.97, 0.99, 1.02)}  # the light


@dataclass(frozen=True, eq=False)
class Drawing:
    """Scenes as drawn, before they have surfaces.

    Attributes:
        labels: uint8 (n, height, width), see `CLASSES`.
        instances: uint8 (n, height, width): the class, or a number of its own for each tree and
            house.
        light: float32 (n, height, width), a factor: sides that the sun shines on, and shadows.
        part: uint8 (n, height, width): 1 for roofs, 2 for trunks, doors and windows, else 0.
        horizon: float32 (n, 1, 1), its height as a share of the image's from above.
    """

    labels: Tensor
    instances: Tensor
    light: Tensor
    part: Tensor
    horizon: Tensor


def scenes(
    kind: str = "paired",
    *,
    train: int = 1500,
    test: int = 300,
    size: int | tuple[int, int] = 64,
    seed: int = 0,
) -> Translation:
    """Landscapes to translate, made once and kept on disk.

    Args:
        kind: one of `KINDS`.
        train, test: how many images of each domain.
        size: height and width in pixels, or one number for both.
        seed: which scenes.

    Raises:
        ValueError: another kind, or a number out of range.
    """
    checks.one_of("kind", kind, KINDS)
    sides = size if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2:
        raise ValueError(f"size must be one number, or height and width; got {size}")
    height, width = sides
    for name, number in (("train", train), ("test", test), ("height", height), ("width", width)):
        checks.whole(name, number, 1)
    checks.whole("seed", seed, 0)

    def made(part: str, count: int, set_: int, style: str) -> tuple[Tensor, Tensor, Tensor]:
        what = (part, count, (int(height), int(width)), seed, set_, style)
        images, maps = kept(
            f"scenes-{style}-{part}",
            partial(make_scenes, *what),
            what=what,
            source=source_digest("data/scenes.py", "data/photographs.py"),
            versions=[version(name) for name in ("numpy", "torch", "pillow", "scikit-image")],
        )
        return images, maps[:, 0], maps[:, 1]

    parts = (("train", train), ("test", test))
    pictures, labels, inputs = {}, {}, {}
    for part, count in parts:
        apart = part == "train" and kind in ("unpaired", "styles")
        style = {"unpaired": "winter", "styles": "both"}.get(kind, "summer")
        pictures[part], labels[part], instances = made(part, count, int(apart), style)
        if kind == "unpaired":
            inputs[part] = made(part, count, 0, "summer")[0]
        elif kind == "semantic":
            inputs[part] = one_hot_maps(labels[part], instances, len(CLASSES))
        else:
            shown = made(part, count, 0, style)[1] if apart else labels[part]
            inputs[part] = coloured(shown)
    return Translation(
        f"scenes-{kind}", inputs["train"], pictures["train"], inputs["test"], pictures["test"],
        paired=kind in ("paired", "semantic"), aligned=True, one_hot=kind == "semantic",
        labels_train=labels["train"], labels_test=labels["test"], class_names=CLASSES, flips=True,
    )  # fmt: skip


def load_translation(
    name: str,
    *,
    kind: str = "paired",
    train: int | None = None,
    test: int | None = None,
    size: int | tuple[int, int] = 64,
    seed: int = 0,
) -> Translation:
    """Two domains by name: "scenes", or "npz:FILE" for a file of your own.

    Args:
        name: one of the two.
        kind: of scenes, one of `KINDS`; of a file, whether it is "paired" or "unpaired".
        train, test: how many images; None is the usual number, or all of a file.
        size, seed: of scenes.

    Raises:
        ValueError: another name or kind, and as `scenes` and `translation_npz`.
        FileNotFoundError: there is no such file.
    """
    if isinstance(name, str) and name.startswith(NPZ):
        checks.one_of("kind of a file", kind, ("paired", "unpaired"))
        return translation_npz(name.removeprefix(NPZ), kind == "paired").take(train, test)
    checks.one_of("dataset", name, ("scenes", f"{NPZ}FILE"))
    counts = {k: v for k, v in (("train", train), ("test", test)) if v is not None}
    return scenes(kind, size=size, seed=seed, **counts)


def coloured(labels: Tensor) -> Tensor:
    """Label maps (n, height, width) as pictures, uint8 (n, 3, height, width)."""
    return PALETTE[labels.long()].movedim(-1, 1).contiguous()


def make_scenes(
    part: str, count: int, size: tuple[int, int], seed: int, number: int, style: str
) -> tuple[Tensor, Tensor]:
    """Pictures, and the maps that belong to them.

    Args:
        part: "train" or "test": which scenes, and which part of the photographs.
        count: how many.
        size: height and width.
        seed: of the scenes.
        number: which of a seed's sets of scenes.
        style: one of `STYLES`, or "both" for either with the same probability.

    Returns:
        uint8 (count, 3, height, width), and labels and instances as uint8
        (count, 2, height, width).
    """
    streams = np.random.SeedSequence([seed, ("train", "test").index(part), number]).spawn(2)
    for_scene, for_surface = (np.random.default_rng(stream) for stream in streams)
    images = torch.empty(count, 3, *size, dtype=torch.uint8)
    maps = torch.empty(count, 2, *size, dtype=torch.uint8)
    for start in range(0, count, CHUNK):
        n = min(CHUNK, count - start)
        drawing = draw(torch.from_numpy(for_scene.random((n, COLUMNS), dtype=np.float32)), size)
        numbers = torch.from_numpy(for_surface.random((n, COLUMNS), dtype=np.float32))
        place = slice(start, start + n)
        maps[place, 0], maps[place, 1] = drawing.labels, drawing.instances
        images[place] = render(drawing, numbers, part, style)
    return images, maps


def _uniform(numbers: Tensor) -> Uniform:
    """Takes one column of random numbers (n, columns) after the other: (n, 1, 1)."""
    columns = iter(numbers.unbind(dim=1))
    return lambda low, high: (low + (high - low) * next(columns)).view(-1, 1, 1)


def draw(numbers: Tensor, size: tuple[int, int]) -> Drawing:
    """Label maps of scenes from random numbers in [0, 1), float32 (n, `COLUMNS`).

    Lengths are in units of the image's height; things are painted from the horizon to the front.
    """
    height, width = size
    wide = width / height
    x = ((torch.arange(width) + 0.5) / height).view(1, 1, -1)
    y = ((torch.arange(height) + 0.5) / height).view(1, -1, 1)
    u = _uniform(numbers)
    horizon = u(0.34, 0.52)
    waves = u(0.01, 0.06) * (1 + (u(2, 5) * x + u(0, 6.3)).sin())
    hills = horizon - waves - u(0, 0.025) * (1 + (u(6, 12) * x + u(0, 6.3)).sin())
    labels = torch.where(y < hills, SKY, GROUND).to(torch.uint8)
    light = torch.where(
        y < hills, 1.06 - 0.18 * y / horizon, 0.86 + 0.22 * (y - horizon) / (1 - horizon)
    )
    depth = ((y - horizon) / (1 - horizon)).clamp(0, 1)

    lake = u(0, 1) < 0.6
    across = (x - u(0, 1) * wide) / u(0.25, 0.6)
    down = (y - horizon - u(0.08, 0.3)) / u(0.05, 0.13)
    shore = 1 + 0.12 * (5 * across + u(0, 6.3)).sin()
    wet = lake & (across.square() + down.square() < shore) & (labels == GROUND)
    labels[wet] = WATER
    light = torch.where(wet, 1.05 - 0.15 * (1 - depth), light)

    street = u(0, 1) < 0.65
    far, near, bend = u(0.15, 0.85) * wide, u(0.1, 0.9) * wide, u(-0.35, 0.35)
    middle = far + (near - far) * depth + bend * depth * (1 - depth)
    paved = street & ((x - middle).abs() < 0.012 + u(0.07, 0.15) * depth) & (y > hills)
    paved &= y > horizon - 0.01
    labels[paved] = ROAD
    light = torch.where(paved, 0.9 + 0.15 * depth, light)

    instances, kind = labels.clone(), torch.zeros_like(labels)
    for place in range(THINGS):
        base = horizon + (1 - horizon) * 0.95 * (place + u(0.1, 0.9)) / THINGS
        tall = (0.13 + 0.36 * (base - horizon) / (1 - horizon)) * u(0.8, 1.25)
        centre, which, here, one, two = u(0, wide), u(0, 1), u(0, 1) < 0.85, u(0, 1), u(0, 1)
        v, h = (base - y) / tall, (x - centre) / tall  # height above its foot, and to the right
        house = which < 0.36
        ground = ((h * 1.6).square() + (v * 7).square() < 1) & ~_is(labels, (SKY, TREE, HOUSE))
        light = torch.where(here & ground, light * 0.87, light)  # its shadow
        for thing, (body, lit, parts) in (
            (HOUSE, _house(h, v, one, two)), (TREE, _tree(h, v, which, one, two))
        ):  # fmt: skip
            mine = body & here & (house if thing == HOUSE else ~house)
            labels[mine] = thing
            instances[mine] = FIRST_THING + place
            light = torch.where(mine, lit, light)
            kind = torch.where(mine, parts, kind)
    return Drawing(labels, instances, light, kind, horizon)


def _is(labels: Tensor, classes: tuple[int, ...]) -> Tensor:
    return torch.stack([labels == one for one in classes]).any(dim=0)


def _house(h: Tensor, v: Tensor, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Body, light and parts of houses: walls and a roof; one window or two, and a door."""
    half, wall = 0.34 + 0.16 * one, 0.46 + 0.12 * two
    walls = (h.abs() < half) & (v > 0) & (v < wall)
    slope = 1 - (v - wall) / (0.98 - wall)
    roof = (v >= wall) & (v < 0.98) & (h.abs() < (half + 0.07) * slope)
    window = ((h.abs() - half * 0.55).abs() < 0.075) & ((v - wall * 0.62).abs() < 0.085)
    door = ((h - half * (two - 0.5) * 0.3).abs() < 0.06) & (v < wall * 0.5)
    dark = walls & (window | (door & (v > 0)))
    light = torch.where(h < half * (2 * one - 1) * 0.6, 1.06, 0.92) * torch.ones_like(v)
    parts = torch.where(dark, 2, torch.where(roof, 1, 0)).to(torch.uint8)
    return walls | roof, light, parts


def _tree(
    h: Tensor, v: Tensor, which: Tensor, one: Tensor, two: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Body, light and parts of trees: a round crown or a fir, on a trunk."""
    trunk = (h.abs() < 0.045) & (v > 0) & (v < 0.45)
    angle = torch.atan2(v - 0.62, h)
    wobble = 1 + 0.08 * (5 * angle + 6.3 * one).sin() + 0.05 * (9 * angle + 6.3 * two).sin()
    reach = torch.hypot(h / (0.75 + 0.4 * one), v - 0.62) / (0.37 * wobble)
    tier = (v * 5) % 1  # a fir's branches get narrower towards the top of each tier
    edge = (0.34 + 0.08 * two) * (1.02 - v) * (1.18 - 0.4 * tier)
    fir = which > 0.72
    crown = torch.where(fir, (v > 0.14) & (v < 1) & (h.abs() < edge), reach < 1)
    side = torch.where(fir, -h / (edge.abs() + 0.02), (-h + v - 0.62) / 0.4)
    light = 1.0 + 0.28 * side.clamp(-1, 1)
    parts = torch.where(trunk & ~crown, 2, 0).to(torch.uint8)
    return crown | trunk, light, parts


@cache
def _texture(name: str, part: str, rows: int) -> Tensor:
    """The light and dark of a photograph's part, without what changes slowly over it: float32
    (1, 1, rows, columns) of mean 0 and standard deviation 1.

    Training pictures see the left seven tenths of a photograph, test pictures the rest.
    """
    image = photograph(name).float().mean(dim=0)[None, None]
    cut = round(0.7 * image.shape[3])
    image = image[..., :cut] if part == "train" else image[..., cut:]
    columns = max(2, round(image.shape[3] * rows / image.shape[2]))
    small = F.interpolate(image, (rows, columns), mode="bilinear", antialias=True)
    if name == "moon":  # whose slow changes are the clouds
        few = F.interpolate(image, (40, 56), mode="bilinear", antialias=True)
        small = F.interpolate(few, (rows, columns), mode="bicubic")
    else:
        coarse = F.interpolate(
            F.interpolate(image, (6, 6), mode="bilinear", antialias=True),
            (rows, columns), mode="bicubic",
        )  # fmt: skip
        small = small - coarse
    return ((small - small.mean()) / small.std()).clamp(-2.5, 2.5)


def _crop(surface: Surface, part: str, n: int, size: tuple[int, int], u: Uniform) -> Tensor:
    """A crop of a surface's photograph for each of n scenes: float32 (n, height, width)."""
    height, width = size
    rows = max(4, round(height * 4 / surface.zoom))
    texture = _texture(surface.photograph, part, rows)
    columns = texture.shape[3]
    mirror = torch.where(u(0, 1) < 0.5, -1.0, 1.0)
    x = torch.arange(width).view(1, 1, -1) / surface.stretch * mirror + u(0, 1) * columns
    y = torch.arange(height).view(1, -1, 1) + u(0, 1) * rows
    places = torch.stack(
        [
            (x * 2 / columns - 1).expand(n, height, width),
            (y * 2 / rows - 1).expand(n, height, width),
        ],
        dim=-1,
    )
    images = texture.expand(n, -1, -1, -1)
    return F.grid_sample(images, places, padding_mode="reflection", align_corners=False)[:, 0]


def render(drawing: Drawing, numbers: Tensor, part: str, style: str) -> Tensor:
    """Pictures of drawn scenes, uint8 (n, 3, height, width).

    Args:
        drawing: from `draw`.
        numbers: random ones in [0, 1), float32 (n, `COLUMNS`), of crops and light. The same ones
            give the same crops in every style.
        part: "train" or "test".
        style: one of `STYLES`, or "both".
    """
    checks.one_of("style", style, (*STYLES, "both"))
    n, *size = drawing.labels.shape
    u = _uniform(numbers)
    cold, sun = u(0, 1) < 0.5, u(0.94, 1.05)
    summer = SURFACES[STYLES[0]]
    crops = torch.stack([_crop(one, part, n, (size[0], size[1]), u) for one in summer], dim=1)
    crop = crops.gather(1, drawing.labels.long()[:, None])  # (n, 1, height, width)
    shown = [_in_style(one, drawing, crop) for one in (STYLES if style == "both" else (style,))]
    image = shown[0] if len(shown) == 1 else torch.where(cold[:, None], shown[1], shown[0])
    return (image * sun[:, None]).round_().clamp_(0, 255).to(torch.uint8)


def _in_style(style: str, drawing: Drawing, crop: Tensor) -> Tensor:
    """Pictures float32 (n, 3, height, width) before the sun's strength."""
    surfaces = SURFACES[style]
    mean = torch.tensor([one.colour for one in surfaces])
    spread = torch.tensor([one.contrast for one in surfaces])
    which = drawing.labels.long()
    base = mean[which].movedim(-1, 1)
    for number, colours in ((1, ROOF), (2, DARK)):
        colour = torch.tensor(colours[style], dtype=torch.float32).view(1, 3, 1, 1)
        base = torch.where((drawing.part == number)[:, None], colour, base)
    detail = spread[which].movedim(-1, 1) * crop
    haze = _haze(drawing, torch.tensor(surfaces[SKY].colour).view(1, 3, 1, 1))
    lit = (base + detail) * drawing.light[:, None] * torch.tensor(WARM[style]).view(1, 3, 1, 1)
    return lit + haze[0] * (haze[1] - lit)


def _haze(drawing: Drawing, sky: Tensor) -> tuple[Tensor, Tensor]:
    """How much of what is far away takes the colour of the sky (n, 1, height, width), and that."""
    height = drawing.labels.shape[1]
    y = ((torch.arange(height) + 0.5) / height).view(1, -1, 1)
    near = ((y - drawing.horizon) / (1 - drawing.horizon)).clamp(0, 1)
    share = torch.where(drawing.labels == SKY, 0.45 * torch.exp(-(1 - y / drawing.horizon) * 5),
                        0.38 * torch.exp(-near * 7))  # fmt: skip
    things = (drawing.labels == TREE) | (drawing.labels == HOUSE)
    share = torch.where(things, 0.08, share.clamp(0, 0.45))
    return share[:, None], (sky * 1.06).clamp(max=250.0)
