"""The head of a classifier, which grows with every task."""

import copy

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.models.hooks import Recorder
from smallnets.surgery import replace_module
from smallnets.training import ModelOutputs, seeded


def head_name(model: nn.Module, name: str | None = None) -> str:
    """Dotted name of the linear layer that ends a classifier.

    Args:
        model: any network.
        name: of the head, where it is not the last layer that the network lists.

    Raises:
        ValueError: there is no such layer, or it is no `nn.Linear`; the message names it.
    """
    layers = {known: m for known, m in model.named_modules() if known and not m._modules}
    if not layers:
        raise ValueError(
            f"the classifier must have a head of type nn.Linear; {type(model).__name__} has no "
            "layers in it"
        )
    found = list(layers)[-1] if name is None else name
    if found not in layers:
        raise ValueError(f"head must be one of {', '.join(layers)}; got {found!r}")
    if not isinstance(layers[found], nn.Linear):
        raise ValueError(
            f"the head must be an nn.Linear; {found!r} is a {type(layers[found]).__name__}"
            + ("" if name else ": say which layer it is with head=...")
        )
    return found


def head_of(model: nn.Module, name: str | None = None) -> nn.Linear:
    """The linear layer that ends a classifier, see `head_name`."""
    layer = model.get_submodule(head_name(model, name))
    assert isinstance(layer, nn.Linear)
    return layer


def grow_head(model: nn.Module, n_new: int, *, seed: int = 0, head: str | None = None) -> nn.Module:
    """A copy of a classifier with `n_new` more classes; the given one is left as it is.

    Old rows and biases are copied, new ones have the default initial values of `nn.Linear`, drawn
    from `seed`. Build the optimiser afterwards: the head's parameters are new ones.

    Args:
        model: any network whose head is an `nn.Linear`.
        n_new: classes to add, at least 1.
        seed: of the new rows.
        head: see `head_name`.

    Raises:
        ValueError: a number out of range, or see `head_name`.
    """
    checks.whole("n_new", n_new, 1)
    grown = copy.deepcopy(model)
    name = head_name(grown, head)
    old = head_of(grown, name)
    with seeded(seed):
        new = nn.Linear(old.in_features, old.out_features + n_new, old.bias is not None)
    new = new.to(old.weight)
    with torch.no_grad():
        new.weight[: old.out_features] = old.weight
        if old.bias is not None:
            new.bias[: old.out_features] = old.bias
    new.train(old.training)
    replace_module(grown, name, new)
    return grown


class OpenClassifier(nn.Module):
    """A classifier that also returns its penultimate features, for losses that need them.

    Args:
        model: trained in place.
        head: see `head_name`.
    """

    def __init__(self, model: nn.Module, head: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.head = head_name(model, head)

    def forward(self, images: Tensor) -> ModelOutputs:
        """Logits (batch, classes), and under "head" what the head is given (batch, features)."""
        recorder = Recorder(self.model, [self.head], "in")
        try:
            logits = self.model(images)
            return ModelOutputs(logits, {"head": recorder.tensors([self.head])[self.head]})
        finally:
            recorder.close()
