"""Chapter 02: which ways to learn from a teacher work, alone and together, and why."""

from smallnets.studies.networks import build_network
from smallnets.studies.similarity.experiments import (
    ablations,
    compare,
    corrupted,
    equal_start,
    methods,
    sweep,
    train_students,
    train_teacher,
    transfer,
)
from smallnets.studies.similarity.plan import PRESETS, Options, Settings, prepare
from smallnets.studies.study import best_setting

__all__ = [
    "PRESETS",
    "Options",
    "Settings",
    "ablations",
    "best_setting",
    "build_network",
    "compare",
    "corrupted",
    "equal_start",
    "methods",
    "prepare",
    "sweep",
    "train_students",
    "train_teacher",
    "transfer",
]
