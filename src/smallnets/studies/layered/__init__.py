"""Chapter 08: networks of many widths against dedicated ones, and what each ingredient does."""

from smallnets.studies.layered.experiments import (
    accuracies,
    changed_answers,
    code_bytes,
    conditions,
    confidences,
    evaluate_variant,
    gradient_gram,
    measure_all,
    rule_errors,
    run_variants,
    train_float,
    train_quantised,
    watch_float,
)
from smallnets.studies.layered.plan import PRESETS, PUBLISHED, Options, Settings, prepare
from smallnets.studies.layered.variants import JUDGED, VARIANTS
from smallnets.studies.networks import build_network, evaluate_accuracy

__all__ = [
    "JUDGED",
    "PRESETS",
    "PUBLISHED",
    "VARIANTS",
    "Options",
    "Settings",
    "accuracies",
    "build_network",
    "changed_answers",
    "code_bytes",
    "conditions",
    "confidences",
    "evaluate_accuracy",
    "evaluate_variant",
    "gradient_gram",
    "measure_all",
    "prepare",
    "rule_errors",
    "run_variants",
    "train_float",
    "train_quantised",
    "watch_float",
]
