"""Dataset condensation with distribution matching (Zhao & Bilen, WACV 2023, arXiv:2110.04181).

A small synthetic training set is learned by making its mean embedding equal to that of the real
images, class by class, under a freshly drawn random network at every step: no training of networks
and no second derivatives.

- `image_set`, `training_set`, `test_set`, `SyntheticSet`, `merged`, `PUBLISHED_MOMENTS`: images
  with labels and constants, of a `Dataset` or of tensors of your own; saving and loading.
- `ConvNet`, `ConvNetSpec`, `convnet_space`, `network`: the family of 720 and the other published
  networks, each with `embed`; `Embedded` makes one of your own parts.
- `sample_dsa`, `apply_dsa`: differentiable siamese augmentation with explicit parameters.
- `dm_loss`, `class_mean_loss`, `DMSettings`, `condense`: distribution matching. `Fresh`, `Pool` and
  `AccuracyBands` say where its networks come from.
- `gradient_distance`, `GradientMatchingSettings`, `dsa`, `match_gradients`: the rivals DC and DSA.
- `herding`, `k_center`, `forgetting_events`, `select`: choosing real images instead.
- `EvalSettings`, `train_on`, `evaluate_set`: one protocol for every set, and for the whole data.
  `trained_features` and `watch_forgetting` are what selection needs of a training.
- `transfer_table`, `accuracy_by_ipc`, `cost_of`, `seconds_to`: comparisons.
- `class_orders`, `continual`: class-incremental learning with a condensed memory.
- `rank_architectures`, `compare_rankings`, `search`: architecture search.
- `label_robust_score`, `augmentation_robust_score`: the fairness scores of DD-Ranking.
- `picture_grid`, `difference_grid`, `feature_map`: pictures.

Where paper and official code differ, the code is followed, and said so.
"""

from smallnets.synthesize.condense.augmentation import (
    DIGITS,
    FAMILIES,
    FULL,
    DSAParams,
    DSARanges,
    apply_dsa,
    brightness,
    check_strategy,
    contrast,
    sample_dsa,
    saturation,
)
from smallnets.synthesize.condense.comparisons import (
    Cost,
    accuracy_by_ipc,
    cost_of,
    seconds_to,
    transfer_table,
)
from smallnets.synthesize.condense.continual import Continual, class_orders, continual
from smallnets.synthesize.condense.convnets import (
    ACTIVATIONS,
    NORMS,
    POOLINGS,
    ConvNet,
    ConvNetSpec,
    convnet_space,
    published_depth,
)
from smallnets.synthesize.condense.distribution import DMSettings, MatchingStep, condense
from smallnets.synthesize.condense.evaluation import (
    EvalResult,
    EvalSettings,
    Trained,
    accuracy,
    evaluate_set,
    features,
    train_on,
    trained_features,
    watch_forgetting,
)
from smallnets.synthesize.condense.gradient import (
    DISTANCES,
    GradientMatchingSettings,
    GradientStep,
    dsa,
    frozen_statistics,
    gradient_distance,
    match_gradients,
    real_gradient,
)
from smallnets.synthesize.condense.matching import class_mean_loss, dm_loss, mean_embedding
from smallnets.synthesize.condense.networks import (
    NAMES,
    Embedded,
    Embedder,
    check_embeds,
    couples_examples,
    network,
)
from smallnets.synthesize.condense.pictures import difference_grid, feature_map, picture_grid
from smallnets.synthesize.condense.pixels import PixelState
from smallnets.synthesize.condense.running import Condensed
from smallnets.synthesize.condense.samplers import AccuracyBands, Fresh, Pool
from smallnets.synthesize.condense.scores import (
    augmentation_robust_score,
    label_robust_score,
    normalised_score,
)
from smallnets.synthesize.condense.search import (
    ProxyRanking,
    SearchResult,
    compare_rankings,
    rank_architectures,
    search,
)
from smallnets.synthesize.condense.selection import (
    METHODS,
    Forgetting,
    covering_radius,
    forgetting_events,
    herding,
    k_center,
    select,
)
from smallnets.synthesize.condense.sets import (
    PUBLISHED_MOMENTS,
    Data,
    ImageSet,
    SyntheticSet,
    image_set,
    merged,
    test_set,
    training_set,
)

__all__ = [
    "ACTIVATIONS",
    "DIGITS",
    "DISTANCES",
    "FAMILIES",
    "FULL",
    "METHODS",
    "NAMES",
    "NORMS",
    "POOLINGS",
    "PUBLISHED_MOMENTS",
    "AccuracyBands",
    "Condensed",
    "Continual",
    "ConvNet",
    "ConvNetSpec",
    "Cost",
    "DMSettings",
    "DSAParams",
    "DSARanges",
    "Data",
    "Embedded",
    "Embedder",
    "EvalResult",
    "EvalSettings",
    "Forgetting",
    "Fresh",
    "GradientMatchingSettings",
    "GradientStep",
    "ImageSet",
    "MatchingStep",
    "PixelState",
    "Pool",
    "ProxyRanking",
    "SearchResult",
    "SyntheticSet",
    "Trained",
    "accuracy",
    "accuracy_by_ipc",
    "apply_dsa",
    "augmentation_robust_score",
    "brightness",
    "check_embeds",
    "check_strategy",
    "class_mean_loss",
    "class_orders",
    "compare_rankings",
    "condense",
    "continual",
    "contrast",
    "convnet_space",
    "cost_of",
    "couples_examples",
    "covering_radius",
    "difference_grid",
    "dm_loss",
    "dsa",
    "evaluate_set",
    "feature_map",
    "features",
    "forgetting_events",
    "frozen_statistics",
    "gradient_distance",
    "herding",
    "image_set",
    "k_center",
    "label_robust_score",
    "match_gradients",
    "mean_embedding",
    "merged",
    "network",
    "normalised_score",
    "picture_grid",
    "published_depth",
    "rank_architectures",
    "real_gradient",
    "sample_dsa",
    "saturation",
    "search",
    "seconds_to",
    "select",
    "test_set",
    "train_on",
    "trained_features",
    "training_set",
    "transfer_table",
    "watch_forgetting",
]
