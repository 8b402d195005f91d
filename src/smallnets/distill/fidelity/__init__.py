"""Does knowledge distillation really work? (Stanton et al., NeurIPS 2021, arXiv:2106.05945).

A student that does well is not a student that copies its teacher. This package measures both, and
has what it takes to look for the reason: losses, data, starts, and the loss between networks.

- `ensemble_log_probs`, `soft_cross_entropy`, `distillation_loss`, `LOSSES`: targets and losses.
- `FidelityMeter`, `agreement_bounds`, `overlap`: measures.
- `Policy`, `policies`, `ClassGaussian`, `foreign_images`, `halves`: what the student is shown.
- `Ensemble`, `Objective`, `distill_from_ensemble`: training students, one or several at once.
- `interpolate_state`, `between`: where the student starts.
- `plane_basis`, `loss_surface`, `straight_path`, `distillation_gap`: the loss between networks.

The official code is samuelstanton/gnosis. Where paper and code disagree, docstrings say which is
followed.
"""

from smallnets.distill.fidelity.losses import (
    LOSSES,
    annealed,
    brier_distance,
    distillation_loss,
    divergence,
    hard_cross_entropy,
    logit_loss,
    member_divergence,
    mixed_cross_entropy,
    reverse_cross_entropy,
    soft_cross_entropy,
    symmetric_divergence,
    tempered,
)
from smallnets.distill.fidelity.meter import (
    FidelityMeter,
    agreement_bounds,
    brier_score,
    overlap,
)
from smallnets.distill.fidelity.objective import (
    Ensemble,
    EnsembleDistillation,
    Objective,
    Reduced,
    distill_from_ensemble,
)
from smallnets.distill.fidelity.policies import (
    Policy,
    colour_jitter,
    flip_upside_down,
    mixup_inputs,
    policies,
    real_and_synthetic,
    rotate,
)
from smallnets.distill.fidelity.sources import ClassGaussian, foreign_images, halves
from smallnets.distill.fidelity.start import (
    between,
    flat_weights,
    interpolate_state,
)
from smallnets.distill.fidelity.surface import (
    Plane,
    Surface,
    distillation_gap,
    loss_surface,
    plane_basis,
    straight_path,
)
from smallnets.losses import ensemble_log_probs

__all__ = [
    "LOSSES",
    "ClassGaussian",
    "Ensemble",
    "EnsembleDistillation",
    "FidelityMeter",
    "Objective",
    "Plane",
    "Policy",
    "Reduced",
    "Surface",
    "agreement_bounds",
    "annealed",
    "between",
    "brier_distance",
    "brier_score",
    "colour_jitter",
    "distill_from_ensemble",
    "distillation_gap",
    "distillation_loss",
    "divergence",
    "ensemble_log_probs",
    "flat_weights",
    "flip_upside_down",
    "foreign_images",
    "halves",
    "hard_cross_entropy",
    "interpolate_state",
    "logit_loss",
    "loss_surface",
    "member_divergence",
    "mixed_cross_entropy",
    "mixup_inputs",
    "overlap",
    "plane_basis",
    "policies",
    "real_and_synthetic",
    "reverse_cross_entropy",
    "rotate",
    "soft_cross_entropy",
    "straight_path",
    "symmetric_divergence",
    "tempered",
]
