"""Chapter 05: which estimate of importance is right, and what is left of that after fine-tuning."""

from smallnets.studies.importance.experiments import (
    ESTIMATES,
    TUNED,
    CriteriaReport,
    agreement_with,
    by_share,
    evaluate_criteria,
    evaluate_criteria_each,
    groups_and_costs,
    loss_along_gate,
    masks_while_training,
    prune_and_tune,
    ranked,
    scoring_batches,
    train_whole,
    tune_all,
    widths,
)
from smallnets.studies.importance.plan import PRESETS, Options, Settings, prepare
from smallnets.studies.networks import build_network, evaluate_accuracy

__all__ = [
    "ESTIMATES",
    "PRESETS",
    "TUNED",
    "CriteriaReport",
    "Options",
    "Settings",
    "agreement_with",
    "build_network",
    "by_share",
    "evaluate_accuracy",
    "evaluate_criteria",
    "evaluate_criteria_each",
    "groups_and_costs",
    "loss_along_gate",
    "masks_while_training",
    "prepare",
    "prune_and_tune",
    "ranked",
    "scoring_batches",
    "train_whole",
    "tune_all",
    "widths",
]
