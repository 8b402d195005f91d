"""Chapter 02: which ways to learn from a teacher work, alone and together, and why."""

from smallnets.studies.networks import build_network
from smallnets.studies.similarity.experiments import (
    ablations,
    best_weights,
    candidates,
    compare,
    compared,
    corrupted,
    equal_start,
    learning_curves,
    measure,
    measure_further,
    methods,
    search,
    train_students,
    train_teacher,
    transfer,
)
from smallnets.studies.similarity.plan import PRESETS, Options, Settings, Weights, prepare

__all__ = [
    "PRESETS",
    "Options",
    "Settings",
    "Weights",
    "ablations",
    "best_weights",
    "build_network",
    "candidates",
    "compare",
    "compared",
    "corrupted",
    "equal_start",
    "learning_curves",
    "measure",
    "measure_further",
    "methods",
    "prepare",
    "search",
    "train_students",
    "train_teacher",
    "transfer",
]
