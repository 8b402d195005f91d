"""Function matching (Beyer et al., CVPR 2022, arXiv:2106.05237): a good teacher is patient and
consistent.

Distillation as matching two functions: teacher and student look at *exactly the same* input, inputs
are drawn from a wide continuum (inception crops, mixed), no label is used, and training goes on for
far longer than anyone would train on labels.

- `kl_distance`, `logit_distance`, `ensemble_distance`, `ensemble_log_probs`, `agreement`: the loss
  (equation 2), its alternatives, and several teachers.
- `mixup`, `mix`, `coefficient`: the continuum (equation 1).
- `VIEWS`, `boxes`, `sample_inception_boxes`, `cut`, `evaluation_view`: who looks at what.
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
    cka,
    judge,
    look,
    measures,
)
from smallnets.distill.matching.losses import (
    DISTANCES,
    agreement,
    ensemble_distance,
    ensemble_log_probs,
    entropy,
    kl_distance,
    logit_distance,
)
from smallnets.distill.matching.mixing import coefficient, mix, mixup
from smallnets.distill.matching.objective import (
    FunctionMatching,
    Matching,
    PrecomputedLogits,
    ensemble,
    label_loss,
    match,
    precomputed_logits,
    unlabelled,
)
from smallnets.distill.matching.views import (
    VIEWS,
    ViewPairing,
    boxes,
    cut,
    evaluation_view,
    resize_area,
    sample_inception_boxes,
)

__all__ = [
    "DISTANCES",
    "VIEWS",
    "FunctionMatching",
    "Matching",
    "PrecomputedLogits",
    "Seen",
    "ViewPairing",
    "agreement",
    "boxes",
    "cka",
    "coefficient",
    "cut",
    "ensemble",
    "ensemble_distance",
    "ensemble_log_probs",
    "entropy",
    "evaluation_view",
    "judge",
    "kl_distance",
    "label_loss",
    "logit_distance",
    "look",
    "match",
    "measures",
    "mix",
    "mixup",
    "precomputed_logits",
    "resize_area",
    "sample_inception_boxes",
    "unlabelled",
]
