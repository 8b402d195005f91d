"""Changing existing networks: other modules in their places, other BatchNorm statistics."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedParameter

from smallnets.batches import Batches, Source
from smallnets.measure import evaluating

Place = tuple[nn.Module, str]  # a module, and the name under which it holds another


def places_of(network: nn.Module, modules: Sequence[nn.Module]) -> list[list[Place]]:
    """Where a network holds modules: one that is used twice may stand at several places.

    Raises:
        ValueError: one is the network itself, which nothing holds.
    """
    found: dict[nn.Module, list[Place]] = {module: [] for module in modules}
    if network in found:
        raise ValueError("the network must hold its layers; got a single layer")
    for parent in network.modules():
        for name, child in parent._modules.items():
            if child in found:
                found[child].append((parent, name))
    return [found[module] for module in modules]


def put(places: Iterable[Place], module: nn.Module) -> None:
    """Put a module at some places."""
    for parent, name in places:
        setattr(parent, name, module)


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one with a dotted name, wherever else that one stands, too.

    Raises:
        ValueError: the name is empty, which stands for the network itself.
    """
    (places,) = places_of(network, [network.get_submodule(name)])
    put(places, module)


def check_plain(name: str, module: nn.Module, *, kind: type[nn.Module] | None = None) -> None:
    """Refuse a layer whose weight or bias is more than a plain parameter of real numbers.

    Args:
        name: of the layer in its network.
        module: a convolution, linear layer or norm.
        kind: of layer that it should compute as, where its computation is going to be replaced.

    Raises:
        ValueError: a weight that is computed (weight norm, spectral norm and other
            parametrisations), missing (a norm without scale), not yet there (a lazy layer), complex
            or whole numbers; or a forward pass of the layer's own.
    """
    for part in ("weight", "bias"):
        value = module._parameters.get(part)
        computed = value is None and getattr(module, part, None) is not None
        if value is None and not computed and part == "bias":
            continue
        if computed:
            fault = "computed from others (a parametrisation, such as weight norm): bake it in"
        elif value is None:
            fault = "missing (as in a norm with affine=False)"
        elif isinstance(value, UninitializedParameter):
            fault = "not there yet: run the network once"
        elif not value.is_floating_point():
            fault = str(value.dtype)
        else:
            continue
        raise ValueError(
            f"the {part} of layer {name!r} must be a plain parameter of real numbers; it is {fault}"
        )
    if kind is not None and type(module).forward is not kind.forward:
        raise ValueError(
            f"layer {name!r} must compute as {kind.__name__} does; "
            f"{type(module).__name__} has a forward pass of its own"
        )


def check_untied(network: nn.Module, names: Iterable[str]) -> None:
    """Refuse layers that share a parameter with another module.

    Args:
        network: the whole.
        names: dotted names of layers that are to be changed by themselves.

    Raises:
        ValueError: a weight is tied.
    """
    holders: dict[int, list[str]] = {}
    for name, module in network.named_modules():
        for parameter in module._parameters.values():
            holders.setdefault(id(parameter), []).append(name)
    for name in names:
        for parameter in network.get_submodule(name)._parameters.values():
            others = [one for one in holders[id(parameter)] if one != name]
            if parameter is not None and others:
                raise ValueError(
                    f"layer {name!r} must have parameters of its own; it shares one with "
                    f"{others[0]!r}"
                )


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers of a network, of images, sequences and volumes alike."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


@torch.no_grad()
def recalibrate(
    network: nn.Module,
    batches: Batches | Source,
    norms: Sequence[_BatchNorm] | None = None,
    *,
    reset: bool = True,
) -> nn.Module:
    """Give BatchNorm layers the statistics of some images, in place; no weight changes.

    Args:
        network: everything but those layers is in evaluation mode meanwhile, and all modes are
            restored.
        batches: inputs (n, ...) as the network takes them, or pairs (inputs, labels), whose labels
            are not looked at; a DataLoader will do.
        norms: the layers; by default all of the network.
        reset: forget what they remember, and take the plain mean over the batches. Otherwise the
            running statistics are moved by the momentum that each layer has.

    Returns:
        The network.

    Raises:
        ValueError: no batch, one without examples, or something else than tensors.
    """
    norms = batch_norms(network) if norms is None else norms
    momenta = [norm.momentum for norm in norms]
    given = batches if isinstance(batches, Batches) else Batches(batches)
    with evaluating(network):
        for norm in norms:
            norm.train()
            if reset:
                norm.reset_running_stats()
                norm.momentum = None  # the plain mean over batches
        try:
            for inputs, _ in given.without_labels().on(network):
                network(inputs)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return network
