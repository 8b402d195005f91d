"""Training: one plain loop, its settings, checkpoints that resume exactly, seeds side by side."""

from smallnets.training.cohort import Cohort, Observed, observe
from smallnets.training.loop import Batch, Classification, fit
from smallnets.training.optimizers import Shampoo, new_optimizer
from smallnets.training.seeds import for_seeds, seeded, side_by_side, with_seeds
from smallnets.training.settings import (
    DEVICES,
    OPTIMIZERS,
    PRECISIONS,
    TrainSettings,
    learning_rate,
)

__all__ = [
    "DEVICES",
    "OPTIMIZERS",
    "PRECISIONS",
    "Batch",
    "Classification",
    "Cohort",
    "Observed",
    "Shampoo",
    "TrainSettings",
    "fit",
    "for_seeds",
    "learning_rate",
    "new_optimizer",
    "observe",
    "seeded",
    "side_by_side",
    "with_seeds",
]
