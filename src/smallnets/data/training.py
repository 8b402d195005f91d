"""The one door for training data: a `Dataset`, or batches of one's own."""

from typing import TypeAlias

from smallnets.batches import Batches, Source
from smallnets.data.dataset import Dataset

TrainingData: TypeAlias = Dataset | Batches | Source


def as_batches(data: TrainingData) -> Dataset | Batches:
    """Data as methods ask for it: a `Dataset` or `Batches` as it is, anything else as `Batches`.

    Both have `num_classes` (None where nobody said), `of_classes`, `glance` and `key`.

    Raises:
        ValueError: it is neither a `Dataset` nor something that gives batches; see `Batches`.
    """
    return data if isinstance(data, Dataset | Batches) else Batches(data)
