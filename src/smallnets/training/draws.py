"""What draws random numbers inside a network: dropout asks PyTorch's global generators.

A training seeds the global generators of PyTorch, NumPy and Python from its own seed, keeps their
states with its checkpoint, and leaves them as it found them.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from smallnets.training.settings import TrainSettings

EPOCHS, GLOBAL = 0, 1  # what the numbers are for
Train = TypeVar("Train", bound=Callable[..., Any])


class Draws(Protocol):
    """A generator of random numbers whose state can be kept."""

    def get_state(self) -> Tensor:
        """Bytes, always as many."""

    def set_state(self, state: Tensor) -> object:
        """Go on from what `get_state` returned."""


class NumPyDraws:
    """NumPy's global generator."""

    def get_state(self) -> Tensor:
        _, key, *rest = np.random.get_state(legacy=True)
        return _bytes(np.array(key, np.float64), np.array(rest, np.float64))

    def set_state(self, state: Tensor) -> None:
        *key, place, has_gauss, gauss = _numbers(state)
        words = np.array(key).astype(np.uint32)
        np.random.set_state(("MT19937", words, int(place), int(has_gauss), gauss))


class PythonDraws:
    """Python's global generator."""

    def get_state(self) -> Tensor:
        _, words, gauss = random.getstate()
        rest = (gauss is not None, gauss or 0.0)
        return _bytes(np.array(words, np.float64), np.array(rest, np.float64))

    def set_state(self, state: Tensor) -> None:
        *words, has_gauss, gauss = _numbers(state)
        random.setstate((3, tuple(map(int, words)), gauss if has_gauss else None))


def _bytes(*parts: np.ndarray) -> Tensor:
    """Numbers below 2**53 as float64, which holds them exactly."""
    return torch.from_numpy(np.concatenate(parts)).view(torch.uint8)


def _numbers(state: Tensor) -> list[float]:
    return state.clone().view(torch.float64).tolist()


def global_draws(device: torch.device) -> tuple[Draws, ...]:
    """All generators that code on a device may draw from without naming one."""
    found: tuple[Draws, ...] = (torch.default_generator, NumPyDraws(), PythonDraws())
    if device.type == "cuda":
        place = torch.cuda.current_device() if device.index is None else device.index
        return (*found, torch.cuda.default_generators[place])
    return found


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of one epoch's order of images, where an order runs on across epochs.

    A hash: sums and products of small numbers meet, and then one epoch's order is that of another
    seed's.
    """
    return _hashed(seed, epoch, EPOCHS)


def seed_global(seed: int, process: int = 0) -> None:
    """Seed all global generators of one process of a training.

    Args:
        seed: of the training, at least 0.
        process: its number among those that train together.
    """
    number = _hashed(seed, process, GLOBAL)
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


def _hashed(*numbers: int) -> int:
    """A number below 2**32: PyTorch's generator for processors looks at no higher bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def global_draws_kept() -> Iterator[None]:
    """Leave all global generators as they were found, also after an error."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    found = [
        *global_draws(torch.device("cpu")), *(torch.cuda.default_generators[i] for i in gpus)
    ]  # fmt: skip
    states = [one.get_state() for one in found]
    try:
        yield
    finally:
        for one, state in zip(found, states, strict=True):
            one.set_state(state)


def leaving_global_draws(train: Train) -> Train:
    """A training (model, data, settings, ...) that leaves all global generators as they were.

    CUDA is started before if its settings train there: its generators have no state until then.
    """

    @wraps(train)
    def kept(model: nn.Module, dataset: Any, settings: TrainSettings, **named: Any) -> Any:
        if settings.accelerator == "cuda":
            torch.cuda.init()
        with global_draws_kept():
            return train(model, dataset, settings, **named)

    return cast(Train, kept)
