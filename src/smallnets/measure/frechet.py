"""How far made images are from real ones, by the features that some network sees in them.

FID (Heusel et al., 2017) compares two normal distributions, KID (Binkowski et al., 2018) compares
samples by a cubic kernel, without bias. Both are as good as their features: published numbers come
from one Inception network, and numbers of other networks are another measure. FID also depends on
the number of images, and compares nothing across such numbers.
"""

import torch
from torch import Tensor

from smallnets import checks


def gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d, d) of features (n, d), float64.

    Raises:
        ValueError: fewer than two rows, or numbers that are not finite.
    """
    features = _checked("features", features)
    mean = features.mean(dim=0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def frechet_distance(
    mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor
) -> float:
    """||m1 - m2||^2 + tr(S1 + S2 - 2 (S1 S2)^1/2).

    The root is taken of the symmetric S1^1/2 S2 S1^1/2, which has the eigenvalues of S1 S2; what
    rounding makes negative counts as 0. So singular covariances do no harm.

    Args:
        mean_a, mean_b: (d,).
        covariance_a, covariance_b: (d, d).

    Raises:
        ValueError: shapes that do not fit, or numbers that are not finite.
    """
    d = len(mean_a) if mean_a.ndim == 1 else 0
    shapes = [tuple(one.shape) for one in (mean_a, covariance_a, mean_b, covariance_b)]
    if d == 0 or shapes != [(d,), (d, d)] * 2:
        raise ValueError(f"means and covariances must be (d,) and (d, d), twice; got {shapes}")
    parts = [one.double() for one in (mean_a, covariance_a, mean_b, covariance_b)]
    if not all(bool(one.isfinite().all()) for one in parts):
        raise ValueError("means and covariances must be finite; got NaN or infinity")
    m1, s1, m2, s2 = parts
    values, vectors = torch.linalg.eigh(s1)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    middle = root @ s2 @ root
    shared = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp_min(0).sqrt().sum()
    distance = (m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * shared
    return float(distance.clamp_min(0))


def fid(a: Tensor, b: Tensor) -> float:
    """Frechet distance between features (n, d) and (m, d), such as an Inception network's.

    Raises:
        ValueError: fewer than two rows, other dimensions, or numbers that are not finite.
    """
    _check_pair(a, b)
    return frechet_distance(*gaussian(a), *gaussian(b))


def kid(
    a: Tensor,
    b: Tensor,
    *,
    subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 0,
    degree: int = 3,
) -> tuple[float, float]:
    """Squared maximum mean discrepancy with the kernel (x'y / d + 1)^degree, unbiased.

    Args:
        a, b: features (n, d) and (m, d).
        subsets: how often rows are drawn, without replacement.
        subset_size: rows of each; None takes all of them once, as many as the smaller set has.
        seed: of the draws.
        degree: of the kernel.

    Returns:
        Mean and standard deviation over subsets (0 for one).

    Raises:
        ValueError: as `fid`, or a size that a set does not have.
    """
    a, b = _check_pair(a, b)
    fewest = min(len(a), len(b))
    if subset_size is None:
        subset_size, subsets = fewest, 1
    checks.whole("subsets", subsets, 1)
    checks.whole("subset_size", subset_size, 2)
    checks.between("subset_size", subset_size, 2, fewest)
    checks.whole("degree", degree, 1)
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(subsets):
        x, y = (one[torch.randperm(len(one), generator=draw)[:subset_size]] for one in (a, b))
        found.append(_discrepancy(x, y, degree))
    values = torch.stack(found)
    return float(values.mean()), float(values.std(correction=0))


def _discrepancy(x: Tensor, y: Tensor, degree: int) -> Tensor:
    xx, yy, xy = ((p @ q.T / x.shape[1] + 1).pow(degree) for p, q in ((x, x), (y, y), (x, y)))
    n = len(x)
    within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (n * (n - 1))
    return within - 2 * xy.mean()


def as_published_pixels(images: Tensor) -> Tensor:
    """Images from [-1, 1] as uint8, cut off and not rounded, as the official code stores them."""
    return ((images.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)


def _check_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = _checked("a", a), _checked("b", b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"a and b must have features of one dimension; got {a.shape[1]} and {b.shape[1]}"
        )
    return a, b


def _checked(name: str, features: Tensor) -> Tensor:
    """Features as float64 (n, d), n at least 2, all of them finite."""
    if features.ndim != 2 or len(features) < 2 or features.shape[1] == 0:
        raise ValueError(
            f"{name} must be features (n, d) of at least 2 images; got {tuple(features.shape)}"
        )
    features = features.double()
    if not bool(features.isfinite().all()):
        raise ValueError(f"{name} must be finite; got NaN or infinity")
    return features
