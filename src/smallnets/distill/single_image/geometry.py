"""From a pixel of a patch to a place in the photograph: one affine map a patch.

A map is (n, 2, 3): (x, y) = M (u, v, 1) with u, v the pixel's centre in the patch. It is composed
of what happens to a patch from its end to its beginning: the middle of the resized box, the flip,
the inverse of rotation and shear about the centre, the box's size and place.
"""

import math

import torch
from torch import Tensor

from smallnets.distill.single_image.parameters import PatchParameters
from smallnets.distill.single_image.settings import PatchSettings


def inverse_affine(angle: Tensor, shear: Tensor) -> Tensor:
    """The inverse of a rotation after a shear, about the origin, float64 (n, 2, 2).

    Args:
        angle: degrees (n,).
        shear: degrees (n, 2) along x and y.
    """
    turn, sx, sy = (torch.deg2rad(x.double()) for x in (angle, shear[:, 0], shear[:, 1]))
    a = torch.cos(turn - sy) / torch.cos(sy)
    b = -torch.cos(turn - sy) * torch.tan(sx) / torch.cos(sy) - torch.sin(turn)
    c = torch.sin(turn - sy) / torch.cos(sy)
    d = -torch.sin(turn - sy) * torch.tan(sx) / torch.cos(sy) + torch.cos(turn)
    # The determinant of [[a, b], [c, d]] is 1.
    return torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2)


def inverse_matrix(angle: Tensor, shear: Tensor, side: int) -> Tensor:
    """The same about the centre of a square of `side` pixels: output -> input place, (n, 2, 3).

    Centres of pixels are half numbers, so that the square's centre is side / 2.
    """
    linear = inverse_affine(angle, shear)
    # Sums written out: products of matrices may round otherwise in another batch.
    shift = side / 2 - linear.sum(dim=2) * (side / 2)
    return torch.cat([linear, shift[:, :, None]], dim=2)


def patch_to_box(parameters: PatchParameters, settings: PatchSettings) -> Tensor:
    """Place in the resized box of each pixel of a patch, (n, 2, 3)."""
    side = settings.resized
    matrix = inverse_matrix(parameters.angle, parameters.shear, side)
    linear, shift = matrix[:, :, :2], matrix[:, :, 2:]
    # The patch begins at the margin; upside down, it is read from the other end.
    down = 1 - 2 * parameters.flip.to(linear)
    begin = torch.full_like(down, settings.margin)
    start = torch.stack([begin, torch.where(parameters.flip, side - begin, begin)], dim=1)
    shift = shift + (linear * start[:, None, :]).sum(dim=2, keepdim=True)
    return torch.stack([linear[:, :, 0], linear[:, :, 1] * down[:, None], shift[:, :, 0]], dim=2)


def box_to_photograph(boxes: Tensor, side: int, matrix: Tensor) -> Tensor:
    """Maps into the resized box (n, 2, 3) made maps into the photograph.

    Args:
        boxes: (n, 4) top, left, height, width in the photograph.
        side: of the resized box.
        matrix: (n, 2, 3).
    """
    boxes = boxes.to(matrix)
    scale = boxes[:, [3, 2]] / side
    matrix = matrix * scale[:, :, None]
    matrix[:, :, 2] += boxes[:, [1, 0]]
    return matrix


def photograph_pixels(boxes: Tensor, side: int) -> Tensor:
    """Pixels of the photograph on one of the resized box, as the mean over both axes, (n,)."""
    return (boxes[:, 2] * boxes[:, 3]).double().sqrt() / side


def pyramid_level(pixels: Tensor) -> Tensor:
    """Level of the pyramid, each smaller by sqrt(2), that suits a reduction; enlarging takes 0."""
    return (2 * pixels.log2()).round().clamp_min(0).long()


def leaves(matrix: Tensor, size: int, side: float) -> Tensor:
    """Whether any pixel of a patch lies outside the resized box, bool (n,); corners decide."""
    first, last = 0.5, size - 0.5
    corners = matrix.new_tensor(
        [[first, first, 1], [first, last, 1], [last, first, 1], [last, last, 1]]
    )
    places = (matrix[:, :, None, :] * corners).sum(dim=3)
    return ((places < 0) | (places >= side)).flatten(1).any(dim=1)


def reduction(level: int) -> float:
    """Factor on the side of the photograph at a level of the pyramid."""
    return math.sqrt(2) ** -level
