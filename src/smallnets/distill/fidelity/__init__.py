"""Does knowledge distillation really work? (Stanton et al., NeurIPS 2021, arXiv:2106.05945).

A student that does well is not a student that copies its teacher. This package measures both, and
holds the experiments that look for the reason: capacity, data, optimisation.

- `ensemble_log_probs`, `soft_cross_entropy`, `distillation_loss`, `LOSSES`: targets and losses.
- `FidelityMeter`, `agreement_bounds`, `calibration_bins`, `cka`: measures.
- `Policy`, `policies`, `ClassGaussian`, `foreign_images`, `halves`: what the student is shown.
- `Ensemble`, `Objective`, `imitate`: training students, one or several at once.
- `interpolate_state`, `between`, `refresh_statistics`: where the student starts.
- `plane_basis`, `loss_surface`, `straight_path`: the loss between networks.
- `prepare` and the experiments, from `ensembles` to `near_teacher`.

The official code is samuelstanton/gnosis. Where paper and code disagree, docstrings say which is
followed.
"""

from smallnets.distill.fidelity.cka import cka, hsic, kernel_matrix
from smallnets.distill.fidelity.experiments import EXPERIMENTS, experiment, run_experiments
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
from smallnets.distill.fidelity.near import (
    Journey,
    Landscape,
    imitation_gap,
    journeys,
    landscapes,
    near_teacher,
    scaled_rate,
)
from smallnets.distill.fidelity.objective import Ensemble, Imitation, Objective, Reduced, imitate
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
from smallnets.distill.fidelity.settings import PRESETS, StudySettings, prepare
from smallnets.distill.fidelity.sources import ClassGaussian, foreign_images, halves
from smallnets.distill.fidelity.start import (
    between,
    flat_weights,
    interpolate_state,
    refresh_statistics,
)
from smallnets.distill.fidelity.students import (
    Examiner,
    logits_of,
    new_network,
    plain_student,
    seen_images,
    train_teacher,
)
from smallnets.distill.fidelity.study import (
    Outcome,
    capacities,
    data_policies,
    ensembles,
    growing,
    name_of,
    optimisers,
    other_networks,
    recycled,
    representations,
    search,
    targets,
    with_control,
)
from smallnets.distill.fidelity.surface import (
    Plane,
    Surface,
    loss_surface,
    plane_basis,
    straight_path,
)

__all__ = [
    "EXPERIMENTS",
    "LOSSES",
    "PRESETS",
    "CalibrationBins",
    "ClassGaussian",
    "Ensemble",
    "Examiner",
    "FidelityMeter",
    "Imitation",
    "Journey",
    "Landscape",
    "Objective",
    "Outcome",
    "Plane",
    "Policy",
    "Reduced",
    "StudySettings",
    "Surface",
    "agreement_bounds",
    "annealed",
    "between",
    "blend",
    "brier_distance",
    "brier_score",
    "calibration_bins",
    "capacities",
    "cka",
    "colour_jitter",
    "data_policies",
    "distillation_loss",
    "divergence",
    "ensemble_log_probs",
    "ensembles",
    "experiment",
    "flat_weights",
    "flip_upside_down",
    "foreign_images",
    "growing",
    "halves",
    "hard_cross_entropy",
    "hsic",
    "imitate",
    "imitation_gap",
    "interpolate_state",
    "journeys",
    "kernel_matrix",
    "landscapes",
    "logit_loss",
    "logits_of",
    "loss_surface",
    "member_divergence",
    "mixed_cross_entropy",
    "mixup_inputs",
    "name_of",
    "near_teacher",
    "new_network",
    "optimisers",
    "other_networks",
    "overlap",
    "plain_student",
    "plane_basis",
    "policies",
    "prepare",
    "real_and_synthetic",
    "recycled",
    "refresh_statistics",
    "representations",
    "reverse_cross_entropy",
    "rotate",
    "run_experiments",
    "scaled_rate",
    "search",
    "seen_images",
    "soft_cross_entropy",
    "straight_path",
    "symmetric_divergence",
    "targets",
    "tempered",
    "train_teacher",
    "with_control",
]
