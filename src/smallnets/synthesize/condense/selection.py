"""Choosing real images instead of learning new ones: random, herding, k-center, forgetting.

Herding (Welling, 2009) and k-center (Sener & Savarese, 2018) work class by class on features of a
network that was trained on the whole set; on random features they are other methods. Forgetting
(Toneva et al., 2019) counts how often an image is unlearned in a training on the whole set.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from smallnets import checks
from smallnets.synthesize.condense import chance
from smallnets.synthesize.condense.running import chosen_classes
from smallnets.synthesize.condense.sets import Data, SyntheticSet, check_classes, training_set

METHODS = ("random", "herding", "k-center", "forgetting")


class Forgetting(NamedTuple):
    """How training met every example."""

    events: Tensor  # int64 (N,), transitions from correct to wrong
    never: Tensor  # bool (N,), never correct: it counts as forgotten without end


def herding(features: Tensor, n: int) -> Tensor:
    """The first n points of greedy herding, int64 (n,), in the order of selection.

    The k-th is the remaining point nearest to k mu - (sum of those chosen), so that the mean of the
    chosen stays near the mean mu of all. Of equal points the first is taken.

    Args:
        features: (N, D) of one class.
        n: from 1 to N.

    Raises:
        ValueError: n out of range, or features that are not finite.
    """
    points = _points(features, n)
    mean, squares = points.mean(0), points.square().sum(1)
    chosen = torch.empty(n, dtype=torch.int64)
    target = torch.zeros_like(mean)
    left = torch.ones(len(points), dtype=torch.bool)
    for k in range(n):
        target = target + mean  # k mu - sum of the chosen
        distances = squares - 2 * points @ target
        chosen[k] = distances.masked_fill(~left, torch.inf).argmin()
        left[chosen[k]] = False
        target = target - points[chosen[k]]
    return chosen


def k_center(features: Tensor, n: int) -> Tensor:
    """The first n centres of greedy k-center, int64 (n,), in the order of selection.

    First the point nearest to the mean, then always the point farthest from its nearest centre; no
    point twice. Of equal points the first is taken.

    Args and Raises: as `herding`.
    """
    points = _points(features, n)
    chosen = torch.empty(n, dtype=torch.int64)
    chosen[0] = (points - points.mean(0)).square().sum(1).argmin()
    nearest = torch.full((len(points),), torch.inf, dtype=points.dtype)
    for k in range(1, n):
        nearest = nearest.minimum((points - points[chosen[k - 1]]).square().sum(1))
        nearest[chosen[:k]] = -1
        chosen[k] = nearest.argmax()
    return chosen


def covering_radius(features: Tensor, centres: Tensor) -> float:
    """Largest distance of a point (N, D) to its nearest centre, given by places (n,)."""
    points = _points(features, 1)
    return float(torch.cdist(points, points[centres]).min(1).values.max())


def forgetting_events(correct: Tensor) -> Forgetting:
    """Forgetting events of every example.

    Args:
        correct: (T, N), whether an example was classified correctly at each of T presentations.

    Raises:
        ValueError: something else than a table of truth values.
    """
    if correct.dim() != 2 or 0 in correct.shape:
        raise ValueError(f"correct must be (epochs, examples); got {tuple(correct.shape)}")
    if bool(((correct != 0) & (correct != 1)).any()):
        raise ValueError("correct must hold truth values; got other numbers")
    right = correct.bool()
    return Forgetting((right[:-1] & ~right[1:]).sum(0), ~right.any(0))


def select(
    data: Data,
    method: str,
    ipc: int,
    *,
    seed: int = 0,
    features: Tensor | None = None,
    forgetting: Forgetting | None = None,
    only: Sequence[int] | None = None,
) -> SyntheticSet:
    """Choose ipc images of every class.

    Args:
        data: real images.
        method: one of `METHODS`.
        ipc: images a class.
        seed: of "random", and of the order among images that were forgotten equally often.
        features: (N, D) of all images, of a trained network, for "herding" and "k-center".
        forgetting: of all images, for "forgetting", which takes the most forgotten of every class.
        only: labels of the classes; None is all.

    Raises:
        ValueError: a class with fewer images, an unknown method, or what it needs is missing, not
            finite or of other images.
    """
    real = training_set(data)
    checks.one_of("method", method, METHODS)
    checks.whole("ipc", ipc, 1)
    checks.whole("seed", seed, 0)
    classes = chosen_classes(real, only)
    check_classes(real, classes, ipc)
    scores = _scores(method, features, forgetting)
    if scores is not None and len(scores) != len(real):
        raise ValueError(f"{method} needs numbers of all {len(real)} images; got {len(scores)}")
    members = real.members()
    places = []
    for label in sorted(classes):
        mine = members[label]
        draws = chance.generator(seed, chance.START, label)
        order = torch.randperm(len(mine), generator=draws)
        if method == "herding":
            order = herding(scores[mine], ipc)  # type: ignore[index]
        elif method == "k-center":
            order = k_center(scores[mine], ipc)  # type: ignore[index]
        elif method == "forgetting":
            worst = scores[mine][order].argsort(descending=True, stable=True)  # type: ignore[index]
            order = order[worst]
        places.append(mine[order[:ipc]])
    which = torch.cat(places)
    labels = real.labels[which]
    return SyntheticSet(real.take(which), labels, real.mean, real.std, real.classes)


def _scores(method: str, features: Tensor | None, forgetting: Forgetting | None) -> Tensor | None:
    if method == "random":
        return None
    if method == "forgetting":
        if forgetting is None:
            raise ValueError("forgetting needs forgetting events; see watch_forgetting")
        return forgetting.events.masked_fill(forgetting.never, torch.iinfo(torch.int64).max)
    if features is None:
        raise ValueError(f"{method} needs features of a trained network; see trained_features")
    return features


def _points(features: Tensor, n: int) -> Tensor:
    if features.dim() != 2 or len(features) == 0:
        raise ValueError(f"features must be (points, D); got {tuple(features.shape)}")
    if not bool(features.isfinite().all()):
        raise ValueError("features must be finite; got nan or inf")
    checks.between("n", checks.whole("n", n, 1), 1, len(features))
    return features.detach().double().cpu()
