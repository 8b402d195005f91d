"""Memory-free generative replay (Xin et al., arXiv:2109.00328): learning new classes without a
stored image of the old ones.

A generator learns, from an old classifier alone, to make images that it takes for its training
data. A copy of the classifier with more columns then learns the new classes, while it answers like
the old one on new images *and* on generated ones.

- `one_hot_loss`, `class_balance_loss`, `activation_loss`, `tv_loss`, `bn_norm_loss`,
  `pair_diversity`: the six terms of the generator. `ClassifierTap`: what they look at.
- `generator_32`, `generator_128`, `generator_256`, `small_generator`; `train_generator`,
  `generate`.
- `grow_head`, `distillation`, `local_cross_entropy`, `balance_weight`, `METHODS`,
  `classifier_terms`: the new classifier, in every published variant.
- `task_split`, `hold_out`, `choose_learning_rate`, `learn_task`, `incremental_fit`: the protocol.
- `step_accuracy`, `average_incremental_accuracy`, `forgetting`, `evaluate`: the measures.
- `fisher_importance`, `sensitivity_importance`: EWC and MAS. `dreaming_terms`: Always Be Dreaming.
- `fine_grained` and its parts: which old classes suffer.

The method section of the paper could not be read; formulas are those of the official code.
"""

from smallnets.synthesize.replay.analysis import (
    ClassReport,
    FineGrained,
    HeadPlane,
    PairDamage,
    class_accuracy,
    class_pairs,
    class_report,
    confusion_similarity,
    fine_grained,
    grouped_order,
    head_plane,
    head_similarity,
    nearest_class,
    pair_accuracy,
    pair_damage,
    pair_visibility,
    visibility_of_logits,
)
from smallnets.synthesize.replay.choosing import LearningRates, choose_learning_rate
from smallnets.synthesize.replay.dreaming import (
    DreamingSettings,
    DreamingWeights,
    dreaming_terms,
    relative_balance_loss,
    smoothness_loss,
)
from smallnets.synthesize.replay.evaluation import StepAccuracies, evaluate, logits_of_test
from smallnets.synthesize.replay.generation import (
    GeneratorObjective,
    GeneratorResult,
    GeneratorSettings,
    GeneratorWeights,
    class_spread,
    generate,
    train_generator,
)
from smallnets.synthesize.replay.generators import (
    ReplayGenerator,
    generator_32,
    generator_128,
    generator_256,
    small_generator,
)
from smallnets.synthesize.replay.heads import OpenClassifier, grow_head, head_name, head_of
from smallnets.synthesize.replay.importance import (
    drift_penalty,
    fisher_importance,
    sensitivity_importance,
)
from smallnets.synthesize.replay.incremental import IncrementalResult, incremental_fit
from smallnets.synthesize.replay.losses import (
    activation_loss,
    checkerboard,
    class_balance_loss,
    draw_pairs,
    neighbour_differences,
    one_hot_loss,
    pair_diversity,
    tv_loss,
)
from smallnets.synthesize.replay.metrics import (
    average_incremental_accuracy,
    average_incremental_accuracy_without_first,
    forgetting,
    forgetting_per_task,
    last_accuracy,
    step_accuracy,
)
from smallnets.synthesize.replay.objective import (
    PUBLISHED,
    PUBLISHED_TRAINING,
    Dreaming,
    IncrementalSettings,
    Inheritance,
)
from smallnets.synthesize.replay.statistics import (
    BNStatistics,
    ClassifierTap,
    bn_norm_loss,
    bn_statistics,
    gaussian_bn_loss,
)
from smallnets.synthesize.replay.steps import LearnedStep, learn_task
from smallnets.synthesize.replay.supervision import (
    METHODS,
    DivergedError,
    Method,
    TermWeights,
    balance_weight,
    classifier_terms,
    distillation,
    full_cross_entropy,
    local_cross_entropy,
    old_cross_entropy,
    term_weights,
)
from smallnets.synthesize.replay.tasks import (
    HeldOut,
    Task,
    check_tasks,
    class_order,
    group_sizes,
    hold_out,
    task_split,
)

__all__ = [
    "METHODS",
    "PUBLISHED",
    "PUBLISHED_TRAINING",
    "BNStatistics",
    "ClassReport",
    "ClassifierTap",
    "DivergedError",
    "Dreaming",
    "DreamingSettings",
    "DreamingWeights",
    "FineGrained",
    "GeneratorObjective",
    "GeneratorResult",
    "GeneratorSettings",
    "GeneratorWeights",
    "HeadPlane",
    "HeldOut",
    "IncrementalResult",
    "IncrementalSettings",
    "Inheritance",
    "LearnedStep",
    "LearningRates",
    "Method",
    "OpenClassifier",
    "PairDamage",
    "ReplayGenerator",
    "StepAccuracies",
    "Task",
    "TermWeights",
    "activation_loss",
    "average_incremental_accuracy",
    "average_incremental_accuracy_without_first",
    "balance_weight",
    "bn_norm_loss",
    "bn_statistics",
    "check_tasks",
    "checkerboard",
    "choose_learning_rate",
    "class_accuracy",
    "class_balance_loss",
    "class_order",
    "class_pairs",
    "class_report",
    "class_spread",
    "classifier_terms",
    "confusion_similarity",
    "distillation",
    "draw_pairs",
    "dreaming_terms",
    "drift_penalty",
    "evaluate",
    "fine_grained",
    "fisher_importance",
    "forgetting",
    "forgetting_per_task",
    "full_cross_entropy",
    "gaussian_bn_loss",
    "generate",
    "generator_32",
    "generator_128",
    "generator_256",
    "group_sizes",
    "grouped_order",
    "grow_head",
    "head_name",
    "head_of",
    "head_plane",
    "head_similarity",
    "hold_out",
    "incremental_fit",
    "last_accuracy",
    "learn_task",
    "local_cross_entropy",
    "logits_of_test",
    "nearest_class",
    "neighbour_differences",
    "old_cross_entropy",
    "one_hot_loss",
    "pair_accuracy",
    "pair_damage",
    "pair_diversity",
    "pair_visibility",
    "relative_balance_loss",
    "sensitivity_importance",
    "small_generator",
    "smoothness_loss",
    "step_accuracy",
    "task_split",
    "term_weights",
    "train_generator",
    "tv_loss",
    "visibility_of_logits",
]
