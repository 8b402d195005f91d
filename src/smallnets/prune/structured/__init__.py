"""Networks with fewer channels, and networks of which an image needs a part only.

- `channels`: `channel_masks`, `prune_channels`, `Grouped`; norms of filters, scales of BatchNorm
  and Taylor expansions (chapter 05) as criteria, and removal.
- `slimming`: `Slimming`, `slimmed`; a penalty on the scales of BatchNorm.
- `lasso`: `group_norms`, `group_lasso`, `prox_group_lasso`, `unit_norms`, `GroupLasso`,
  `fit_lasso`, `without_zero_units`; channels that become zero.
- `gated`: `GatedChannels`, `scaled`; learned gates on channels, and the network that they leave.
- `hard_concrete`: `hard_concrete`, `hard_concrete_open`, `hard_concrete_mean`, `HardConcrete`,
  `L0`, `expected_share`; L0 regularisation.
- `structure_scale`: `dead_zone`, `StructureScale`, `ScaleDecay`; parameterised structured pruning.
- `exits`: `EarlyExit`, `AllExits`, `exit_macs`, `exit_report`; as much of a network as an image
  needs.

Every way ends with an ordinary network: `prune_channels`, `slimmed`, `without_zero_units` and
`GatedChannels.plain` return a smaller one, whose answers are those of the network with the channels
closed; `EarlyExit.network` is the network itself.
"""

from smallnets.prune.structured.channels import Grouped, channel_masks, prune_channels
from smallnets.prune.structured.exits import (
    AllExits,
    EarlyExit,
    ExitReport,
    exit_macs,
    exit_report,
)
from smallnets.prune.structured.gated import GatedChannels, scaled
from smallnets.prune.structured.hard_concrete import (
    L0,
    HardConcrete,
    expected_share,
    hard_concrete,
    hard_concrete_mean,
    hard_concrete_open,
)
from smallnets.prune.structured.lasso import (
    GroupLasso,
    fit_lasso,
    group_lasso,
    group_norms,
    prox_group_lasso,
    unit_norms,
    without_zero_units,
)
from smallnets.prune.structured.slimming import Slimming, norm_scales, slimmed
from smallnets.prune.structured.structure_scale import ScaleDecay, StructureScale, dead_zone

__all__ = [
    "L0",
    "AllExits",
    "EarlyExit",
    "ExitReport",
    "GatedChannels",
    "GroupLasso",
    "Grouped",
    "HardConcrete",
    "ScaleDecay",
    "Slimming",
    "StructureScale",
    "channel_masks",
    "dead_zone",
    "exit_macs",
    "exit_report",
    "expected_share",
    "fit_lasso",
    "group_lasso",
    "group_norms",
    "hard_concrete",
    "hard_concrete_mean",
    "hard_concrete_open",
    "norm_scales",
    "prox_group_lasso",
    "prune_channels",
    "scaled",
    "slimmed",
    "unit_norms",
    "without_zero_units",
]
