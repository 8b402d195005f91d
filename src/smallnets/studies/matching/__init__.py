"""Chapter 04: patience, consistency, and what else makes a student match its teacher's function."""

from smallnets.studies.matching.experiments import (
    evaluate_pair,
    measurements,
    other_images,
    pretrained,
    run_students,
    train_pair,
    train_teacher,
    transfer_set,
)
from smallnets.studies.matching.plan import PRESETS, Options, Settings, prepare
from smallnets.studies.matching.recipes import GRID, PATIENCE, RECIPES, Recipe, recipe
from smallnets.studies.matching.students import (
    StudentConfig,
    costs,
    details,
    patience,
    regimes,
    resolutions,
    search,
    starts,
    variants,
)
from smallnets.studies.networks import build_network
from smallnets.studies.study import best_setting

__all__ = [
    "GRID",
    "PATIENCE",
    "PRESETS",
    "RECIPES",
    "Options",
    "Recipe",
    "Settings",
    "StudentConfig",
    "best_setting",
    "build_network",
    "costs",
    "details",
    "evaluate_pair",
    "measurements",
    "other_images",
    "patience",
    "prepare",
    "pretrained",
    "recipe",
    "regimes",
    "resolutions",
    "run_students",
    "search",
    "starts",
    "train_pair",
    "train_teacher",
    "transfer_set",
    "variants",
]
