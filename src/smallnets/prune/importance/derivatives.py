"""What the criteria are made of: losses, gradients and curvatures of gates, batch by batch.

Gates are functions of the loss here. `torch.func.vmap` stacks the many versions of a network that
differ in one gate, and everything before that gate is computed once for all of them.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from smallnets import checks
from smallnets.batches import Batches, Source, check_labelled
from smallnets.models import sound
from smallnets.prune.importance.gates import Sites, gated, open_gates

Data = Batches | Source  # batches of inputs as the network takes them, and labels
Gates = Mapping[str, Tensor]  # name -> ones (channels,)
Loss = Callable[[Tensor, Tensor], Tensor]  # logits, labels -> mean loss


def paired(model: nn.Module, batches: Data) -> Batches:
    """Pairs (inputs, labels) where the model is, read one at a time; labels are the loss's affair.

    Raises:
        ValueError: see `Batches`.
    """
    given = batches if isinstance(batches, Batches) else Batches(batches)
    check_labelled(given)
    return replace(given, any_labels=True).on(model)


def copies(labels: Tensor) -> int:
    """How many versions of a network to stack for such a batch, so that some 500 images are in work
    at once.
    """
    return max(1, 512 // len(labels))


def check_steady(model: nn.Module) -> None:
    """Raise ValueError, with the name of a layer, if the network changes or draws something in
    every pass: many versions of it that are computed at once would not be those of one pass.
    """
    for name, module in model.named_modules():
        moves = isinstance(module, _NormBase) and module.track_running_stats
        draws = isinstance(module, _DropoutNd) and module.p > 0
        if module.training and (moves or draws):
            raise ValueError(
                "the oracle and second derivatives need a network in evaluation mode; "
                f"layer {name!r}, a {type(module).__name__}, is in training mode"
            )


def finite(name: str, value: Tensor) -> Tensor:
    """Return `value` if all of it is finite, else raise ValueError."""
    if not value.isfinite().all():
        wrong = value[~value.isfinite()].flatten()[0].item()
        raise ValueError(f"{name} must be finite; got {wrong}")
    return value


def gate_gradients(
    model: nn.Module,
    sites: Sites,
    batches: Data,
    loss: Loss = F.cross_entropy,
    *,
    opened: Gates | None = None,
) -> list[dict[str, Tensor]]:
    """Derivatives of each batch's mean loss by every gate, split over the examples.

    The network is run in the mode it is in: set evaluation mode where the oracle is measured so.

    Args:
        model: any network.
        sites: where the gates act.
        batches: (inputs, labels) pairs, as of a DataLoader; read once, one at a time.
        loss: (logits, labels) -> mean over the batch.
        opened: from `open_gates`, where that has been called before.

    Returns:
        For each batch a dictionary gate -> (batch, channels). Their sum over the examples is the
        derivative by the gate.

    Raises:
        ValueError: no batches, a loss that is not finite, or a gate that the loss does not depend
            on.
    """
    found: list[dict[str, Tensor]] = []
    for images, labels in paired(model, batches):
        opened = open_gates(model, sites, images) if opened is None else opened
        gates = {
            name: one.expand(len(labels), -1).clone().requires_grad_()
            for name, one in opened.items()
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
    batches: Data,
    loss: Loss = F.cross_entropy,
    *,
    chunk: int = 16,
    opened: Gates | None = None,
) -> dict[str, Tensor]:
    """Second derivatives d2E/dz_c^2 of each batch's mean loss: gate -> (T, channels).

    Exact: the diagonal of each gate's Hessian from its products with unit vectors, forward over
    reverse, for `chunk` channels at once. ReLU and max-pooling bend nowhere but in points.

    Raises:
        ValueError: a layer that changes or draws something in every pass, see `check_steady`.
    """
    check_steady(model)

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
        parts = [
            _for_every_gate(model, sites, images, labels, second, opened)
            for images, labels in paired(model, batches)
        ]
    return {name: torch.stack([one[name] for one in parts]) for name in parts[0]}


def losses_without(
    model: nn.Module,
    sites: Sites,
    batches: Data,
    loss: Loss = F.cross_entropy,
    *,
    chunk: int = 16,
    opened: Gates | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of the whole network (T,), and gate -> (T, channels) losses without each channel.

    Raises:
        ValueError: a layer that changes or draws something in every pass, see `check_steady`.
    """
    check_steady(model)

    def ablated(name: str, one: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        def value(z: Tensor) -> Tensor:
            with gated(model, sites, {name: z}):
                return loss(model(images), labels)

        closed = 1 - torch.eye(len(one), dtype=one.dtype, device=one.device)
        return vmap(value, chunk_size=chunk)(closed)

    bases, parts = [], []
    for images, labels in paired(model, batches):  # the same batch with and without channels
        with torch.no_grad():
            bases.append(finite("loss", loss(model(images), labels)))
        parts.append(_for_every_gate(model, sites, images, labels, ablated, opened))
    stacked = {name: torch.stack([one[name] for one in parts]) for name in parts[0]}
    return torch.stack(bases), stacked


def best_subset(
    model: nn.Module,
    sites: Sites,
    batches: Data,
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
        ValueError: an unknown gate, more channels than it has, or as in `losses_without`.
    """
    check_steady(model)
    checks.one_of("gate", name, sites)
    data = paired(model, batches)
    one = open_gates(model, {name: sites[name]}, data.first()[0])[name]
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
                for images, labels in data
            ]
        )
    scores = change.square().mean(0)
    return tuple(ways[scores.argmin()].tolist()), ways, scores


def _for_every_gate(
    model: nn.Module,
    sites: Sites,
    images: Tensor,
    labels: Tensor,
    function: Callable[[str, Tensor, Tensor, Tensor], Tensor],
    opened: Gates | None = None,
) -> dict[str, Tensor]:
    """Gate -> what a function of it says about one batch."""
    opened = open_gates(model, sites, images) if opened is None else opened
    with torch.no_grad():
        return {name: function(name, one, images, labels) for name, one in opened.items()}


def parameter_gradients(
    model: nn.Module,
    batches: Data,
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
    for images, labels in paired(model, batches):
        with torch.enable_grad():
            value = finite("loss", loss(model(sound(model, images)), labels))
        found.append(dict(zip(wanted, gradients(value, wanted), strict=True)))
    return found
