"""Similarity-preserving knowledge distillation (Tung & Mori, ICCV 2019, arXiv:1907.09682).

Two images that excite a trained teacher alike should excite the student alike. So match, over a
mini-batch, the matrix of pairwise similarities of activations rather than the activations
themselves: teacher and student then may differ in width, resolution and family, and no adaptation
layer is needed.

- `similarity_matrix`, `sp_loss`: the loss (their equations 1 to 4, here 1 and 2).
- `kd_loss`, `at_loss`, `attention_map`: the methods that it is compared with, and combined with.
- `DistillationObjective`, `distil`: any weighted combination, trained for one or several students
  at once.
- `portrait`, `measures`, `class_block_contrast`,
  `class_blocks`: what the loss did.

There is no official repository; the row-wise form follows the implementation in RepDistiller (Tian
et al., 2020), which states that the paper's author verified it.
"""

from smallnets.distill.classic import at_loss, attention_map, kd_loss
from smallnets.distill.similarity.diagnostics import Portrait, last_features, measures, portrait
from smallnets.distill.similarity.losses import (
    class_block_contrast,
    class_blocks,
    similarity_matrix,
    sp_loss,
)
from smallnets.distill.similarity.objective import DistillationObjective, distil

__all__ = [
    "DistillationObjective",
    "Portrait",
    "at_loss",
    "attention_map",
    "class_block_contrast",
    "class_blocks",
    "distil",
    "kd_loss",
    "last_features",
    "measures",
    "portrait",
    "similarity_matrix",
    "sp_loss",
]
