"""Early exits: easy images leave a network before its end (Teerapittayanon et al., ICPR 2016).

Small classifiers read some of its layers. An image takes the answer of the first that is sure
enough, and what comes after it is not computed.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from smallnets import checks
from smallnets.batches import Batches, Source, check_labelled
from smallnets.measure import evaluating, one_tensor
from smallnets.measure.evaluation import example_input
from smallnets.models.hooks import uncompiled
from smallnets.prune.sparse.objectives import behind_fabric
from smallnets.training import Batch, check_network
from smallnets.training.draws import global_draws_kept, seed_global


class _AllHaveLeftError(Exception):
    """No image of the batch is left in the network."""


class ExitHead(nn.Module):
    """A classifier of a feature map: the mean over positions, then one linear layer.

    Args:
        channels, classes: of the feature map and of the answer.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (batch, classes) of features (batch, channels, ...)."""
        return self.linear(features.flatten(2).mean(2) if features.ndim > 2 else features)


class EarlyExit(nn.Module):
    """A network with exits.

    Args:
        network: trained in place, and a plain network again without what is around it.
        layers: dotted names of the layers that exits read, in the order in which they run; each
            must give a tensor (batch, channels, ...) once in a pass.
        example: (batch, ...) input, to see the layers' channels.
        threshold: how probable the best class must be at an exit, in [0, 1]; at 0 all leave at the
            first, at 1 only those of which it is certain to the last digit.
        seed: of the exits' random start.

    Raises:
        ValueError: no layers, an unknown one, one that does not run or gives no feature map, layers
            in another order than they run, or a threshold out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        example: Tensor,
        *,
        threshold: float = 0.9,
        seed: int = 0,
    ) -> None:
        super().__init__()
        checks.between("threshold", threshold, 0, 1)
        self.network, self.layers, self.threshold = network, tuple(layers), threshold
        seen = check_network("the network", network, example[:2], layers=self.layers)
        if not self.layers:
            raise ValueError("layers must be at least one for an exit; got none")
        with global_draws_kept():
            seed_global(checks.whole("seed", seed, 0))
            heads = [_head(name, seen.features[name], seen.logits) for name in self.layers]
        self.heads = nn.ModuleList(heads).to(seen.logits.device)
        ran = self._order(example)
        if ran != list(self.layers):
            raise ValueError(
                f"layers must be in the order in which they run, {', '.join(ran)}; "
                f"got {', '.join(self.layers)}"
            )

    def _order(self, example: Tensor) -> list[str]:
        ran: list[str] = []
        with evaluating(self.network), torch.no_grad():
            self._pass(example[:2], lambda place, _: ran.append(self.layers[place]))
        return ran

    def forward(self, inputs: Tensor, everywhere: bool = False) -> Tensor | list[Tensor]:
        """Logits (batch, classes).

        In training those of the whole network; in evaluation of each image's own exit, and the pass
        ends as soon as all images have left.

        Args:
            inputs: (batch, ...).
            everywhere: give the logits of every exit and of the network, whoever would leave.
        """
        if everywhere:
            found: list[Tensor] = []
            end = self._pass(inputs, lambda _, logits: found.append(logits))
            return [*found, end]
        if self.training:
            return one_tensor(self.network(inputs))
        return self.leaving(inputs)[0]

    def leaving(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, classes) of each image's own exit, and which that was (batch,): a place
        among the layers, or their number for the end of the network.
        """
        taken = torch.full((len(inputs),), len(self.layers), device=inputs.device)
        answers: list[Tensor] = []

        def leave(place: int, logits: Tensor) -> None:
            sure = logits.softmax(1).amax(1) >= self.threshold
            taken[sure & (taken == len(self.layers))] = place
            answers.append(logits)
            if bool((taken < len(self.layers)).all()):
                raise _AllHaveLeftError

        with suppress(_AllHaveLeftError):
            answers.append(self._pass(inputs, leave))
        each = torch.stack(answers)
        return each[taken, torch.arange(len(inputs), device=inputs.device)], taken

    def _pass(self, inputs: Tensor, at_exit: Callable[[int, Tensor], object]) -> Tensor:
        """The network's logits, while something is told of every exit that is passed."""

        def read(place: int, _: nn.Module, __: object, features: Tensor) -> None:
            at_exit(place, self.heads[place](features))

        with ExitStack() as stack, uncompiled(self.network, self.layers):
            for place, name in enumerate(self.layers):
                module = self.network.get_submodule(name)
                stack.callback(module.register_forward_hook(partial(read, place)).remove)
            return one_tensor(self.network(inputs))


def _head(name: str, features: Tensor, logits: Tensor) -> ExitHead:
    if features.ndim < 2 or len(features) != len(logits):
        raise ValueError(
            f"layer {name!r} must give (batch, channels, ...) for an exit; "
            f"got the shape {tuple(features.shape)}"
        )
    return ExitHead(features.shape[1], logits.shape[1]).to(features.dtype)


@dataclass(frozen=True)
class AllExits:
    """The objective of an `EarlyExit` network: cross-entropy at every exit and at the end.

    Attributes:
        weight: of the exits' mean loss, beside 1 for the end.

    Raises:
        ValueError: a weight that is not above 0.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.above("weight", self.weight, 0)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The terms "loss", "end", and "exit NAME" of every exit."""
        layers = behind_fabric(model, EarlyExit, self).layers
        every = model(batch.images, True)
        losses = [F.cross_entropy(logits.float(), batch.labels) for logits in every]
        exits = dict(zip((f"exit {name}" for name in layers), losses, strict=False))
        loss = losses[-1] + self.weight * torch.stack(losses[:-1]).mean()
        return {"loss": loss, "end": losses[-1]} | exits


def exit_macs(network: EarlyExit, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Multiply-adds of one example up to each exit, and to the end of the network.

    The classifiers of exits that are passed count. What a layer before an exit computes counts for
    it, also where the exit does not need it.

    Args:
        network: run once.
        input_shape: one example's shape, such as (3, 32, 32).
    """
    found: list[int] = []
    counter = FlopCounterMode(display=False)  # counts a multiply-add as two operations
    example = example_input(network, input_shape)
    with evaluating(network), torch.no_grad(), counter:
        network._pass(example, lambda *_: found.append(counter.get_total_flops() // 2))
    return (*found, counter.get_total_flops() // 2)


@dataclass(frozen=True)
class ExitReport:
    """What early exits do on some images.

    Attributes:
        accuracy: share of right answers, of 1.
        shares: of the images that leave at each exit, and at the end.
        macs: multiply-adds of one image that leaves there.
        average_macs: of all images.
    """

    accuracy: float
    shares: tuple[float, ...]
    macs: tuple[int, ...]
    average_macs: float


def exit_report(network: EarlyExit, batches: Batches | Source) -> ExitReport:
    """Where images leave, what that costs, and how often the answer is right.

    Args:
        network: run in evaluation mode, and left in its own.
        batches: pairs (inputs, labels), as of a DataLoader; all inputs of one shape.

    Raises:
        ValueError: see `Batches`.
    """
    given = batches if isinstance(batches, Batches) else Batches(batches)
    check_labelled(given)
    places, right, shape = [], [], None
    with evaluating(network), torch.no_grad():
        for inputs, labels in given.on(network):
            logits, taken = network.leaving(inputs)
            places.append(taken)
            right.append(logits.argmax(1) == labels)
            shape = tuple(inputs.shape[1:])
    counts = torch.cat(places).bincount(minlength=len(network.layers) + 1).double()
    shares = tuple((counts / counts.sum()).tolist())
    macs = exit_macs(network, shape or ())
    average = sum(share * cost for share, cost in zip(shares, macs, strict=True))
    return ExitReport(torch.cat(right).double().mean().item(), shares, macs, average)
