"""Centred kernel alignment: how alike two representations of the same examples are.

Kornblith et al. (ICML 2019). With K and L the kernels of both sides over the same n examples, each
centred in rows and columns,

    HSIC(K, L) = sum_ij K_ij L_ij,    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)).

Examples are the rows. A feature map is first averaged over its positions. (The published code of
Stanton et al., 2021, averages over channels and compares columns of the image instead of examples;
its numbers are therefore another quantity, and are not reproduced here.)
"""

import torch
from torch import Tensor

from smallnets import checks
from smallnets.losses import check_finite

KERNELS = ("rbf", "linear")


def hsic(kernel_a: Tensor, kernel_b: Tensor) -> Tensor:
    """Sum of the products of two centred kernels (n, n); a scalar without a normalisation.

    Raises:
        ValueError: the kernels are not finite, or not square and of one shape.
    """
    if kernel_a.shape != kernel_b.shape or kernel_a.shape != 2 * kernel_a.shape[:1]:
        raise ValueError(
            "kernels must be square and of one shape; "
            f"got {tuple(kernel_a.shape)} and {tuple(kernel_b.shape)}"
        )
    check_finite("kernels", kernel_a)
    check_finite("kernels", kernel_b)
    return (_centred(kernel_a) * _centred(kernel_b)).sum()


def kernel_matrix(rows: Tensor, kernel: str = "rbf", sigma: float | None = None) -> Tensor:
    """Similarities (n, n) of examples (n, features): inner products, or exp(-d^2 / (2 sigma^2)).

    Args:
        rows: float64 (n, features).
        kernel: "rbf" or "linear".
        sigma: width of the "rbf"; None takes sigma^2 = median of the non-zero squared distances.

    Raises:
        ValueError: an unknown kernel, numbers that are not finite, or examples that are all alike.
    """
    checks.one_of("kernel", kernel, KERNELS)
    check_finite("representations", rows)
    gram = rows @ rows.T
    if kernel == "linear":
        return gram
    norms = gram.diagonal()
    squared = (norms[:, None] + norms[None, :] - 2 * gram).clamp_min(0).fill_diagonal_(0)
    if sigma is None:
        apart = squared[squared > 0]
        checks.at_least("number of examples that differ", apart.numel(), 1)
        variance = float(apart.quantile(0.5)) if apart.numel() < 2**24 else float(apart.median())
    else:
        variance = checks.above("sigma", sigma, 0) ** 2
    return torch.exp(-squared / (2 * variance))


def cka(a: Tensor, b: Tensor, kernel: str = "rbf", sigma: float | None = None) -> float:
    """Alignment of two representations, 0 to 1; 1 for a rotated, scaled or shifted copy.

    Args:
        a, b: (n, features), or feature maps (n, channels, height, width) of the same n >= 3
            examples; numbers of features may differ.
        kernel, sigma: see `kernel_matrix`; each side gets its own median.

    Raises:
        ValueError: fewer than three examples, different numbers of them, another number of
            dimensions, an unknown kernel, features that are not finite or the same for all
            examples.
    """
    checks.one_of("kernel", kernel, KERNELS)
    sides = []
    for x in (a, b):
        if x.dim() not in (2, 4):
            raise ValueError(
                "representations must be (n, features) or (n, channels, height, width); "
                f"got {tuple(x.shape)}"
            )
        sides.append((x.double().mean(dim=(2, 3)) if x.dim() == 4 else x.double()).detach().cpu())
    if len(a) != len(b):
        raise ValueError(f"both sides must show the same examples; got {len(a)} and {len(b)}")
    checks.at_least("number of examples", len(a), 3)
    for rows in sides:
        check_finite("representations", rows)
        if bool((rows == rows[0]).all()):
            raise ValueError("features must differ between examples; got the same for all")
    if kernel == "linear":  # the same from features, of which there are fewer than examples
        left, right = (rows - rows.mean(dim=0) for rows in sides)
        shared = (left.T @ right).square().sum()
        return (shared / ((left.T @ left).norm() * (right.T @ right).norm())).item()
    one, other = (kernel_matrix(rows, kernel, sigma) for rows in sides)
    return (hsic(one, other) / (hsic(one, one) * hsic(other, other)).sqrt()).item()


def _centred(kernel: Tensor) -> Tensor:
    return kernel - kernel.mean(dim=0) - kernel.mean(dim=1, keepdim=True) + kernel.mean()
