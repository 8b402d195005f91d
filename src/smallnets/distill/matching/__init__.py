"""Function matching (Beyer et al., CVPR 2022, arXiv:2106.05237): a good teacher is patient and
consistent.

Distillation as matching two functions: teacher and student look at *exactly the same* input, inputs
are drawn from a wide continuum (inception crops, mixed), no label is used, and training goes on for
far longer than anyone would train on labels.

- `kl_distance`, `logit_distance`, `ensemble_distance`, `mean_prediction`, `agreement`: the loss
  (equation 2), its alternatives, and several teachers.
- `mixup`, `mix`, `coefficient`: the continuum (equation 1).
- `VIEWS`, `boxes`, `inception_boxes`, `cut`, `evaluation_view`: who looks at what.
- `Matching`, `FunctionMatching`, `match`, `unlabelled`: what a student is asked, step by step.
- `RECIPES`, `GRID`, `recipe`, `published_teacher`: the published schedules and checkpoints.
- `prepare`, `patience`, `variants`, `details`, `starts`, `resolutions`, `search`, `learn`: the
  experiments.

The optimiser, with its decay apart from the learning rate, and Shampoo are in
`smallnets.training.optimizers`, the published networks in `smallnets.models.bit` and
`smallnets.models.mobile`. Where paper and official code (big_vision) differ, the code is followed.
"""

from smallnets.distill.matching.diagnostics import (
    Seen,
    judge,
    linear_cka,
    look,
    measures,
)
from smallnets.distill.matching.lessons import (
    Lesson,
    details,
    patience,
    regimes,
    resolutions,
    search,
    starts,
    variants,
)
from smallnets.distill.matching.losses import (
    DISTANCES,
    agreement,
    ensemble_distance,
    entropy,
    kl_distance,
    logit_distance,
    mean_prediction,
)
from smallnets.distill.matching.mixing import coefficient, mix, mixup
from smallnets.distill.matching.objective import (
    FunctionMatching,
    KeptAnswers,
    Matching,
    ensemble,
    kept_answers,
    label_loss,
    match,
    unlabelled,
)
from smallnets.distill.matching.plan import PRESETS, StudySettings, prepare
from smallnets.distill.matching.recipes import (
    GRID,
    PATIENCE,
    RECIPES,
    Recipe,
    published_teacher,
    recipe,
)
from smallnets.distill.matching.study import (
    by_length,
    chosen,
    learn,
    new_network,
    other_images,
    pretrained,
    taught,
    teach,
    train_teacher,
    transfer_set,
)
from smallnets.distill.matching.views import (
    VIEWS,
    Teaching,
    boxes,
    cut,
    evaluation_view,
    inception_boxes,
    resize_area,
)

__all__ = [
    "DISTANCES",
    "GRID",
    "PATIENCE",
    "PRESETS",
    "RECIPES",
    "VIEWS",
    "FunctionMatching",
    "KeptAnswers",
    "Lesson",
    "Matching",
    "Recipe",
    "Seen",
    "StudySettings",
    "Teaching",
    "agreement",
    "boxes",
    "by_length",
    "chosen",
    "coefficient",
    "cut",
    "details",
    "ensemble",
    "ensemble_distance",
    "entropy",
    "evaluation_view",
    "inception_boxes",
    "judge",
    "kept_answers",
    "kl_distance",
    "label_loss",
    "learn",
    "linear_cka",
    "logit_distance",
    "look",
    "match",
    "mean_prediction",
    "measures",
    "mix",
    "mixup",
    "new_network",
    "other_images",
    "patience",
    "prepare",
    "pretrained",
    "published_teacher",
    "recipe",
    "regimes",
    "resize_area",
    "resolutions",
    "search",
    "starts",
    "taught",
    "teach",
    "train_teacher",
    "transfer_set",
    "unlabelled",
    "variants",
]
