"""How the teachers of this study learn."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from smallnets.training import Batch


@dataclass(frozen=True)
class Learning:
    """Cross-entropy with the labels, and "train", the share of right answers in the batch. No test
    image is looked at.

    Attributes:
        smoothing: probability spread evenly over the classes.
    """

    smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images).float()
        return {
            "loss": F.cross_entropy(logits, batch.labels, label_smoothing=self.smoothing),
            "train": (logits.argmax(1) == batch.labels).float().mean(),
        }
