"""Patches and real images together in the teacher's features: the patches do not enclose the data
(analyses 4 and 6).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.batches import moved_to
from smallnets.distill.single_image.streams import unit
from smallnets.losses import check_finite
from smallnets.measure import cka, evaluating
from smallnets.models import FeatureTap

METHODS = ("pca", "tsne")


@dataclass(frozen=True, eq=False)
class Embedding:
    """Places in the plane.

    Attributes:
        patches, real: float64 (n, 2) and (m, 2).
        inside: share of the real images within the convex hull of the patches. In the plane; in
            all dimensions of the features it is smaller.
    """

    patches: Tensor
    real: Tensor
    inside: float


def embed(patches: Tensor, real: Tensor, method: str = "pca", seed: int = 0) -> Embedding:
    """Features of patches and of real images in one plane.

    Args:
        patches, real: (n, features) and (m, features), n >= 3, of one network.
        method: "pca", the two directions of largest variance of both together, or "tsne"
            (neighbourhoods; distances between clusters mean nothing, and so does the hull).
        seed: of t-SNE's start.

    Raises:
        ValueError: other shapes, too few examples, numbers that are not finite, or a method of
            another name.
    """
    checks.one_of("method", method, METHODS)
    if patches.dim() != 2 or real.dim() != 2 or patches.shape[1] != real.shape[1]:
        raise ValueError(
            "patches and real images must both be (n, features); "
            f"got {tuple(patches.shape)} and {tuple(real.shape)}"
        )
    checks.at_least("number of patches", len(patches), 3)
    checks.at_least("number of real images", len(real), 1)
    rows = torch.cat([patches, real]).detach().double().cpu()
    check_finite("features", rows)
    centred = rows - rows.mean(dim=0)
    if rows.shape[1] < 2:
        centred = torch.nn.functional.pad(centred, (0, 1))
    if method == "pca":
        places = _pca(centred)
    else:
        from sklearn.manifold import TSNE

        near = min(30.0, (len(rows) - 1) / 3)
        model = TSNE(2, perplexity=near, init="pca", random_state=seed)
        places = torch.from_numpy(model.fit_transform(centred.numpy()).astype(np.float64))
    mine, others = places[: len(patches)], places[len(patches) :]
    return Embedding(mine, others, inside_hull(mine, others))


def _pca(rows: Tensor) -> Tensor:
    """Centred rows (n, features >= 2) along their two directions of largest variance, (n, 2)."""
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    axes = vectors[:, [-1, -2]]
    # A direction has no sign of its own: the largest entry of each is positive.
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    return rows @ (axes * largest.sign())


def inside_hull(points: Tensor, others: Tensor) -> float:
    """Share of `others` (m, 2) within the convex hull of `points` (n, 2); 0 where the hull has no
    area.
    """
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = ConvexHull(points.numpy())
    except QhullError:
        return 0.0
    distance = others.numpy() @ hull.equations[:, :2].T + hull.equations[:, 2]
    return float((distance <= 1e-9).all(axis=1).mean())


def pooled_features(
    network: nn.Module,
    images: Tensor,
    layer: str,
    normalise: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 250,
) -> Tensor:
    """Outputs of a layer, averaged over positions, float32 (n, channels) on the CPU.

    Args:
        network: left in the mode in which it is.
        images: uint8 or floating point in [0, 1], (n, channels, height, width).
        layer: its dotted name; its output is (n, features) or (n, channels, height, width).
        normalise: applied to every batch; without it uint8 images become numbers from 0 to 1.
        batch_size: images a pass.
    """
    return _pooled(network, images, (layer,), normalise, batch_size)[layer]


def _pooled(
    network: nn.Module,
    images: Tensor,
    layers: Collection[str],
    normalise: Callable[[Tensor], Tensor] | None,
    batch_size: int = 250,
) -> dict[str, Tensor]:
    """`pooled_features` of several layers, in one pass over the images."""
    prepare = normalise or unit
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    with evaluating(network), torch.no_grad(), FeatureTap(network, tuple(found)) as tap:
        for part in images.split(checks.whole("batch_size", batch_size, 1)):
            network(moved_to(network, prepare(part)))
            for layer, parts in found.items():
                features = tap.features[layer].float()
                pooled = features.mean(dim=(2, 3)) if features.dim() == 4 else features
                parts.append(pooled.cpu())
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def layer_similarity(
    one: nn.Module,
    other: nn.Module,
    images: Tensor,
    layers: Mapping[str, str],
    normalise: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """Linear CKA of two networks' layers on the same images, by name of the first one's layer.

    Args:
        one, other: such as student and teacher, or two students.
        images: uint8 or floating point in [0, 1], (n, channels, height, width), n >= 3.
        layers: layer of the first -> layer of the second.
        normalise: applied to every batch.
    """
    ours = _pooled(one, images, layers.keys(), normalise)
    others = _pooled(other, images, layers.values(), normalise)
    return {mine: cka(ours[mine], others[theirs], "linear") for mine, theirs in layers.items()}
