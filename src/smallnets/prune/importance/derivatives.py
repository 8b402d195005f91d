"""What the criteria are made of: losses, gradients and curvatures of gates, batch by batch.

Gates are functions of the loss here. `torch.func.vmap` stacks the many versions of a network that
differ in one gate, and everything before that gate is computed once for all of them.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap
from torch.nn import functional as F

from smallnets import checks
from smallnets.models import sound
from smallnets.prune.importance.gates import Sites, gated, open_gates

Batches = Sequence[tuple[Tensor, Tensor]]  # images as the network takes them, and labels
Loss = Callable[[Tensor, Tensor], Tensor]  # logits, labels -> mean loss


def checked(batches: Iterable[tuple[Tensor, Tensor]]) -> Batches:
    """The batches as a list; ValueError if there are none."""
    listed = list(batches)
    if not listed:
        raise ValueError("batches must hold at least one batch; got none")
    return listed


def copies(batches: Batches) -> int:
    """How many versions of a network to stack, so that some 500 images are in work at once."""
    return max(1, 512 // len(batches[0][1]))


def finite(name: str, value: Tensor) -> Tensor:
    """Return `value` if all of it is finite, else raise ValueError."""
    if not value.isfinite().all():
        wrong = value[~value.isfinite()].flatten()[0].item()
        raise ValueError(f"{name} must be finite; got {wrong}")
    return value


def gate_gradients(
    model: nn.Module,
    sites: Sites,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss = F.cross_entropy,
) -> list[dict[str, Tensor]]:
    """Derivatives of each batch's mean loss by every gate, split over the examples.

    The network is run in the mode it is in: set evaluation mode where the oracle is measured so.

    Args:
        model: any network.
        sites: where the gates act.
        batches: (images, labels) pairs.
        loss: (logits, labels) -> mean over the batch.

    Returns:
        For each batch a dictionary gate -> (batch, channels). Their sum over the examples is the
        derivative by the gate.

    Raises:
        ValueError: no batches, a loss that is not finite, or a gate that the loss does not depend
            on.
    """
    listed, found = checked(batches), []
    ones = open_gates(model, sites, listed[0][0])
    for images, labels in listed:
        gates = {
            name: one.expand(len(labels), -1).clone().requires_grad_() for name, one in ones.items()
        }
        with gated(model, sites, gates), torch.enable_grad():
            value = finite("loss", loss(model(images), labels))
        found.append(dict(zip(gates, gradients(value, gates), strict=True)))
    return found


def gradients(value: Tensor, wanted: Mapping[str, Tensor]) -> list[Tensor]:
    """Derivatives of a loss by named tensors.

    Raises:
        ValueError: one does not require a gradient, or the loss does not depend on it.
    """
    for name, tensor in wanted.items():
        if not tensor.requires_grad:
            raise ValueError(f"{name!r} must require a gradient; it is frozen")
    results = torch.autograd.grad(value, list(wanted.values()), allow_unused=True)
    for name, result in zip(wanted, results, strict=True):
        if result is None:
            raise ValueError(f"the loss must depend on {name!r}; it has no gradient")
    return list(results)


def per_batch(found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Per-example gradients of `gate_gradients` -> gate -> (T, channels), summed over examples."""
    return {name: torch.stack([one[name].sum(0) for one in found]) for name in found[0]}


def gate_curvatures(
    model: nn.Module,
    sites: Sites,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss = F.cross_entropy,
    *,
    chunk: int = 16,
) -> dict[str, Tensor]:
    """Second derivatives d2E/dz_c^2 of each batch's mean loss: gate -> (T, channels).

    Exact: the diagonal of each gate's Hessian from its products with unit vectors, forward over
    reverse, for `chunk` channels at once. ReLU and max-pooling bend nowhere but in points.
    """

    def second(name: str, one: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        def value(z: Tensor) -> Tensor:
            with gated(model, sites, {name: z}):
                return loss(model(images), labels)

        def bend(direction: Tensor) -> Tensor:
            product = jvp(grad(value), (one,), (direction,))[1]  # the Hessian times a direction
            return (product * direction).sum()

        return vmap(bend, chunk_size=chunk)(torch.eye(len(one), dtype=one.dtype, device=one.device))

    with warnings.catch_warnings():  # torch compiles some of its forward derivatives
        warnings.simplefilter("ignore", FutureWarning)
        return _for_every_gate(model, sites, batches, second)


def losses_without(
    model: nn.Module,
    sites: Sites,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss = F.cross_entropy,
    *,
    chunk: int = 16,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of the whole network (T,), and gate -> (T, channels) losses without each channel."""

    def ablated(name: str, one: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        def value(z: Tensor) -> Tensor:
            with gated(model, sites, {name: z}):
                return loss(model(images), labels)

        closed = 1 - torch.eye(len(one), dtype=one.dtype, device=one.device)
        return vmap(value, chunk_size=chunk)(closed)

    listed = checked(batches)
    with torch.no_grad():
        base = torch.stack([loss(model(images), labels) for images, labels in listed])
    return finite("loss", base), _for_every_gate(model, sites, listed, ablated)


def best_subset(
    model: nn.Module,
    sites: Sites,
    batches: Iterable[tuple[Tensor, Tensor]],
    name: str,
    count: int,
    loss: Loss = F.cross_entropy,
) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """The combinatorial oracle: of all ways to remove `count` channels of one gate, the one that
    changes the loss least.

    Args:
        model, sites, batches, loss: as in `losses_without`.
        name: of the gate; its layer should be small.
        count: channels to remove.

    Returns:
        The best subset, all subsets (ways, count), and the mean squared change of the loss of each
        (ways,).

    Raises:
        ValueError: an unknown gate, or more channels than it has.
    """
    checks.one_of("gate", name, sites)
    listed = checked(batches)
    one = open_gates(model, {name: sites[name]}, listed[0][0])[name]
    checks.between("count", checks.whole("count", count, 1), 1, len(one) - 1)
    ways = torch.tensor(list(combinations(range(len(one)), count)), device=one.device)
    closed = one.repeat(len(ways), 1).scatter(1, ways, 0)

    def value(z: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        with gated(model, sites, {name: z}):
            return loss(model(images), labels)

    with torch.no_grad():
        change = torch.stack(
            [
                vmap(value, (0, None, None), chunk_size=16)(closed, images, labels)
                - value(one, images, labels)
                for images, labels in listed
            ]
        )
    scores = change.square().mean(0)
    return tuple(ways[scores.argmin()].tolist()), ways, scores


def _for_every_gate(
    model: nn.Module,
    sites: Sites,
    batches: Iterable[tuple[Tensor, Tensor]],
    function: Callable[[str, Tensor, Tensor, Tensor], Tensor],
) -> dict[str, Tensor]:
    listed = checked(batches)
    with torch.no_grad():
        return {
            name: torch.stack([function(name, one, images, labels) for images, labels in listed])
            for name, one in open_gates(model, sites, listed[0][0]).items()
        }


def parameter_gradients(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss = F.cross_entropy,
    names: Sequence[str] | None = None,
) -> list[dict[str, Tensor]]:
    """For each batch the derivatives of its mean loss by the network's parameters, by name.

    Args:
        model, batches, loss: as in `gate_gradients`.
        names: parameters of interest; None is all. Fewer are faster: the gradients of the others
            are not computed.

    Raises:
        ValueError: no batches, a loss that is not finite, or a parameter that is frozen or unused.
    """
    if names is None:
        wanted = dict(model.named_parameters())
    else:
        parameters = dict(model.named_parameters(remove_duplicate=False))  # tied ones, too
        wanted = {name: parameters[name] for name in names}
    found = []
    for images, labels in checked(batches):
        with torch.enable_grad():
            value = finite("loss", loss(model(sound(model, images)), labels))
        found.append(dict(zip(wanted, gradients(value, wanted), strict=True)))
    return found
