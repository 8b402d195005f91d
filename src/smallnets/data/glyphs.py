"""glyphs10 and glyphs62: characters in real typefaces over crops of real photographs.

Made to look like street-view numbers (SVHN; Netzer et al., 2011) without a download: each 32x32 RGB
image is one character of a random face, turned, sheared, scaled and shifted, in a random colour
that stands out from what lies behind it, under uneven light, slightly blurred and noisy.

Test images come from faces and photographs that no training image shows. Whole families are held
out, not only weights of a family: the test faces are DejaVu Serif (four), Computer Modern Sans and
Computer Modern Typewriter; the test photographs are coffee, flower, gravel and motorcycle.

Image i depends on the seed and on i alone, so a smaller set is the beginning of a larger one.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smallnets.data.photographs import photograph

DIGITS = "0123456789"
CHARACTERS = DIGITS + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "abcdefghijklmnopqrstuvwxyz"

FACES = {
    "train": (
        *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
        *("DejaVuSansMono", "DejaVuSansMono-Bold"),
        *("DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
        *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
        *("cmr10", "cmb10", "cmti10", "cmmi10"),
    ),
    "test": (
        *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
        *("cmss10", "cmtt10"),
    ),
}
BACKGROUNDS = {
    "train": (
        *("astronaut", "brick", "camera", "chelsea", "china", "coins"),
        *("grass", "hubble", "moon", "retina", "rocket", "tissue"),
    ),
    "test": ("coffee", "flower", "gravel", "motorcycle"),
}

SIZE = 32  # pixels, height and width of an image
BOX = 48  # pixels, height and width of a rendered mask
CAPITAL = 24  # pixels, height of a capital H in a mask
PHOTOGRAPH = 256  # pixels, shorter side of a background photograph
CHUNK = 500  # images made at a time: keeps the intermediate tensors in cache
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # Rec. 601
TYPEFACES = Path(__file__).parent / "typefaces"  # those that matplotlib has not always had


def typeface(face: str) -> Path:
    """The file of a face: the one that lies beside this module, or else matplotlib's."""
    from matplotlib import get_data_path

    own = TYPEFACES / f"{face}.ttf"
    return own if own.exists() else Path(get_data_path()) / "fonts" / "ttf" / own.name


@cache
def glyph_masks(faces: tuple[str, ...], characters: str) -> Tensor:
    """Coverage of every character in every face: float32 in [0, 1], (faces, characters, 48, 48).

    All faces have capitals of one height; the middle of that height is the middle of the mask, and
    each character's ink is centred from left to right.
    """
    from PIL import Image, ImageDraw, ImageFont

    masks = np.zeros((len(faces), len(characters), BOX, BOX), dtype=np.uint8)
    for row, face in zip(masks, faces, strict=True):
        file = str(typeface(face))
        top = ImageFont.truetype(file, 1000).getbbox("H", anchor="ls")[1]
        font = ImageFont.truetype(file, round(-1000 * CAPITAL / top))
        for mask, character in zip(row, characters, strict=True):
            image = Image.new("L", (BOX, BOX))
            left, _, right, _ = font.getbbox(character, anchor="ls")
            where = (BOX / 2 - (left + right) / 2, (BOX + CAPITAL) / 2)
            ImageDraw.Draw(image).text(where, character, fill=255, font=font, anchor="ls")
            mask[:] = np.array(image)
    return torch.from_numpy(masks).float() / 255


@cache
def _background(name: str) -> Tensor:
    """A photograph, its shorter side at 256 pixels: float32 in [0, 1], (1, 3, height, width)."""
    image = photograph(name).unsqueeze(0).float() / 255
    ratio = PHOTOGRAPH / min(image.shape[-2:])
    size = [round(ratio * side) for side in image.shape[-2:]]
    return F.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1)


def make_glyphs(
    characters: str, part: str, count: int, seed: int, roughness: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Make `count` images of `characters`, classes in equal shares.

    Args:
        characters: one class each, in label order.
        part: "train" or "test": which faces and photographs are used.
        count: number of images.
        seed: image i depends on `seed` and i, not on `count`.
        roughness: from 0 to 1, scales how much pose, size, blur and noise vary.

    Returns:
        Images uint8 (count, 3, 32, 32) and labels int64 (count,).
    """
    streams = np.random.SeedSequence([seed, ("train", "test").index(part)]).spawn(3)
    for_labels, for_pose, for_noise = (np.random.default_rng(s) for s in streams)
    rounds = -(-count // len(characters))
    # Every run of len(characters) images shows each class once, in random order.
    order = np.argsort(for_labels.random((rounds, len(characters))), axis=1)
    labels = torch.from_numpy(order.reshape(-1)[:count].copy())
    images = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8)
    for start in range(0, count, CHUNK):
        chunk = slice(start, start + CHUNK)
        images[chunk] = _compose(labels[chunk], characters, part, roughness, for_pose, for_noise)
    return images, labels


def _compose(
    labels: Tensor,
    characters: str,
    part: str,
    roughness: float,
    for_pose: np.random.Generator,
    for_noise: np.random.Generator,
) -> Tensor:
    """One chunk of images, uint8 (n, 3, 32, 32)."""
    n = len(labels)
    columns = iter(torch.from_numpy(for_pose.random((n, 32), dtype=np.float32)).unbind(dim=1))

    def uniform(low: float, high: float) -> Tensor:
        return (low + (high - low) * next(columns)).view(n, 1, 1, 1)

    masks = glyph_masks(FACES[part], characters)
    face = uniform(0, len(masks)).long().view(n)
    turn, shear = roughness * uniform(-0.4, 0.4), roughness * uniform(-0.3, 0.3)
    height = 1 - roughness * uniform(0, 0.5)  # of the mask: capitals of 12 to 24 pixels
    width = height * uniform(0.8, 1.2)
    # Where in the mask each output pixel looks: the turn, shift, shear and scale undone in turn.
    u, v = _pixel_grid(turn)
    u, v = u - roughness * uniform(-5, 5), v - roughness * uniform(-5, 5)
    u = u - shear * v
    ink = F.grid_sample(
        masks[face, labels].unsqueeze(1),
        torch.cat([u / width, v / height], dim=1).permute(0, 2, 3, 1) / (BOX / 2),
        align_corners=False,
    )

    image = _crops(part, uniform) * uniform(0.5, 1) + uniform(0, 0.3)
    behind = (ink * image * LUMA).sum((1, 2, 3)) / ink.sum((1, 2, 3)).clamp(min=1e-6)
    colour = _standing_out(
        torch.cat([uniform(0, 1), uniform(0, 1), uniform(0, 1)], dim=1),
        behind.view(n, 1, 1, 1),
        gap=uniform(0.15, 0.5),
        where=uniform(0, 1),
    )
    image = image + ink * uniform(0.7, 1) * (colour - image)

    ramp_u, ramp_v = _pixel_grid(uniform(-3.2, 3.2))
    image = image * (1 + uniform(0, 0.4) * (ramp_u + ramp_v) / SIZE)
    image = image + roughness * uniform(0, 1) * (_blurred(image) - image)
    noise = torch.from_numpy(for_noise.standard_normal(image.shape, dtype=np.float32))
    image = image + roughness * uniform(0, 0.1) * noise
    return (image * 255).round_().clamp_(0, 255).to(torch.uint8)


def _pixel_grid(turn: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of the output pixels from the image's centre, turned by `turn` radians.

    Args:
        turn: (n, 1, 1, 1).

    Returns:
        u (to the right) and v (down), in pixels, each (n, 1, 32, 32).
    """
    middle = torch.arange(SIZE, dtype=torch.float32) - (SIZE - 1) / 2
    across, down = middle.view(1, 1, 1, SIZE), middle.view(1, 1, SIZE, 1)
    return turn.cos() * across + turn.sin() * down, turn.cos() * down - turn.sin() * across


def _crops(part: str, uniform: Callable[[float, float], Tensor]) -> Tensor:
    """Random crops of random photographs of `part`, mirrored or not: (n, 3, 32, 32) in [0, 1]."""
    names = BACKGROUNDS[part]
    chosen = uniform(0, len(names)).long().flatten()
    right, down, zoom = uniform(-1, 1), uniform(-1, 1), uniform(0.7, 2)
    u, v = _pixel_grid(uniform(-0.3, 0.3))
    u, v = zoom * u * uniform(-1, 1).sign(), zoom * v
    crops = torch.empty(len(chosen), 3, SIZE, SIZE)
    for number, name in enumerate(names):
        mine = (chosen == number).nonzero().flatten()
        if len(mine) == 0:
            continue
        source = _background(name)
        height, width = source.shape[-2:]
        # The crop's centre stays half a crop away from the edge of the photograph.
        x = u[mine] / (width / 2) + right[mine] * (1 - zoom[mine] * SIZE / width)
        y = v[mine] / (height / 2) + down[mine] * (1 - zoom[mine] * SIZE / height)
        grid = torch.stack([x, y], dim=-1).view(1, -1, SIZE, 2)
        seen = F.grid_sample(source, grid, padding_mode="reflection", align_corners=False)
        crops[mine] = seen.view(3, len(mine), SIZE, SIZE).transpose(0, 1)
    return crops


def _standing_out(colour: Tensor, behind: Tensor, gap: Tensor, where: Tensor) -> Tensor:
    """Shade or tint `colour` until its luminance differs from `behind` by `gap` or more.

    Args:
        colour: (n, 3, 1, 1) in [0, 1].
        behind: luminance of the background, (n, 1, 1, 1) in [0, 1].
        gap: least difference; where neither side has room for it, white.
        where: in [0, 1], picks a luminance among the allowed ones, darkest first.

    Returns:
        (n, 3, 1, 1) in [0, 1].
    """
    darker, lighter = (behind - gap).clamp(min=0), (1 - behind - gap).clamp(min=0)
    place = where * (darker + lighter)
    target = torch.where(place < darker, place, behind + gap + place - darker).clamp(0, 1)
    now = (colour * LUMA).sum(1, keepdim=True).clamp(1e-3, 1 - 1e-3)
    shade = colour * target / now
    tint = 1 - (1 - colour) * (1 - target) / (1 - now)
    return torch.where(target < now, shade, tint).clamp(0, 1)


def _blurred(image: Tensor) -> Tensor:
    """Binomial blur (1 2 1) / 4 in both directions, edges repeated: (n, c, h, w)."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16
