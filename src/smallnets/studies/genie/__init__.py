"""Chapter 09: how good a network quantised without data is, and which images it takes."""

from smallnets.studies.genie.experiments import (
    Case,
    LearningTrace,
    assess,
    assess_all,
    calibration_images,
    cases,
    describe_images,
    diversity,
    learning_curve,
    synthesize_images,
    trace_learning,
    train_teacher,
)
from smallnets.studies.genie.plan import PRESETS, PUBLISHED, SOURCES, Options, Settings, prepare
from smallnets.studies.networks import build_network

__all__ = [
    "PRESETS",
    "PUBLISHED",
    "SOURCES",
    "Case",
    "LearningTrace",
    "Options",
    "Settings",
    "assess",
    "assess_all",
    "build_network",
    "calibration_images",
    "cases",
    "describe_images",
    "diversity",
    "learning_curve",
    "prepare",
    "synthesize_images",
    "trace_learning",
    "train_teacher",
]
