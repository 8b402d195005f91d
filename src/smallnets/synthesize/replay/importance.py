"""Weights that matter to old tasks stay near their values: EWC and MAS, which the paper names.

    L = L_task + strength / 2 sum_j importance_j (theta_j - theta_old,j)^2

EWC (Kirkpatrick et al., PNAS 2017) takes the Fisher information, MAS (Aljundi et al., ECCV 2018)
the sensitivity of the squared length of the outputs. Both are measured on a task's own images when
the task ends, and summed over tasks, around the latest weights.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from smallnets import checks
from smallnets.losses import to_float32
from smallnets.measure import evaluating

Importance = dict[str, Tensor]  # name of a parameter -> a number for each of its weights
TOGETHER = 16  # images whose gradients are held at a time


def fisher_importance(
    model: nn.Module, images: Tensor, generator: torch.Generator | None = None
) -> Importance:
    """Mean over images of the squared gradient of log p(y | x), y drawn from the model (EWC).

    Args:
        model: left as it is; in evaluation mode meanwhile.
        images: (n, ...), as the model takes them.
        generator: of the labels.

    Raises:
        ValueError: no image.
    """

    def loss(logits: Tensor, drawn: Tensor) -> Tensor:
        return F.nll_loss(to_float32(logits).log_softmax(dim=1), drawn[None])

    with evaluating(model), torch.no_grad():
        drawn = [
            torch.multinomial(to_float32(model(part)).softmax(dim=1), 1, generator=generator)[:, 0]
            for part in _parts(images)
        ]
    return _mean_of(model, images, torch.cat(drawn), loss, torch.square)


def sensitivity_importance(model: nn.Module, images: Tensor) -> Importance:
    """Mean over images of the absolute gradient of the squared length of the logits (MAS).

    Args and Raises: as `fisher_importance`.
    """

    def length(logits: Tensor, _: Tensor) -> Tensor:
        return to_float32(logits).square().sum()

    return _mean_of(model, images, torch.zeros(len(images)), length, torch.abs)


def _mean_of(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    of: Callable[[Tensor], Tensor],
) -> Importance:
    """Mean over images of a function of each image's own gradient."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}

    def one(weights: Mapping[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, (dict(weights), buffers), (image[None],))
        return loss(logits, label)

    with evaluating(model):
        for part, answers in zip(_parts(images), labels.split(TOGETHER), strict=True):
            each = vmap(grad(one), in_dims=(None, 0, 0))(parameters, part, answers)
            for name, gradient in each.items():
                sums[name] += of(gradient).sum(dim=0)
    return {name: total / len(images) for name, total in sums.items()}


def _parts(images: Tensor) -> Sequence[Tensor]:
    checks.whole("number of images for importance", len(images), 1)
    return images.split(TOGETHER)


def added(before: Importance | None, more: Importance) -> Importance:
    """Importance of all tasks so far; a head that has grown keeps what its old rows had."""
    if before is None:
        return more
    total = {name: one.clone() for name, one in more.items()}
    for name, old in before.items():
        of_old(total[name], old).add_(old)
    return total


def of_old(grown: Tensor, old: Tensor) -> Tensor:
    """The part of a parameter that was there before: the first rows of a head that has grown."""
    return grown if grown.shape == old.shape else grown[: len(old)]


def drift_penalty(
    parameters: Sequence[Tensor],
    old: Sequence[Tensor],
    importance: Sequence[Tensor],
    strength: float,
) -> Tensor:
    """strength / 2 sum of importance times the squared distance from the old weights.

    Args:
        parameters: of the new model, in its order; heads may have more rows than the old ones.
        old: of the old model, in the same order.
        importance: of the old model's weights, in the same order.
        strength: 0 or more.

    Raises:
        ValueError: other numbers of parameters, or a number out of range.
    """
    checks.at_least("strength", strength, 0)
    if not len(parameters) == len(old) == len(importance):
        raise ValueError(
            "parameters, old ones and importance must be as many; "
            f"got {len(parameters)}, {len(old)} and {len(importance)}"
        )
    terms = [
        (weight * (of_old(now, then) - then).square()).sum()
        for now, then, weight in zip(parameters, old, importance, strict=True)
    ]
    return strength / 2 * torch.stack(terms).sum()
