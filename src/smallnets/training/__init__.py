"""Training: one plain loop, its settings, checkpoints that resume exactly, seeds side by side."""

from smallnets.training.fitting import check_apart, check_network, check_networks, teaching
from smallnets.training.joint import JointModels, ModelOutputs, observe
from smallnets.training.loop import Batch, Classification, fit
from smallnets.training.optimizers import Shampoo, new_optimizer
from smallnets.training.seeds import for_seeds, run_parallel, seeded
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
    "JointModels",
    "ModelOutputs",
    "Shampoo",
    "TrainSettings",
    "check_apart",
    "check_network",
    "check_networks",
    "fit",
    "for_seeds",
    "learning_rate",
    "new_optimizer",
    "observe",
    "run_parallel",
    "seeded",
    "teaching",
]
