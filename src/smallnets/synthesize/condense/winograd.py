"""3x3 convolutions with a quarter of the multiplications (Winograd 1980; Lavin & Gray, CVPR 2016,
arXiv:1509.09308): F(4x4, 3x3), for maps whose channels lie last in memory.

A tile of 4x4 outputs depends on 6x6 inputs. Both polynomials are evaluated at six points a side,
0, 1, -1, 2, -2 and infinity, so that the convolution becomes 36 products of matrices, and a tile
takes 36 multiplications where a direct convolution takes 144:

    Y = A^T [ (G w G^T) * (B^T d B) ] A,    dL/dw = G^T [ (A dL/dY A^T) * (B^T d B) ] G.

The gradient with respect to the inputs is a convolution of dL/dY again. Rounding in float32
shows in the sixth digit, a few times as much as in a direct convolution.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

TILE = 4  # outputs a side of a tile
POINTS = TILE + 2
G = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
)  # fmt: skip


def tiles(height: float, width: float) -> bool:
    """Whether a map consists of whole tiles."""
    return height % TILE == 0 and width % TILE == 0


def at_points(weight: Tensor) -> Tensor:
    """Weights (outputs, inputs, 3, 3) -> G w G^T, (36, inputs, outputs)."""
    nine = weight.permute(2, 3, 1, 0).flatten(0, 1)
    return torch.tensordot(_both_sides(weight), nine, 1)


def weight_gradient(products: Tensor) -> Tensor:
    """dL/dw (outputs, inputs, 3, 3) of the products (36, inputs, outputs) of inputs and dL/dY."""
    nine = torch.tensordot(_both_sides(products).T, products, 1)
    return nine.unflatten(0, (3, 3)).permute(3, 2, 0, 1)


def _both_sides(like: Tensor) -> Tensor:
    """(36, 9): G on both sides of a 3x3 matrix."""
    g = torch.tensor(G, dtype=torch.float64)
    return torch.kron(g, g).to(like.dtype)


def turned(weight: Tensor) -> Tensor:
    """The weights with which dL/dY is convolved for the gradient of the inputs."""
    return weight.flip(2, 3).transpose(0, 1)


def inputs_at_points(x: Tensor) -> Tensor:
    """Maps (n, height, width, channels) of whole tiles -> B^T d B, (36, tiles, channels)."""
    n, height, width, channels = x.shape
    down, across = height // TILE, width // TILE
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    rows = x.new_empty(POINTS, n, down, width + 2, channels)
    _inputs([padded[:, k : k + TILE * down - 3 : TILE] for k in range(POINTS)], rows)
    found = x.new_empty(POINTS, POINTS, n, down, across, channels)
    columns = [rows[..., k : k + TILE * across - 3 : TILE, :] for k in range(POINTS)]
    _inputs(columns, found.transpose(0, 1))
    return found.view(POINTS * POINTS, -1, channels)


def outputs_at_points(x: Tensor) -> Tensor:
    """Gradients dL/dY (n, height, width, channels) -> A dL/dY A^T, (36, tiles, channels)."""
    n, height, width, channels = x.shape
    down, across = height // TILE, width // TILE
    rows = x.new_empty(POINTS, n, down, width, channels)
    _adjoint([x[:, k::TILE] for k in range(TILE)], rows)
    found = x.new_empty(POINTS, POINTS, n, down, across, channels)
    _adjoint([rows[..., k::TILE, :] for k in range(TILE)], found.transpose(0, 1))
    return found.view(POINTS * POINTS, -1, channels)


def from_points(m: Tensor, n: int, height: int, width: int) -> Tensor:
    """Products (36, tiles, channels) -> maps A^T m A, (n, height, width, channels)."""
    channels = m.shape[2]
    down, across = height // TILE, width // TILE
    each = m.view(POINTS, POINTS, n, down, across, channels)
    rows = m.new_empty(TILE, *each.shape[1:])
    _outputs(each, rows)
    found = m.new_empty(n, down, TILE, across, TILE, channels)
    _outputs(rows.transpose(0, 1), found.permute(4, 2, 0, 1, 3, 5))
    return found.view(n, height, width, channels)


def convolve(points: Tensor, weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Convolution with padding 1.

    Args:
        points: of the inputs, see `inputs_at_points`.
        weight: see `at_points`.
        shape: (n, height, width, ...) of the maps.

    Returns:
        (n, height, width, outputs).
    """
    return from_points(torch.bmm(points, weight), *shape[:3])


def _inputs(d: Sequence[Tensor], out: Tensor) -> None:
    """B^T of six parts, written to the six of `out`."""
    torch.sub(d[4], d[2], alpha=5, out=out[0]).add_(d[0], alpha=4)
    torch.sub(d[5], d[3], alpha=5, out=out[5]).add_(d[1], alpha=4)
    even, odd = torch.sub(d[4], d[2], alpha=4), torch.sub(d[3], d[1], alpha=4)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    torch.sub(d[4], d[2], out=even)
    torch.sub(d[3], d[1], out=odd)
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])


def _outputs(m: Tensor, out: Tensor) -> None:
    """A^T of six parts, written to the four of `out`."""
    even, odd = m[1] + m[2], m[1] - m[2]
    even2, odd2 = m[3] + m[4], m[3] - m[4]
    torch.add(even, m[0], out=out[0]).add_(even2)
    torch.add(odd, odd2, alpha=2, out=out[1])
    torch.add(even, even2, alpha=4, out=out[2])
    torch.add(odd, odd2, alpha=8, out=out[3]).add_(m[5])


def _adjoint(y: Sequence[Tensor], out: Tensor) -> None:
    """A of four parts, written to the six of `out`."""
    out[0].copy_(y[0])
    out[5].copy_(y[3])
    even, odd = y[0] + y[2], y[1] + y[3]
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    torch.add(y[0], y[2], alpha=4, out=even)
    torch.add(y[1], y[3], alpha=4, out=odd)
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])
