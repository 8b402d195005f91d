"""Changing existing networks: other modules in their places, other BatchNorm statistics."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from smallnets.batches import Batches, Source
from smallnets.measure import evaluating


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one with a dotted name.

    Raises:
        ValueError: the name is empty, which stands for the network itself.
    """
    if not name:
        raise ValueError("the network must hold its layers; got a single layer")
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)


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
