"""Vertical layering of quantised networks (Wu et al., TPAMI 2023, arXiv:2212.05326).

One weight of many bits is stored once, as the network of the fewest bits and one further bit a
layer, so that every device reads as much as it can use. All widths are trained together.

- `codes`: `cascade`, `bit_planes`, `rebuild`, `offset`; the integers.
- `packing`: `pack_layered`, `LayeredTensor`; the bytes.
- `fake`: `layered_value`, `CascadeQuantizer`, `WeightRule`, `search_start`; the quantiser that is
  trained.
- `activations`: `LsqActivation`; one step a width.
- `network`: `to_layered`, `LayeredNetwork`, `SwitchBatchNorm`; any network in layers.
- `losses`, `combine`, `train`: `multi_width_loss`, `min_norm`, `TrainOnce`, `train_once`; all
  widths at once.
- `file`: `save_layered`, `load_layered`; the file that works before it is complete.
- `baselines`: `AnyPrecision`, `AdaBits`, `truncated`, `recalibrate_width`; what it is compared
  with.

The paper has no public code and says less than is needed; what is its own and what is our reading
is said where it is used.
"""

from smallnets.quantize.layered.activations import LsqActivation
from smallnets.quantize.layered.baselines import (
    AdaBits,
    AnyPrecision,
    adabits_unit,
    adabits_weights,
    recalibrate_width,
    truncated,
)
from smallnets.quantize.layered.codes import bit_planes, cascade, levels, offset, rebuild
from smallnets.quantize.layered.combine import (
    check_simplex,
    fixed_weights,
    gram_matrix,
    min_norm,
    pcgrad,
)
from smallnets.quantize.layered.fake import (
    CascadeQuantizer,
    WeightRule,
    layered_value,
    search_start,
)
from smallnets.quantize.layered.file import (
    LayeredFileError,
    Layout,
    layered_bytes,
    load_layered,
    read_layout,
    received,
    save_layered,
)
from smallnets.quantize.layered.losses import multi_width_loss, width_loss
from smallnets.quantize.layered.network import (
    LayeredNetwork,
    QuantizedLayer,
    SwitchBatchNorm,
    to_layered,
)
from smallnets.quantize.layered.packing import LayeredTensor, pack_layered
from smallnets.quantize.layered.train import TrainOnce, train_once, with_gradients

__all__ = [
    "AdaBits",
    "AnyPrecision",
    "CascadeQuantizer",
    "LayeredFileError",
    "LayeredNetwork",
    "LayeredTensor",
    "Layout",
    "LsqActivation",
    "QuantizedLayer",
    "SwitchBatchNorm",
    "TrainOnce",
    "WeightRule",
    "adabits_unit",
    "adabits_weights",
    "bit_planes",
    "cascade",
    "check_simplex",
    "fixed_weights",
    "gram_matrix",
    "layered_bytes",
    "layered_value",
    "levels",
    "load_layered",
    "min_norm",
    "multi_width_loss",
    "offset",
    "pack_layered",
    "pcgrad",
    "read_layout",
    "rebuild",
    "recalibrate_width",
    "received",
    "save_layered",
    "search_start",
    "to_layered",
    "train_once",
    "truncated",
    "width_loss",
    "with_gradients",
]
