"""Chapter 03: what students have of their teacher, and what keeps them from having more."""

from smallnets.studies.fidelity.experiments import (
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
from smallnets.studies.fidelity.near import (
    Landscape,
    StartAndEnd,
    landscapes,
    near_teacher,
    scaled_rate,
    train_from_starts,
)
from smallnets.studies.fidelity.plan import PRESETS, Options, Settings, prepare
from smallnets.studies.fidelity.runs import EXPERIMENTS, experiment, run_experiments
from smallnets.studies.fidelity.students import (
    StudentEvaluator,
    logits_of,
    plain_student,
    seen_images,
    train_teacher,
)

__all__ = [
    "EXPERIMENTS",
    "PRESETS",
    "Landscape",
    "Options",
    "Outcome",
    "Settings",
    "StartAndEnd",
    "StudentEvaluator",
    "capacities",
    "data_policies",
    "ensembles",
    "experiment",
    "growing",
    "landscapes",
    "logits_of",
    "name_of",
    "near_teacher",
    "optimisers",
    "other_networks",
    "plain_student",
    "prepare",
    "recycled",
    "representations",
    "run_experiments",
    "scaled_rate",
    "search",
    "seen_images",
    "targets",
    "train_from_starts",
    "train_teacher",
    "with_control",
]
