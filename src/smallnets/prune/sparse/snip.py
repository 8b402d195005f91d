"""SNIP: which connections matter, before any training (Lee et al., ICLR 2019)."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.prune.importance.derivatives import Data, Loss, parameter_gradients
from smallnets.prune.sparse.masks import keep_largest, prunable_weights


def snip_scores(
    network: nn.Module,
    batches: Data,
    *,
    layers: Sequence[str] | None = None,
    loss: Loss = F.cross_entropy,
) -> dict[str, Tensor]:
    """Sensitivity of every connection, |w dL/dw| divided by the sum over all connections.

    Args:
        network: in the mode in which it is to be looked at, usually at its random start. It is
            left as it is.
        batches: pairs (inputs, labels); L is the mean of their mean losses.
        layers: see `prunable_weights`.
        loss: (logits, labels) -> mean over the batch.

    Raises:
        ValueError: no batches, a loss that is not finite, a frozen weight, or sensitivities that
            are 0 throughout.
    """
    network = copy.deepcopy(network)  # a pass in training moves the statistics of norms
    weights = prunable_weights(network, layers)
    slopes = parameter_gradients(network, batches, loss, list(weights))
    found = {
        name: (weight.detach() * torch.stack([one[name] for one in slopes]).mean(0)).abs()
        for name, weight in weights.items()
    }
    total = torch.stack([score.sum() for score in found.values()]).sum()
    if not total > 0:
        raise ValueError(f"sensitivities must have a sum above 0; got {total.item():g}")
    return {name: score / total for name, score in found.items()}


def snip_masks(
    network: nn.Module,
    batches: Data,
    amount: float,
    scope: str = "global",
    *,
    layers: Sequence[str] | None = None,
    least: int = 1,
    loss: Loss = F.cross_entropy,
) -> dict[str, Tensor]:
    """Masks that close the least sensitive connections, see `snip_scores` and `keep_largest`."""
    found = snip_scores(network, batches, layers=layers, loss=loss)
    return keep_largest(found, amount, scope, least=least)
