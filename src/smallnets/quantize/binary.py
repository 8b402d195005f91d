"""One bit: signs in place of weights and activations, and products that only count bits.

BinaryConnect (Courbariaux et al., 2015) and BNN (Hubara et al., 2016) take the sign; BWN and
XNOR-Net (Rastegari et al., 2016) scale it by the mean size of every filter.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def sign(x: Tensor, clip: float | None = 1.0) -> Tensor:
    """Return +1 where x >= 0 and -1 elsewhere (0 counts as positive, unlike `torch.sign`).

    The gradient passes where |x| <= `clip` and is 0 elsewhere; with None it passes everywhere.
    """
    signs: Tensor = _Sign.apply(x, clip)
    return signs


def filter_scale(w: Tensor) -> Tensor:
    """Return the mean size of every filter's weights, (filters, 1, ...), the best least-squares
    factor of their signs (XNOR-Net, equation 6).

    Raises ValueError for weights that are not finite.
    """
    scale = w.abs().mean(dim=tuple(range(1, w.dim())), keepdim=True)
    if not bool(scale.isfinite().all()):
        raise ValueError(f"binary weights need finite ones; got shape {tuple(w.shape)}")
    return scale


def binary_weights(w: Tensor) -> Tensor:
    """Return filter_scale(w) * sign(w), differentiated through both (BWN).

    Args:
        w: (filters, ...), at least two dimensions.
    """
    return filter_scale(w) * sign(w)


def xnor_latent(w: Tensor) -> Tensor:
    """Return the weights that XNOR-Net binarises: centred over input channels, clipped to [-1, 1].

    Args:
        w: (filters, channels, ...); filters of one channel (depthwise) are not centred, which would
            leave nothing of them.
    """
    centred = w - w.mean(dim=1, keepdim=True) if w.shape[1] > 1 else w
    return centred.clamp(-1, 1)


def pack_signs(signs: Tensor) -> NDArray[np.uint8]:
    """Return vectors of +1 and -1, (n, length), as bits, (n, ceil(length / 8)) bytes.

    Raises ValueError for any other value.
    """
    values = signs.detach().cpu().numpy()
    if values.ndim != 2 or not np.isin(values, (-1, 1)).all():
        raise ValueError(
            f"signs must be rows of +1 and -1; got shape {values.shape} with values from "
            f"{values.min()} to {values.max()}"
        )
    return np.packbits(values > 0, axis=1)


def binary_product(a: NDArray[np.uint8], b: NDArray[np.uint8], length: int) -> NDArray[np.int64]:
    """Return the (n, m) dot products of packed sign vectors: length - 2 popcount(a xor b).

    Args:
        a, b: (n, bytes) and (m, bytes), from `pack_signs`.
        length: how many signs a row holds.
    """
    if not a.shape[1] == b.shape[1] == -(-length // 8):
        raise ValueError(
            f"rows must hold {-(-length // 8)} bytes for {length} signs; got {a.shape[1]} and "
            f"{b.shape[1]}"
        )
    different = _ONES[a[:, None] ^ b[None]].sum(axis=2, dtype=np.int64)
    return length - 2 * different


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, clip: float | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.clip = clip
        return torch.where(x >= 0, 1, -1).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (upstream,) = gradients
        (x,) = ctx.saved_tensors
        return upstream if ctx.clip is None else upstream * (x.abs() <= ctx.clip), None
