"""Does knowledge distillation really work? (Stanton et al., NeurIPS 2021, arXiv:2106.05945).

A student that does well is not a student that copies its teacher. This package measures both, and
holds the experiments that look for the reason: capacity, data, optimisation.

- `ensemble_log_probs`, `soft_cross_entropy`, `distillation_loss`, `LOSSES`: targets and losses.
- `FidelityMeter`, `agreement_bounds`, `calibration_bins`, `cka`: measures.
- `Policy`, `policies`, `ClassGaussian`, `foreign_images`, `halves`: what the student is shown.
- `Ensemble`, `Objective`, `distill_from_ensemble`: training students, one or several at once.
- `interpolate_state`, `between`, `recalibrate_running`: where the student starts.
- `plane_basis`, `loss_surface`, `straight_path`: the loss between networks.
- `prepare` and the experiments, from `ensembles` to `near_teacher`.

The official code is samuelstanton/gnosis. Where paper and code disagree, docstrings say which is
followed.
"""

from smallnets.distill.fidelity.cka import cka, hsic, kernel_matrix
from smallnets.distill.fidelity.losses import (
    LOSSES,
    annealed,
    brier_distance,
    distillation_loss,
    divergence,
    ensemble_log_probs,
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
    CalibrationBins,
    FidelityMeter,
    agreement_bounds,
    brier_score,
    calibration_bins,
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
    blend,
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
    recalibrate_running,
)
from smallnets.distill.fidelity.surface import (
    Plane,
    Surface,
    loss_surface,
    plane_basis,
    straight_path,
)

__all__ = [
    "CalibrationBins",
    "ClassGaussian",
    "Ensemble",
    "EnsembleDistillation",
    "FidelityMeter",
    "LOSSES",
    "Objective",
    "Plane",
    "Policy",
    "Reduced",
    "Surface",
    "agreement_bounds",
    "annealed",
    "between",
    "blend",
    "brier_distance",
    "brier_score",
    "calibration_bins",
    "cka",
    "colour_jitter",
    "distill_from_ensemble",
    "distillation_loss",
    "divergence",
    "ensemble_log_probs",
    "flat_weights",
    "flip_upside_down",
    "foreign_images",
    "halves",
    "hard_cross_entropy",
    "hsic",
    "interpolate_state",
    "kernel_matrix",
    "logit_loss",
    "loss_surface",
    "member_divergence",
    "mixed_cross_entropy",
    "mixup_inputs",
    "overlap",
    "plane_basis",
    "policies",
    "real_and_synthetic",
    "recalibrate_running",
    "reverse_cross_entropy",
    "rotate",
    "soft_cross_entropy",
    "straight_path",
    "symmetric_divergence",
    "tempered",
]
