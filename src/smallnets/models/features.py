"""Looking inside a network: the outputs of named submodules, kept as the network runs."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class FeatureTap:
    """Keeps the outputs of `model`'s submodules `names` at each forward pass::

        with FeatureTap(network, network.stage_names) as tap:
            logits = network(images)
            loss = attention_loss(tap.features["stage3"], ...)

    The tap listens from its construction until the `with` block ends, however it ends, or `close`
    is called. The features belong to the latest forward pass and are part of its graph, so
    gradients flow through them. A copy of the network made meanwhile is not listened to.

    Args:
        model: any module; wrapping it in another one does no harm.
        names: dotted names as in `model.named_modules()`, such as "stage3" or "stage3.0.conv1", of
            submodules that return a tensor.

    Raises:
        ValueError: if there are no names or a name is not a submodule; the message lists the
            submodules.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        modules = {name: module for name, module in model.named_modules() if name}
        unknown = [name for name in names if name not in modules]
        if unknown or not names:
            given = ", ".join(map(repr, unknown)) or "none"
            raise ValueError(f"names must be among {', '.join(modules)}; got {given}")
        self.names = tuple(names)
        self._features: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = [
            modules[name].register_forward_hook(self._keep(name, modules[name]))
            for name in self.names
        ]

    def _keep(self, name: str, module: nn.Module) -> Callable[[nn.Module, Any, Tensor], None]:
        features = self._features

        def hook(called: nn.Module, inputs: Any, output: Tensor) -> None:
            if called is module:  # copy.deepcopy copies hooks too: a copy must not overwrite
                features[name] = output

        return hook

    @property
    def features(self) -> dict[str, Tensor]:
        """The latest output of every name, in the order of `names`.

        Raises:
            RuntimeError: if a named submodule has not run yet.
        """
        missing = [name for name in self.names if name not in self._features]
        if missing:
            raise RuntimeError(f"no features of {', '.join(missing)} yet: run the network first")
        return {name: self._features[name] for name in self.names}

    def close(self) -> None:
        """Stop listening. What was kept stays readable."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
