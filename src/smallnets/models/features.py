"""Looking inside a network: the outputs of named submodules, kept as the network runs."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from torch import Tensor, nn

from smallnets.models.hooks import Recorder


class FeatureTap:
    """Keeps the outputs of `model`'s submodules `names` at each forward pass::

        with FeatureTap(network, network.stage_names) as tap:
            logits = network(images)
            loss = attention_loss(tap.features["stage3"], ...)

    The tap listens from its construction until the `with` block ends, however it ends, or `close`
    is called. The features belong to the latest forward pass and are part of its graph, so
    gradients flow through them. They are what the layers gave, whatever the network does to them
    afterwards: what it is about to overwrite is copied first, and nothing else is. A copy of the
    network made meanwhile is not listened to.

    Args:
        model: any module; wrapping it in another one does no harm.
        names: dotted names as in `model.named_modules()`, such as "stage3" or "stage3.0.conv1", of
            submodules that return a tensor.

    Raises:
        ValueError: if there are no names or a name is not a submodule (the message lists the
            submodules), if the network is compiled or scripted, so that nothing can listen to it,
            or, in a pass, if a submodule returns something else than a tensor.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        unknown = [name for name in names if not _has(model, name)]
        if unknown or not names:
            modules = [name for name, _ in model.named_modules() if name]
            given = ", ".join(map(repr, unknown)) or "none"
            raise ValueError(f"names must be among {', '.join(modules)}; got {given}")
        self.names = tuple(names)
        self._recorder = Recorder(model, self.names)

    @property
    def features(self) -> dict[str, Tensor]:
        """The latest output of every name, in the order of `names`.

        Raises:
            RuntimeError: if the network has not run yet.
            ValueError: if it ran without calling a named submodule, or called it more than once, or
                what a submodule gave has been overwritten since the pass.
        """
        return self._recorder.tensors(self.names)

    def close(self) -> None:
        """Stop listening. What was kept stays readable."""
        self._recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _has(model: nn.Module, name: str) -> bool:
    try:
        return bool(name) and isinstance(model.get_submodule(name), nn.Module)
    except AttributeError:
        return False
