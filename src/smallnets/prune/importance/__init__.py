"""Importance estimation for pruning (Molchanov et al., CVPR 2019, arXiv:1906.10771).

A channel matters as much as the squared change of the loss when it is removed. One backward pass
estimates that for all channels at once: it is the squared derivative of the loss by a gate of one.

- `gates`: `gated`, `sites_everywhere`, `open_gates`; factors of one on channels, anywhere.
- `criteria`: `oracle`, `taylor_fo`, `taylor_so`, `taylor_fg`, `obd`, `taylor_weight`, `taylor_bn`,
  `taylor_output`, `magnitude`, `bn_scale`, `random_scores`; the formulas, on tensors.
- `derivatives`: `gate_gradients`, `gate_curvatures`, `losses_without`, `best_subset`; what the
  formulas are made of.
- `groups`: `channel_groups`; channels that go together, across skip connections, of any network.
- `tracing`: `dependency_graphs`; of the whole network, or of the parts that can be followed.
- `scores`: `scores`, `weight_scores`, `gate_free_gradients`, `divide_by_sites`; criteria of the
  groups.
- `coupled`: `coupled_scores`; the scores of Torch-Pruning, for comparison.
- `schedule`: `Schedule`, `Ranking`, `select`, `PUBLISHED`; the official engine, step for step.
- `pruning`: `masks_at_macs`, `iterative_masks`, `Prunable`, `PruneWhileTraining`; at once, or
  little by little.
- `surgery`: `masked`, `remove`, `costs`; networks that are really smaller, and what that saves.
- `arithmetic`: `counted`, `even`, `explain`; what the published numbers say by counting.

Where paper and official code (NVlabs/Taylor_pruning) differ, the docstrings say which is followed.
"""

from smallnets.prune.importance.arithmetic import (
    REPORTED,
    Counted,
    concentrated,
    counted,
    even,
    explain,
)
from smallnets.prune.importance.coupled import coupled_scores
from smallnets.prune.importance.criteria import (
    bn_scale,
    magnitude,
    obd,
    oracle,
    random_scores,
    taylor_bn,
    taylor_fg,
    taylor_fo,
    taylor_output,
    taylor_so,
    taylor_weight,
)
from smallnets.prune.importance.derivatives import (
    best_subset,
    gate_curvatures,
    gate_gradients,
    losses_without,
    parameter_gradients,
    per_batch,
)
from smallnets.prune.importance.gates import Site, gate, gated, open_gates, sites_everywhere
from smallnets.prune.importance.groups import (
    ChannelGroup,
    Member,
    channel_groups,
    group_sites,
)
from smallnets.prune.importance.pruning import (
    Prunable,
    PruneWhileTraining,
    all_open,
    iterative_masks,
    kept_units,
    masks_at_macs,
)
from smallnets.prune.importance.schedule import PUBLISHED, Ranking, Schedule, select
from smallnets.prune.importance.scores import (
    CRITERIA,
    divide_by_sites,
    gate_free_gradients,
    scores,
    weight_scores,
)
from smallnets.prune.importance.surgery import (
    Costs,
    costs,
    masked,
    masks_keeping,
    remove,
)

__all__ = [
    "CRITERIA",
    "PUBLISHED",
    "REPORTED",
    "ChannelGroup",
    "Costs",
    "Counted",
    "Member",
    "Prunable",
    "PruneWhileTraining",
    "Ranking",
    "Schedule",
    "Site",
    "all_open",
    "best_subset",
    "bn_scale",
    "channel_groups",
    "concentrated",
    "costs",
    "counted",
    "coupled_scores",
    "divide_by_sites",
    "even",
    "explain",
    "gate",
    "gate_curvatures",
    "gate_free_gradients",
    "gate_gradients",
    "gated",
    "group_sites",
    "iterative_masks",
    "kept_units",
    "losses_without",
    "magnitude",
    "masked",
    "masks_at_macs",
    "masks_keeping",
    "obd",
    "open_gates",
    "oracle",
    "parameter_gradients",
    "per_batch",
    "random_scores",
    "remove",
    "scores",
    "select",
    "sites_everywhere",
    "taylor_bn",
    "taylor_fg",
    "taylor_fo",
    "taylor_output",
    "taylor_so",
    "taylor_weight",
    "weight_scores",
]
