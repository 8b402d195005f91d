"""Chapter 08: networks of many widths against dedicated ones, and what each ingredient does."""

from smallnets.studies.layered.experiments import (
    MAIN,
    accuracies,
    code_bytes,
    conditions,
    confidences,
    evaluate_variant,
    fleet_bytes,
    gradient_gram,
    rule_errors,
    run_variants,
    train_float,
    train_quantised,
)
from smallnets.studies.layered.plan import PRESETS, PUBLISHED, Options, Settings, prepare
from smallnets.studies.layered.variants import VARIANTS
from smallnets.studies.networks import build_network, evaluate_accuracy

__all__ = [
    "MAIN",
    "PRESETS",
    "PUBLISHED",
    "VARIANTS",
    "Options",
    "Settings",
    "accuracies",
    "build_network",
    "code_bytes",
    "conditions",
    "confidences",
    "evaluate_accuracy",
    "evaluate_variant",
    "fleet_bytes",
    "gradient_gram",
    "prepare",
    "rule_errors",
    "run_variants",
    "train_float",
    "train_quantised",
]
