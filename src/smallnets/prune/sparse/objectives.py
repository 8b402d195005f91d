"""What objectives of networks that wrap another have in common."""

from typing import TypeVar

from torch import nn

from smallnets.training import Classification

Kind = TypeVar("Kind", bound=nn.Module)
CROSS_ENTROPY = Classification()


def behind_fabric(model: nn.Module, kind: type[Kind], objective: object) -> Kind:
    """The network that an objective trains, without Fabric's wrapper around it.

    Raises:
        ValueError: it is of another kind.
    """
    inner = model if isinstance(model, kind) else getattr(model, "module", model)
    if not isinstance(inner, kind):
        raise ValueError(
            f"{type(objective).__name__} trains networks of the class {kind.__name__}; "
            f"got {type(inner).__name__}"
        )
    return inner
