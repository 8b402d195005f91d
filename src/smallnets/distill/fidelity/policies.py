"""What a student is shown while it is being distilled: the paper's data policies as batch views.

Section 5.1 and appendix of the paper. Crops and flips stay under every policy but "none". The
teacher labels the very images that the student sees, so a policy needs no labels, and mixing blends
images only.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.data import Augmentation, Dataset, beta_share, blend

# The luminance and colour-difference axes in which a hue is an angle (YIQ).
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def rotate(x: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Turn each image (n, c, h, w) by an angle uniform in +-`degrees`, mirrored at its edges."""
    angle = (2 * _uniform(len(x), x, generator) - 1) * math.radians(
        checks.between("degrees", degrees, 0, 180)
    )
    height, width = x.shape[2:]
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # The grid is in units of half sides, so the sine carries the ratio of the sides.
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    grid = F.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(x.shape), False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def flip_upside_down(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image from top to bottom with probability one half."""
    mirror = _uniform(len(x), x, generator) < 0.5
    return torch.where(mirror.view(-1, 1, 1, 1), x.flip(2), x)


def colour_jitter(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image, in this order.

    Factors are uniform in 1 +- `strength`; the hue turns by up to `strength` of a full circle, in
    the plane of the two colour-difference axes. Only images of three channels have saturation and
    hue.

    Args:
        x: images (n, channels, height, width) within [0, 1].
        strength: 0 changes nothing; at most 0.5.
    """
    checks.between("strength", strength, 0, 0.5)

    def draw() -> Tensor:
        return (strength * (2 * _uniform(len(x), x, generator) - 1)).view(-1, 1, 1, 1)

    x = x * (1 + draw())
    middle = x.mean(dim=(1, 2, 3), keepdim=True)
    x = middle + (x - middle) * (1 + draw())
    if x.shape[1] == 3:
        to_yiq = torch.tensor(_TO_YIQ, dtype=x.dtype, device=x.device)
        light, i, q = torch.einsum("ij,njhw->nihw", to_yiq, x).split(1, dim=1)
        more, turn = 1 + draw(), 2 * math.pi * draw()
        turned = [light, more * (turn.cos() * i - turn.sin() * q)]
        turned.append(more * (turn.sin() * i + turn.cos() * q))
        x = torch.einsum("ij,njhw->nihw", to_yiq.inverse(), torch.cat(turned, dim=1))
    return x.clamp(0, 1)


def mixup_inputs(x: Tensor, generator: torch.Generator, alpha: float = 1.0) -> Tensor:
    """Blend the images of a batch with those of a permutation of it; labels are the teacher's
    business.

    One share for the whole batch, Beta(alpha, alpha); uniform for the paper's alpha = 1.
    """
    share = beta_share(alpha, (), generator)
    return blend(x, x[torch.randperm(len(x), generator=generator, device=x.device)], share)


def real_and_synthetic(images: int, ratio: float, batch_size: int) -> tuple[int, int, int]:
    """How `images` real ones are stretched by synthetic ones, as in the published batches.

    Args:
        images: real ones in the data set.
        ratio: share of synthetic rows in a batch, in [0, 1).
        batch_size: real and synthetic rows together.

    Returns:
        Images of both kinds in an epoch, real rows and synthetic rows of a batch.

    Raises:
        ValueError: the ratio is outside [0, 1).
    """
    if isinstance(ratio, bool) or not 0 <= ratio < 1:
        raise ValueError(f"ratio must be at least 0 and less than 1; got {ratio!r}")
    checks.whole("images", images, 1)
    synthetic = int(ratio * checks.whole("batch_size", batch_size, 1))
    return int(images / (1 - ratio)), batch_size - synthetic, synthetic


@dataclass(frozen=True, eq=False)
class Policy(Augmentation):
    """A view of a training batch: crops and flips, and what the policy adds.

    Attributes:
        crop, flip, cutout: as in `Augmentation`.
        rotation: largest angle in degrees.
        vertical: whether half of the images are turned upside down.
        jitter: strength of `colour_jitter`.
        mixing: whether images are blended, see `mixup_inputs`.
        noise: probability with which an image is replaced by uniform noise.
        extra: uint8 images (n, channels, height, width), some of which take the last rows of
            every batch; None is none.
        share: of those rows in a batch, in [0, 1).
        mean, std: of the channels, as in `Dataset`, by which images have been normalised.

    Raises:
        ValueError: a number is out of range, or extra images and their share do not go together.
    """

    rotation: float = 0.0
    vertical: bool = False
    jitter: float = 0.0
    mixing: bool = False
    noise: float = 0.0
    extra: Tensor | None = None
    share: float = 0.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.between("rotation", self.rotation, 0, 180)
        checks.between("jitter", self.jitter, 0, 0.5)
        checks.between("noise", self.noise, 0, 1)
        real_and_synthetic(1, self.share, 1)
        if (self.extra is not None and len(self.extra) > 0) != (self.share > 0):
            raise ValueError(
                "extra images need a share above 0, and a share needs extra images; "
                f"got share {self.share} and {'no' if self.extra is None else len(self.extra)} "
                "images"
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Changed copy of normalised images (n, channels, height, width)."""
        mean, std = (
            torch.tensor(v, dtype=x.dtype, device=x.device).view(-1, 1, 1)
            for v in (self.mean, self.std)
        )
        if self.extra is not None:
            _, real, synthetic = real_and_synthetic(len(x), self.share, len(x))
            place = torch.randint(
                len(self.extra), (synthetic,), generator=generator, device=x.device
            )
            drawn = self.extra[place.to(self.extra.device)].to(x.device)
            x = torch.cat([x[:real], (drawn.to(x.dtype) / 255 - mean) / std])
        x = super().__call__(x, generator)
        if self.rotation:
            x = rotate(x, self.rotation, generator)
        if self.vertical:
            x = flip_upside_down(x, generator)
        if self.jitter:
            x = (colour_jitter(x * std + mean, self.jitter, generator) - mean) / std
        if self.mixing:
            x = mixup_inputs(x, generator)
        if self.noise:
            replaced = _uniform(len(x), x, generator) < self.noise
            noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = torch.where(replaced.view(-1, 1, 1, 1), (noise - mean) / std, x)
        return x


def policies(
    dataset: Dataset,
    base: Augmentation,
    generated: Tensor | None = None,
    foreign: Tensor | None = None,
    share: float = 0.2,
) -> dict[str, Policy]:
    """The paper's policies by name, for images of a data set.

    Args:
        dataset: whose channels' mean and deviation the images are normalised by.
        base: crops and flips, the "baseline" that stays under all policies but "none", which shows
            the teacher's training images as they are.
        generated, foreign: uint8 images from a generator and from another data set; without them
            their policies are left out.
        share: of generated or foreign images in a batch; the paper's is one to four real ones.
    """

    def view(**extra: object) -> Policy:
        mean, std = tuple(dataset.mean.tolist()), tuple(dataset.std.tolist())
        kept = {"crop": base.crop, "flip": base.flip, "mean": mean, "std": std}
        return Policy(**{**kept, **extra})  # type: ignore[arg-type]

    combined = {"rotation": 20.0, "vertical": True, "jitter": 0.2}
    found = {
        "none": view(crop=0, flip=False),
        "baseline": view(),
        "rotation": view(rotation=20.0),
        "vertical flip": view(vertical=True),
        "colour jitter": view(jitter=0.2),
        "CombAug": view(**combined),
        "MixUp": view(mixing=True),
        "noise": view(noise=0.2),
    }
    if generated is not None:
        found["generated"] = view(extra=generated, share=share)
    if foreign is not None:
        found["out of domain"] = view(extra=foreign, share=share)
    return found


def _uniform(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=like.device, dtype=like.dtype)
