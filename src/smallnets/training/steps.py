"""The steps of an epoch on batches of one's own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from smallnets.batches import Batches
from smallnets.training.settings import TrainSettings


class Step(NamedTuple):
    """What a step of training begins with."""

    time: float  # in epochs
    images: Tensor  # (batch, ...) as the network takes them, not yet augmented
    labels: Tensor  # (batch,)
    which: Tensor | None = None  # (batch,) their places among the training images


Steps = Callable[[int], Iterator[Step]]  # an epoch, from 0 -> its steps


@contextmanager
def a_batch_of_one_explained() -> Iterator[None]:
    """Say in one line what BatchNorm, in training, says of a batch of one example."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise ValueError(
            "a batch must hold at least 2 examples for BatchNorm; got 1: a loader with "
            "drop_last=True leaves such a last batch out"
        ) from error


def steps_of_batches(batches: Batches, settings: TrainSettings, network: nn.Module) -> Steps:
    """The steps of batches as they come, on the device and in the type of a network's weights.

    Raises:
        ValueError: the batches can be read once and there are several epochs, batches are to run
            on across epochs, or the schedule needs the number of batches, which nobody knows.
    """
    if batches.once and settings.epochs > 1:
        raise ValueError(
            f"data must start anew in each of {settings.epochs} epochs; got "
            f"{type(batches.source).__name__}, which can be read once: give a DataLoader, a list, "
            "or a function that makes it anew"
        )
    if settings.across_epochs:
        raise ValueError("across_epochs must be False for batches of your own; got True")
    moves = settings.schedule in ("cosine", "linear") or settings.warmup_epochs > 0
    length = batches.steps
    if length is None and moves and not settings.whole_epochs:
        raise ValueError(
            f"the schedule {settings.schedule!r} needs the number of batches an epoch, which the "
            "data do not know: give Batches(data, length=...), or whole_epochs=True"
        )

    def epoch(number: int) -> Iterator[Step]:
        for step, (inputs, labels) in enumerate(batches.on(network)):
            time = number if length is None else number + min(step / length, 1)
            yield Step(time, inputs, labels)

    return epoch
