"""Function matching (Beyer et al., CVPR 2022, arXiv:2106.05237): a good teacher is patient and
consistent.

Distillation as matching two functions: teacher and student look at *exactly the same* input, inputs
are drawn from a wide continuum (inception crops, mixed), no label is used, and training goes on for
far longer than anyone would train on labels.

- `kl_distance`, `logit_distance`, `ensemble_distance`, `ensemble_log_probs`, `agreement`: the loss
  (equation 2), its alternatives, and several teachers.
- `mixup`, `mix`, `mixing_share`: the continuum (equation 1).
- `VIEWS`, `sample_boxes`, `sample_inception_boxes`, `crop_and_resize`, `evaluation_view`: who
  looks at what.
- `Matching`, `FunctionMatching`, `match`, `unlabelled`: what a student is asked, step by step.
- `published_teacher`: teachers from the published checkpoints.

The optimiser, with its decay apart from the learning rate, and Shampoo are in
`smallnets.training.optimizers`, the published networks in `smallnets.models.bit` and
`smallnets.models.mobile`. Where paper and official code (big_vision) differ, the code is followed.
"""

from smallnets.distill.matching.diagnostics import (
    Answers,
    answers_and_features,
    evaluate_student,
    measures,
)
from smallnets.distill.matching.losses import (
    DISTANCES,
    agreement,
    ensemble_distance,
    kl_distance,
    logit_distance,
)
from smallnets.distill.matching.mixing import mix, mixing_share, mixup
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
from smallnets.distill.matching.published import published_teacher
from smallnets.distill.matching.views import (
    VIEWS,
    ViewPairing,
    crop_and_resize,
    evaluation_view,
    resize_area,
    sample_boxes,
    sample_inception_boxes,
)
from smallnets.losses import ensemble_log_probs, entropy

__all__ = [
    "DISTANCES",
    "VIEWS",
    "Answers",
    "FunctionMatching",
    "Matching",
    "PrecomputedLogits",
    "ViewPairing",
    "agreement",
    "answers_and_features",
    "crop_and_resize",
    "ensemble",
    "ensemble_distance",
    "ensemble_log_probs",
    "entropy",
    "evaluate_student",
    "evaluation_view",
    "kl_distance",
    "label_loss",
    "logit_distance",
    "match",
    "measures",
    "mix",
    "mixing_share",
    "mixup",
    "precomputed_logits",
    "published_teacher",
    "resize_area",
    "sample_boxes",
    "sample_inception_boxes",
    "unlabelled",
]
