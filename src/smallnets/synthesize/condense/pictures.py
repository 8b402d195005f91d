"""What sets look like: grids of their images, what learning changed, maps of their features."""

import torch
from torch import Tensor

from smallnets import checks
from smallnets.synthesize.condense.sets import SyntheticSet

MAPS = ("pca", "tsne")


def picture_grid(images: SyntheticSet, most: int = 10, gap: int = 1) -> Tensor:
    """One row a class, on white: float32 (height, width, channels) in [0, 1].

    Args:
        images: a set.
        most: images of a class that are shown, the first ones.
        gap: pixels between images.
    """
    return _grid(images.pixels(), images, most, gap)


def difference_grid(before: SyntheticSet, after: SyntheticSet, most: int = 10) -> Tensor:
    """What learning changed, one row a class: grey is nothing, white and black are the largest
    change in the grid.

    Raises:
        ValueError: sets of other labels or sizes.
    """
    if before.images.shape != after.images.shape or not torch.equal(before.labels, after.labels):
        raise ValueError(f"both sets must be of one size and order; got {before} and {after}")
    change = (after.images - before.images) * after.std.view(-1, 1, 1)
    largest = change.abs().max().clamp(min=1e-12)
    return _grid(0.5 + 0.5 * change / largest, after, most, 1)


def feature_map(
    features: Tensor, method: str = "pca", *, fitted_on: Tensor | None = None, seed: int = 0
) -> Tensor:
    """Places in the plane of features (n, D), float64 (n, 2).

    Args:
        features: of real and synthetic images together, in a trained network.
        method: "pca", or "tsne" (van der Maaten & Hinton, 2008).
        fitted_on: features whose main axes "pca" takes, such as those of the real images alone;
            None takes all.
        seed: of "tsne".

    Raises:
        ValueError: an unknown method, fewer than three points, or features that are not finite.
    """
    checks.one_of("method", method, MAPS)
    if features.dim() != 2 or len(features) < 3 or not bool(features.isfinite().all()):
        raise ValueError(
            f"features must be finite (n, D) with n of at least 3; got {tuple(features.shape)}"
        )
    points = features.detach().double()
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(points) - 1) / 3)
        made = TSNE(perplexity=perplexity, init="pca", random_state=seed)
        return torch.from_numpy(made.fit_transform(points.numpy())).double()
    of = points if fitted_on is None else fitted_on.detach().double()
    axes = torch.linalg.svd(of - of.mean(0), full_matrices=False).Vh[:2]
    # The sign of an axis is nobody's: its largest entry is positive.
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return (points - of.mean(0)) @ (axes * largest.sign()).T


def _grid(pixels: Tensor, images: SyntheticSet, most: int, gap: int) -> Tensor:
    checks.whole("most", most, 1)
    checks.whole("gap", gap, 0)
    rows = [members[:most] for members in images.members() if len(members)]
    channels, height, width = pixels.shape[1:]
    across = max(len(row) for row in rows)
    canvas = torch.ones(len(rows) * (height + gap) - gap, across * (width + gap) - gap, channels)
    for i, row in enumerate(rows):
        for j, place in enumerate(row.tolist()):
            top, left = i * (height + gap), j * (width + gap)
            canvas[top : top + height, left : left + width] = pixels[place].permute(1, 2, 0)
    return canvas
