"""Batches of a user's own as every method reads them, whatever gives them."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from smallnets import checks

Source = Iterable[Any] | Callable[[], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of (inputs, labels) that are read anew in every epoch, one at a time.

    Nothing is kept: a loader stays as lazy as it is. Inputs go to the network as they come, so
    whoever makes them has normalised them, and augmented them if that is wanted.

    Attributes:
        source: a `torch.utils.data.DataLoader`, a list, anything that starts anew with every loop
            over it, or a function without arguments that returns such a thing for an epoch. What
            can be read once, such as a generator, will do where one pass is enough.
        num_classes: how many there are; None leaves it to what the networks say.
        length: batches an epoch, where `source` does not know and a schedule has to.
        labelled: whether batches are pairs (inputs, labels). Otherwise they are inputs, or pairs
            whose labels are not looked at, and all labels are 0.
        any_labels: whether labels may be tensors of any kind, for a loss of your own.
        prepare: applied to the inputs of every batch; uint8 images need it.
        like: inputs go to the device of this network's weights and take their type.
        _ahead: what `first` took of a source that can be read once.

    Raises:
        ValueError: a source that is nothing of the kind, a number below 1; and, when they are
            read, batches of another form, without examples, with labels that are not whole numbers
            from 0 to the number of classes - 1, or no batch at all.
    """

    source: Source
    num_classes: int | None = None
    length: int | None = None
    labelled: bool = True
    any_labels: bool = False
    prepare: Callable[[Tensor], Tensor] | None = None
    like: nn.Module | None = None
    _ahead: list[Any] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.source, Tensor | np.ndarray | str | dict) or not (
            isinstance(self.source, Iterable) or callable(self.source)
        ):
            raise ValueError(
                "data must be a Dataset, a DataLoader, a list of batches (inputs, labels), or a "
                f"function that returns an iterator over them; got {type(self.source).__name__}"
            )
        for name in ("num_classes", "length"):
            if getattr(self, name) is not None:
                checks.whole(name, getattr(self, name), 1)

    @property
    def once(self) -> bool:
        """Whether the source can be read a single time."""
        return isinstance(self.source, Iterator)

    @property
    def steps(self) -> int | None:
        """Batches an epoch, or None where nobody knows."""
        if self.length is None and isinstance(self.source, Sized):
            try:
                return len(self.source)
            except TypeError:  # a DataLoader over a stream
                return None
        return self.length

    @property
    def key(self) -> Any:
        """All that decides what the batches are, for the name of a training on them.

        A list is named by its tensors; a `DataLoader` over a `TensorDataset` by these and by how it
        draws from them, if it draws from torch's global generator, which a training seeds; both by
        what `prepare` is.

        Raises:
            ValueError: anything else, whose content cannot be told; the line says what to do.
        """
        how = (self.steps, self.labelled, self.any_labels, self.prepare)
        if isinstance(self.source, list | tuple):
            return "batches", how, [_digest(*self._parts(batch)) for batch in self.source]
        if isinstance(self.source, DataLoader) and _drawn_from_tensors(self.source):
            drawn = self.source.batch_sampler
            order = drawn.sampler
            among = (len(order.data_source), len(order), getattr(order, "replacement", None))
            drawn = (type(order).__name__, among, drawn.batch_size, drawn.drop_last)
            return "loader", drawn, how, _digest(*self.source.dataset.tensors)
        raise ValueError(
            "a training on batches can be kept if they are a list of tensors, or a plain "
            "DataLoader over a TensorDataset without a generator of its own, since what others "
            f"give has no name; got {type(self.source).__name__}: leave cache_dir out"
        )

    def on(self, network: nn.Module) -> "Batches":
        """The same batches on the device and in the type of a network's weights."""
        return replace(self, like=network)

    def without_labels(self) -> "Batches":
        """The same inputs; labels, if there are any, are not looked at, and are 0."""
        return replace(self, labelled=False)

    def of_classes(self, count: int) -> "Batches":
        """The same batches, whose labels are from 0 to `count` - 1 unless they said otherwise."""
        return replace(self, num_classes=self.num_classes or count)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (batch, ...) and labels int64 (batch,), batch by batch."""
        empty = True
        for batch in self._opened():
            empty = False
            yield self._read(batch)
        if empty:
            raise ValueError(f"data must give at least one batch; got none{self._why_none()}")

    def first(self) -> tuple[Tensor, Tensor]:
        """The first batch, to look at; it is part of the next epoch all the same.

        Random numbers that a loader draws from torch's global generator are given back.
        """
        with torch.random.fork_rng(devices=[]):
            source = iter(self._opened())
            for batch in source:
                if self.once:
                    self._ahead.append(batch)
                return self._read(batch)
        return next(iter(self))  # which says that there is none

    def glance(self, count: int = 2) -> Tensor:
        """The inputs of a few examples, at most `count`."""
        return self.first()[0][:count]

    def take(self, count: int) -> Tensor:
        """The inputs of the first `count` examples as one tensor, for methods that need them all.

        No more batches are read than that takes; there may be fewer examples.
        """
        return self.take_with_labels(count)[0]

    def take_with_labels(self, count: int) -> tuple[Tensor, Tensor]:
        """As `take`, with the labels of these examples."""
        checks.whole("count", count, 1)
        parts: list[tuple[Tensor, Tensor]] = []
        for pair in self:
            parts.append(pair)
            if sum(len(inputs) for inputs, _ in parts) >= count:
                break
        inputs, labels = (torch.cat(side)[:count] for side in zip(*parts, strict=True))
        return inputs, labels

    def _why_none(self) -> str:
        batches = getattr(self.source, "batch_sampler", self.source)
        if getattr(batches, "drop_last", False):
            return ": with drop_last=True, fewer examples than one batch are none"
        if isinstance(self.source, list | tuple | DataLoader):
            return ""
        return ": what is read once, such as a generator, needs a function that makes it anew"

    def _opened(self) -> Iterable[Any]:
        """The source from its beginning, as far as it has one."""
        if not isinstance(self.source, Iterable):
            return self.source()
        if self.once:
            seen, self._ahead[:] = list(self._ahead), []
            return chain(seen, self.source)
        return self.source

    def _parts(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Inputs as they come, and labels."""
        parts = list(batch) if isinstance(batch, Sequence) and not isinstance(batch, str) else batch
        if not isinstance(parts, list):
            parts = [parts]
        if not self.labelled:
            parts = parts[:1]
        if len(parts) != 1 + self.labelled or not isinstance(parts[0], Tensor | np.ndarray):
            form = "pairs (inputs, labels)" if self.labelled else "inputs"
            raise ValueError(f"batches must be {form} of tensors; got {_described(batch)}")
        inputs = torch.as_tensor(parts[0])
        if inputs.ndim == 0 or len(inputs) == 0:
            raise ValueError(f"a batch must hold examples; got inputs {tuple(inputs.shape)}")
        if not self.labelled:
            return inputs, torch.zeros(len(inputs), dtype=torch.int64)
        labels = torch.as_tensor(parts[1])
        return inputs, labels if self.any_labels else _labels(labels, len(inputs), self.num_classes)

    def _read(self, batch: Any) -> tuple[Tensor, Tensor]:
        inputs, labels = self._parts(batch)
        if self.prepare is not None:
            inputs = self.prepare(inputs)
        elif inputs.dtype == torch.uint8:
            raise ValueError(
                "inputs must be as the network takes them; got uint8: normalise them in the "
                "loader, or say how with Batches(loader, prepare=...)"
            )
        if self.like is None:
            return inputs, labels
        inputs = moved_to(self.like, inputs)
        return inputs, labels.to(inputs.device)


def check_labelled(data: object) -> None:
    """Raise ValueError if labels are needed and batches were said to have none."""
    if isinstance(data, Batches) and not data.labelled:
        raise ValueError("batches must have labels here; got labelled=False")


def moved_to(network: nn.Module, x: Tensor) -> Tensor:
    """A tensor on the device of a network's weights and, if it holds floating-point numbers, in
    their type.
    """
    weights = first_weights(network)
    if weights is None:
        return x
    return x.to(weights.device, weights.dtype if x.is_floating_point() else x.dtype)


def first_weights(network: nn.Module) -> Tensor | None:
    """The first floating-point tensor of a network, which says where and what its inputs are."""
    tensors = chain(network.parameters(), network.buffers())
    return next((one for one in tensors if one.is_floating_point()), None)


def _digest(*tensors: Tensor) -> str:
    """SHA-256 of types, shapes and values."""
    digest = sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _drawn_from_tensors(loader: "DataLoader[Any]") -> bool:
    """Whether a loader gives tensors in an order that only torch's global generator decides."""
    batches = loader.batch_sampler
    order = batches.sampler if type(batches) is BatchSampler else None
    return (
        type(loader) is DataLoader
        and type(loader.dataset) is TensorDataset
        and type(order) in (RandomSampler, SequentialSampler)
        and loader.generator is getattr(order, "generator", None) is None
        and loader.collate_fn is default_collate
        and loader.worker_init_fn is None
        and not loader.persistent_workers  # which seed themselves in their first epoch alone
        and getattr(loader, "in_order", True)
    )


def _labels(labels: Tensor, count: int, classes: int | None) -> Tensor:
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not whole or labels.shape != (count,):
        raise ValueError(
            f"labels must be whole numbers ({count},), one an example; "
            f"got {labels.dtype} {tuple(labels.shape)}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        allowed = "at least 0" if classes is None else f"between 0 and {classes - 1}"
        raise ValueError(f"labels must be {allowed}; got {low} to {high}")
    return labels.long()


def _described(batch: Any) -> str:
    if isinstance(batch, list | tuple):
        return f"{type(batch).__name__} of {', '.join(type(one).__name__ for one in batch)}"
    return type(batch).__name__
