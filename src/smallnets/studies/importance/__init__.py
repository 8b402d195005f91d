"""Chapter 05: which estimate of importance is right, and what is left of that after fine-tuning."""

from smallnets.studies.importance.estimates import (
    ESTIMATES,
    agreement_with,
    all_scores,
    groups_and_costs,
    inner_groups,
    loss_along_gate,
    minibatch_counts,
    minibatch_study,
    sampled,
    scoring_batches,
)
from smallnets.studies.importance.experiments import (
    SHOWN,
    WHOLE,
    iterative,
    masks_while_training,
    measure,
    percent,
    prune_and_tune,
    ranked,
    scores_of,
    start,
    train_whole,
)
from smallnets.studies.importance.plan import PRESETS, Options, Settings, prepare
from smallnets.studies.networks import build_network, evaluate_accuracy
from smallnets.studies.watching import watched

__all__ = [
    "ESTIMATES",
    "PRESETS",
    "SHOWN",
    "WHOLE",
    "Options",
    "Settings",
    "agreement_with",
    "all_scores",
    "build_network",
    "evaluate_accuracy",
    "groups_and_costs",
    "inner_groups",
    "iterative",
    "loss_along_gate",
    "masks_while_training",
    "measure",
    "minibatch_counts",
    "minibatch_study",
    "percent",
    "prepare",
    "prune_and_tune",
    "ranked",
    "sampled",
    "scores_of",
    "scoring_batches",
    "start",
    "train_whole",
    "watched",
]
