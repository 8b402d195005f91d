"""Is it the fine-grained classes that regularisation forgets? (section 8 of the method)

KD on new images x sees of two old classes i, j only d_ij(x) = (w_i - w_j)^T phi(x), the difference
of their logits. Where it is the same for all x, or both classes have no probability, nothing keeps
the two apart. The paper says that this is so for similar classes. Everything here is computed from
finished models, without training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.losses import to_float32
from smallnets.measure import predict
from smallnets.synthesize.replay.evaluation import logits_of_test
from smallnets.synthesize.replay.heads import head_of
from smallnets.synthesize.replay.statistics import ClassifierTap
from smallnets.synthesize.replay.supervision import check_finite
from smallnets.synthesize.replay.tasks import Task

CHANCE = 0.5  # accuracy on two classes of somebody who guesses


def class_pairs(classes: int) -> Tensor:
    """All pairs i < j of classes, int64 (pairs, 2).

    Raises:
        ValueError: fewer than two classes.
    """
    checks.whole("classes", classes, 2)
    return torch.tensor(list(combinations(range(classes), 2)))


def head_similarity(model: nn.Module, n_old: int | None = None, head: str | None = None) -> Tensor:
    """rho_ij = cos(w_i - w_mean, w_j - w_mean) of the head's rows, (n_old, n_old).

    Args:
        model: any classifier whose head is an `nn.Linear`.
        n_old: its first classes that count; by default all.
        head: see `head_name`.

    Raises:
        ValueError: n_old out of range, or see `head_name`.
    """
    rows = to_float32(head_of(model, head).weight.detach()).cpu()
    count = len(rows) if n_old is None else n_old
    checks.between("n_old", checks.whole("n_old", count, 1), 1, len(rows))
    centred = rows[:count] - rows[:count].mean(dim=0)
    unit = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return unit @ unit.T


def confusion_similarity(confusion: Tensor) -> Tensor:
    """How often two classes are taken for each other, (classes, classes), from counts (true,
    predicted): the mean of both directions' shares.
    """
    shares = confusion.double() / confusion.sum(dim=1, keepdim=True).clamp_min(1)
    return ((shares + shares.T) / 2).float()


def nearest_class(similarity: Tensor) -> Tensor:
    """Similarity of each class to the most similar other one, (classes,)."""
    others = similarity.clone()
    others.fill_diagonal_(-torch.inf)
    return others.amax(dim=1)


def pair_visibility(
    old_model: nn.Module,
    images: Tensor,
    pairs: Tensor,
    temperature: float = 2.0,
    n_old: int | None = None,
) -> Tensor:
    """What a set of images shows of pairs of classes, (pairs,); see `visibility_of_logits`.

    Args:
        old_model: left as it is.
        images: (n, ...), floating point, as the model takes them: new ones, generated ones, noise
            or real old ones.
        pairs: int64 (pairs, 2).
        temperature: of distillation.
        n_old: the model's first classes that count; by default all.
    """
    logits = predict(old_model, images)[:, :n_old]
    return visibility_of_logits(logits, pairs, temperature)


def visibility_of_logits(logits: Tensor, pairs: Tensor, temperature: float = 2.0) -> Tensor:
    """V_ij = mean over x of (p_i + p_j) |d_ij(x) - mean_x d_ij|, (pairs,).

    p = softmax(o / T) and d_ij = (o_i - o_j) / T: how much the soft labels of a set vary along the
    direction that tells i from j, as far as they have any probability on the two.

    Args:
        logits: o, (n, old classes).
        pairs: int64 (pairs, 2).
        temperature: T.

    Raises:
        ValueError: classes that do not exist, a number out of range, or logits that are not finite.
    """
    checks.above("temperature", temperature, 0)
    check_finite("logits", logits)
    first, second = _pairs(pairs, logits.shape[1])
    soft = to_float32(logits) / temperature
    p = soft.softmax(dim=1)
    difference = soft[:, first] - soft[:, second]
    moved = (difference - difference.mean(dim=0)).abs()
    return ((p[:, first] + p[:, second]) * moved).mean(dim=0)


def pair_accuracy(logits: Tensor, labels: Tensor, pairs: Tensor) -> Tensor:
    """Accuracy on the images of two classes if only these two compete, (pairs,).

    Args:
        logits: (n, classes).
        labels: (n,).
        pairs: int64 (pairs, 2).

    Raises:
        ValueError: classes that do not exist, or a class without images.
    """
    check_finite("logits", logits)
    first, second = _pairs(pairs, logits.shape[1])
    of_class = [logits[labels == one] for one in range(logits.shape[1])]
    found = []
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        mine, others = of_class[i], of_class[j]
        if not len(mine) or not len(others):
            raise ValueError(f"both classes of a pair must have images; classes {i}, {j} have not")
        right = torch.cat([mine[:, i] > mine[:, j], others[:, j] > others[:, i]])
        found.append(right.double().mean())
    return torch.stack(found)


@dataclass(frozen=True, eq=False)
class PairDamage:
    """What a training did to pairs of old classes; everything (pairs,).

    Attributes:
        before, after: accuracy if only the two compete.
        damage: before - after, D_ij.
        relative: damage / (before - 1/2), the share of what was known that is lost: similar pairs
            start nearer to chance and have less to lose. NaN for pairs at chance or below.
    """

    before: Tensor
    after: Tensor

    @property
    def damage(self) -> Tensor:
        return self.before - self.after

    @property
    def relative(self) -> Tensor:
        known = self.before - CHANCE
        return torch.where(known > 0, self.damage / known, torch.nan)


def pair_damage(
    before: nn.Module, after: nn.Module, test: Sequence[Task], pairs: Tensor
) -> PairDamage:
    """Accuracy on pairs of old classes before and after a step.

    Args:
        before, after: classifiers, left as they are.
        test: the old tasks; their test images are used.
        pairs: int64 (pairs, 2).
    """
    known, left = (pair_accuracy(*_of_tasks(model, test), pairs) for model in (before, after))
    return PairDamage(known, left)


@dataclass(frozen=True, eq=False)
class ClassReport:
    """Accuracy of every old class before and after, all (classes,), sorted by `nearest`.

    Attributes:
        classes: which ones, those with the least similar neighbour first.
        nearest: similarity to the most similar other class.
        before, after: accuracy with all old classes competing, and no new one.
        after_agnostic: accuracy after with all classes competing.
    """

    classes: Tensor
    nearest: Tensor
    before: Tensor
    after: Tensor
    after_agnostic: Tensor


def class_report(
    before: nn.Module,
    after: nn.Module,
    test: Sequence[Task],
    similarity: Tensor | None = None,
    head: str | None = None,
) -> ClassReport:
    """Accuracies of old classes before and after a step, ordered by how near others are.

    Args:
        before, after: classifiers.
        test: the old tasks.
        similarity: (n_old, n_old); by default `head_similarity` of the model before.
        head: see `head_name`.
    """
    known = head_of(before, head).out_features
    nearest = nearest_class(
        head_similarity(before, head=head) if similarity is None else similarity
    )
    logits, labels = _of_tasks(before, test)
    later, _ = _of_tasks(after, test)
    order = nearest.argsort(stable=True)
    return ClassReport(
        order,
        nearest[order],
        class_accuracy(logits, labels, known)[order],
        class_accuracy(later[:, :known], labels, known)[order],
        class_accuracy(later, labels, known)[order],
    )


def class_accuracy(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Accuracy on the images of each of the first classes, (classes,); NaN without images."""
    right = (logits.argmax(dim=1) == labels).double()
    count = torch.bincount(labels, minlength=classes)[:classes].double()
    hits = torch.bincount(labels, weights=right, minlength=classes)[:classes]
    return hits / count


def grouped_order(groups: Tensor) -> Tensor:
    """Classes sorted by group, (classes,), so that a confusion matrix shows its groups as blocks:
    `confusion[order][:, order]`.

    Args:
        groups: the group of each class, (classes,).
    """
    return groups.argsort(stable=True)


@dataclass(frozen=True, eq=False)
class HeadPlane:
    """The paper's cartoon: head rows and images in the plane in which the rows differ most.

    Attributes:
        rows: of the chosen classes, (classes, 2).
        images: features of images, (n, 2).
    """

    rows: Tensor
    images: Tensor


def head_plane(
    model: nn.Module, images: Tensor, classes: Sequence[int], head: str | None = None
) -> HeadPlane:
    """Project head rows and features onto the two main axes of the rows, around their mean.

    What a feature has outside of the plane does not matter to the differences of logits that the
    plane shows: those are inner products with differences of rows.

    Args:
        model: left as it is.
        images: (n, ...), as the model takes them.
        classes: three or more, such as five.
        head: see `head_name`.

    Raises:
        ValueError: fewer than three classes, or one that does not exist.
    """
    layer = head_of(model, head)
    checks.whole("number of classes", len(classes), 3)
    for one in classes:
        checks.between("every one of classes", one, 0, layer.out_features - 1)
    rows = to_float32(layer.weight.detach())[list(classes)]
    centred = rows - rows.mean(dim=0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2].T
    features = []
    with ClassifierTap(model, head, norms=False) as tap:
        for part in images.split(250):
            predict(model, part)
            features.append(to_float32(tap.features))
    seen = torch.cat(features).clone()
    return HeadPlane((centred @ axes).cpu(), (seen @ axes).cpu())


@dataclass(frozen=True, eq=False)
class FineGrained:
    """Similarity, visibility and damage of all pairs of old classes.

    Attributes:
        pairs: int64 (pairs, 2).
        similarity: rho of each pair, (pairs,).
        visibility: name of a set of images -> V, (pairs,).
        damage: name of a model -> what its training did.
    """

    pairs: Tensor
    similarity: Tensor
    visibility: dict[str, Tensor]
    damage: dict[str, PairDamage]

    def correlations(self) -> dict[str, float]:
        """Pearson's correlation over pairs of similarity with each visibility, damage and relative
        damage; NaN where one of them does not vary.
        """
        found = {f"visibility, {name}": one for name, one in self.visibility.items()}
        for name, one in self.damage.items():
            found |= {f"damage, {name}": one.damage, f"relative damage, {name}": one.relative}
        return {name: _correlation(self.similarity, values) for name, values in found.items()}


def fine_grained(
    before: nn.Module,
    after: Mapping[str, nn.Module],
    test: Sequence[Task],
    images: Mapping[str, Tensor],
    temperature: float = 2.0,
    head: str | None = None,
) -> FineGrained:
    """Everything that the claim is about, from models that exist.

    The claim: visibility on new images falls with similarity, and damage under regularisation
    alone rises with it; on similar pairs generated images show more, and replay damages less.

    Args:
        before: the old classifier.
        after: name -> the new classifier of a method.
        test: the old tasks.
        images: name -> images as the classifier takes them, (n, ...).
        temperature: of distillation.
        head: see `head_name`.
    """
    pairs = class_pairs(head_of(before, head).out_features)
    first, second = pairs.T
    known = pair_accuracy(*_of_tasks(before, test), pairs)
    return FineGrained(
        pairs,
        head_similarity(before, head=head)[first, second],
        {name: pair_visibility(before, one, pairs, temperature) for name, one in images.items()},
        {
            name: PairDamage(known, pair_accuracy(*_of_tasks(one, test), pairs))
            for name, one in after.items()
        },
    )


def _correlation(x: Tensor, y: Tensor) -> float:
    sound = y.isfinite()
    x, y = x[sound].double(), y[sound].double()
    if len(x) < 2 or float(x.std()) == 0 or float(y.std()) == 0:
        return float("nan")
    return float(torch.corrcoef(torch.stack([x, y]))[0, 1])


def _of_tasks(model: nn.Module, tasks: Sequence[Task]) -> tuple[Tensor, Tensor]:
    logits, labels = zip(*(logits_of_test(model, task) for task in tasks), strict=True)
    return torch.cat(logits), torch.cat(labels)


def _pairs(pairs: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    if pairs.dim() != 2 or pairs.shape[1:] != (2,) or pairs.numel() == 0:
        raise ValueError(f"pairs must be (pairs, 2); got {tuple(pairs.shape)}")
    low, high = int(pairs.min()), int(pairs.max())
    if low < 0 or high >= classes:
        raise ValueError(f"pairs must be of classes 0 to {classes - 1}; got {low} to {high}")
    first, second = pairs.T
    return first, second
