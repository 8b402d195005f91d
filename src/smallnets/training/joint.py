"""Several models trained as one: the same batches, the same views, one pass of a shared teacher.

The parameters of the members are disjoint, so the gradient of the summed loss is each member's own
gradient and SGD moves every member just as it would alone. What is gained: the teacher, the
augmentation and the data are computed once for all, and members are compared on exactly the same
stream of images.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from smallnets.models import FeatureTap


class ModelOutputs(NamedTuple):
    """What a network said, and what it looked like inside."""

    logits: Tensor  # (batch, classes)
    features: dict[str, Tensor]  # layer name -> that layer's output


def observe(model: nn.Module, images: Tensor, layers: Sequence[str] = ()) -> ModelOutputs:
    """One forward pass that also returns the outputs of the named layers.

    Raises:
        ValueError: the model has no layer of a given name; the message lists those it has.
    """
    if not layers:
        return ModelOutputs(model(images), {})
    with FeatureTap(model, layers) as tap:
        logits = model(images)
        return ModelOutputs(logits, tap.features)


class JointModels(nn.Module):
    """Named models that are trained together.

    Args:
        members: name -> model.
        layers: name -> the layers whose outputs that member's objective needs.
    """

    def __init__(
        self,
        members: Mapping[str, nn.Module],
        layers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(members)
        self.members = nn.ModuleList(members.values())
        self.layers = [tuple((layers or {}).get(name, ())) for name in members]

    def forward(self, images: Tensor) -> dict[str, ModelOutputs]:
        """Observations of every member on the same images (batch, channels, height, width)."""
        parts = zip(self.names, self.members, self.layers, strict=True)
        return {name: observe(model, images, layers) for name, model, layers in parts}
