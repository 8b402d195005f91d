"""Chapter 03: what students have of their teacher, and what keeps them from having more."""

from smallnets.studies.fidelity.choosing import search
from smallnets.studies.fidelity.conditions import (
    Condition,
    core_conditions,
    further_conditions,
    kinds,
    near,
    views_of,
)
from smallnets.studies.fidelity.experiments import (
    Disagreement,
    compared,
    first_disagreement,
    landscape,
    logits_of,
    measure,
    measure_further,
    measure_student,
)
from smallnets.studies.fidelity.plan import PRESETS, Options, Settings, prepare
from smallnets.studies.fidelity.students import (
    Trained,
    own_images,
    scaled_rate,
    seen_images,
    shown_images,
    train_side_by_side,
    train_student,
    train_teacher,
    training_of,
)
from smallnets.studies.fidelity.toy import EDGE, follow, grid, small_network, spirals

__all__ = [
    "EDGE",
    "PRESETS",
    "Condition",
    "Disagreement",
    "Options",
    "Settings",
    "Trained",
    "compared",
    "core_conditions",
    "first_disagreement",
    "follow",
    "further_conditions",
    "grid",
    "kinds",
    "landscape",
    "logits_of",
    "measure",
    "measure_further",
    "measure_student",
    "near",
    "own_images",
    "prepare",
    "scaled_rate",
    "search",
    "seen_images",
    "shown_images",
    "small_network",
    "spirals",
    "train_side_by_side",
    "train_student",
    "train_teacher",
    "training_of",
    "views_of",
]
