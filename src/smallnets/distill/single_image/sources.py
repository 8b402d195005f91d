"""What patches are cut out of: photographs that come with the packages, generated pictures as
controls, and a reader's own file.
"""

import torch
from torch import Tensor

from smallnets import checks
from smallnets.data import photograph, photograph_file, photograph_names

FILE = "file:"
GENERATED = ("noise", "blank", "gradient", "universe")


def source_names() -> tuple[str, ...]:
    """What `source_image` accepts; "file:PHOTO.jpg" stands for any picture of your own."""
    return (*photograph_names(), *GENERATED, f"{FILE}PHOTO")


def source_image(
    name: str, size: tuple[int, int] = (512, 512), seed: int = 0, *, at_most: int | None = None
) -> Tensor:
    """One photograph, or a picture that plays its part: uint8 (3, height, width).

    Args:
        name: one of `source_names()`. "noise" is uniform in every pixel and channel, "blank" one
            grey, "gradient" a smooth change between four colours, "universe" a dark picture with
            few bright spots.
        size: height and width of a generated picture.
        seed: of a generated picture.
        at_most: longest side; a larger picture is reduced (antialiased) to it. None keeps it.

    Raises:
        ValueError: an unknown name, or a file that holds no picture.
        FileNotFoundError: there is no such file.
    """
    if isinstance(name, str) and name.startswith(FILE):
        image = photograph_file(name.removeprefix(FILE))
    elif checks.one_of("source", name, source_names()) in GENERATED:
        image = generated_image(name, size, seed)
    else:
        image = photograph(name)
    if at_most is None or max(image.shape[1:]) <= checks.whole("at_most", at_most, 2):
        return image
    scale = at_most / max(image.shape[1:])
    small = [max(2, round(side * scale)) for side in image.shape[1:]]
    reduced = torch.nn.functional.interpolate(
        image[None].float(), small, mode="bicubic", antialias=True
    )
    return reduced[0].round().clamp(0, 255).to(torch.uint8)


def generated_image(name: str, size: tuple[int, int] = (512, 512), seed: int = 0) -> Tensor:
    """A picture that is no photograph, see `source_image`: uint8 (3, height, width)."""
    checks.one_of("generated picture", name, GENERATED)
    height, width = (checks.whole("size of a picture", side, 2) for side in size)
    generator = torch.Generator().manual_seed(checks.whole("seed", seed, 0))
    if name == "noise":
        return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    if name == "blank":
        return torch.full((3, height, width), 128, dtype=torch.uint8)
    if name == "gradient":
        corners = torch.rand(1, 3, 2, 2, generator=generator) * 255
        smooth = torch.nn.functional.interpolate(
            corners, (height, width), mode="bilinear", align_corners=True
        )
        return smooth[0].round().to(torch.uint8)
    return _universe(height, width, generator)


def _universe(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Black sky with one star or blurred galaxy on some 2,000 pixels."""
    count = max(1, height * width // 2000)
    sky = torch.zeros(3, height, width)
    for radius, share in ((0.7, 0.8), (2.0, 0.15), (5.0, 0.05)):
        stars = torch.zeros(3, height, width)
        many = max(1, round(share * count))
        y = torch.randint(0, height, (many,), generator=generator)
        x = torch.randint(0, width, (many,), generator=generator)
        light = torch.rand(many, generator=generator) ** 2
        tint = 0.6 + 0.4 * torch.rand(3, many, generator=generator)
        stars[:, y, x] = light * tint
        sky += _blurred(stars, radius)
    return (255 * sky.clamp(0, 1)).round().to(torch.uint8)


def _blurred(image: Tensor, radius: float) -> Tensor:
    """Spread by a bell of height 1 and of this radius."""
    reach = torch.arange(-int(3 * radius) - 1, int(3 * radius) + 2)
    bell = torch.exp(-reach.float().square() / (2 * radius**2))
    across = torch.nn.functional.conv2d(
        image[:, None], bell.view(1, 1, 1, -1), padding=(0, len(bell) // 2)
    )
    return torch.nn.functional.conv2d(across, bell.view(1, 1, -1, 1), padding=(len(bell) // 2, 0))[
        :, 0
    ]


def as_photographs(images: Tensor) -> Tensor:
    """One photograph or several as uint8 (k, 3, height, width).

    Args:
        images: (3, H, W) or (k, 3, H, W), uint8, or floating-point numbers from 0 to 1; one channel
            instead of three is repeated.

    Raises:
        ValueError: another shape or type, a side below 2 pixels, or numbers that are not finite or
            outside 0 to 1.
    """
    if not isinstance(images, Tensor) or images.dim() not in (3, 4):
        given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"a photograph must be a tensor (3, height, width); got {given}")
    images = images if images.dim() == 4 else images[None]
    if images.shape[1] not in (1, 3) or min(images.shape[2:]) < 2 or len(images) == 0:
        raise ValueError(
            "a photograph must have 3 channels, or 1, and sides of at least 2 pixels; "
            f"got {tuple(images.shape[1:])} (`photograph_file` converts what a file holds)"
        )
    if images.is_floating_point():
        if not bool(images.isfinite().all()):
            raise ValueError("a photograph must be finite; got NaN or infinity")
        if images.min() < 0 or images.max() > 1:
            raise ValueError(
                "a photograph of floating-point numbers must lie between 0 and 1; "
                f"got {images.min():g} to {images.max():g}"
            )
        images = (images * 255).round().to(torch.uint8)
    if images.dtype != torch.uint8:
        raise ValueError(f"a photograph must be uint8 or floating point; got {images.dtype}")
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
