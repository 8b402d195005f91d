"""Feature maps of any network beside its output, as distillation needs them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.gan.networks.resnet import Taps
from smallnets.measure import evaluating
from smallnets.models.hooks import Recorder


def check_taps(network: nn.Module, taps: Sequence[str]) -> tuple[str, ...]:
    """Names of modules whose outputs are wanted.

    Raises:
        ValueError: a name that the network lacks.
    """
    names = dict(network.named_modules())
    for name in taps:
        if name not in names or not name:
            raise ValueError(
                f"a tap must be the dotted name of a module of {type(network).__name__}; "
                f"got {name!r}"
            )
    return tuple(taps)


class Tapped(nn.Module):
    """A network that also gives what some of its modules write.

    Args:
        network: any, of one input; not copied.
        taps: dotted names of modules that are called once in a pass.

    Raises:
        ValueError: a name that the network lacks.
    """

    def __init__(self, network: nn.Module, taps: Sequence[str]) -> None:
        super().__init__()
        self.taps, self.network = check_taps(network, taps), network

    def forward(self, x: Tensor, taps: bool = False) -> Tensor | Taps:
        """The network's output; with `taps` also the feature maps, in the order of the names."""
        if not taps:
            out: Tensor = self.network(x)
            return out
        recorder = Recorder(self.network, self.taps)
        try:
            out = self.network(x)
            found = recorder.tensors(self.taps)
        finally:
            recorder.close()
        return out, [found[name] for name in self.taps]

    def tap_channels(self, example: Tensor) -> list[int]:
        """Channels of the feature maps, seen in a pass of an example."""
        checks.at_least("examples", len(example), 1)
        with evaluating(self), torch.no_grad():
            _, found = self(example, taps=True)
        return [tap.shape[1] for tap in found]
