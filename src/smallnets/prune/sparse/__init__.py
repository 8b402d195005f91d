"""Networks with fewer weights: masks on single weights, when they close, and what that saves.

- `masks`: `keep_largest`, `magnitude_masks`, `shuffled_masks`, `prunable_weights`, `density`,
  `Masked`; which weights stay, and a network in which the others are zero.
- `snip`: `snip_scores`, `snip_masks`; before any training.
- `schedules`: `gradual_sparsity`, `Gradual`, `prune_gradually`, `prune_in_rounds`; one-shot,
  iterative and gradual pruning.
- `splicing`: `spliced_mask`, `Surgery`, `Spliced`, `prune_by_surgery`; weights may come back.
- `lottery`: `lottery_ticket`, `train_masked`, `reinitialised`; tickets and their controls.
- `variational`: `svdo_kl`, `Variational`, `VariationalDropout`; noise tells which weights matter.
- `storage`: `stored_bytes`, `dense_bytes`, `bitmap_bytes`, `index_bytes`, `gap_bytes`; counts.
- `file`: `save_sparse`, `load_sparse`; a file that is as small as counted.

`Masked`, `Spliced`, `Ticket` and `Variational` are made from a network of one's own, and their
`plain()` is an ordinary network again.
"""

from smallnets.prune.sparse.file import load_sparse, save_sparse
from smallnets.prune.sparse.lottery import (
    ClosedFrom,
    Ticket,
    lottery_ticket,
    reinitialised,
    train_masked,
)
from smallnets.prune.sparse.masks import (
    SCOPES,
    Masked,
    density,
    keep_largest,
    magnitude_masks,
    prunable_weights,
    shuffled_masks,
)
from smallnets.prune.sparse.schedules import (
    Gradual,
    Round,
    close_more,
    gradual_sparsity,
    prune_gradually,
    prune_in_rounds,
)
from smallnets.prune.sparse.snip import snip_masks, snip_scores
from smallnets.prune.sparse.splicing import Spliced, Surgery, prune_by_surgery, spliced_mask
from smallnets.prune.sparse.storage import (
    FORMS,
    bitmap_bytes,
    dense_bytes,
    gap_bytes,
    index_bytes,
    stored_bytes,
)
from smallnets.prune.sparse.variational import (
    NoisyConv2d,
    NoisyLinear,
    Variational,
    VariationalDropout,
    svdo_kl,
)

__all__ = [
    "FORMS",
    "SCOPES",
    "ClosedFrom",
    "Gradual",
    "Masked",
    "NoisyConv2d",
    "NoisyLinear",
    "Round",
    "Spliced",
    "Surgery",
    "Ticket",
    "Variational",
    "VariationalDropout",
    "bitmap_bytes",
    "close_more",
    "dense_bytes",
    "density",
    "gap_bytes",
    "gradual_sparsity",
    "index_bytes",
    "keep_largest",
    "load_sparse",
    "lottery_ticket",
    "magnitude_masks",
    "prunable_weights",
    "prune_by_surgery",
    "prune_gradually",
    "prune_in_rounds",
    "reinitialised",
    "save_sparse",
    "shuffled_masks",
    "snip_masks",
    "snip_scores",
    "spliced_mask",
    "stored_bytes",
    "svdo_kl",
    "train_masked",
]
