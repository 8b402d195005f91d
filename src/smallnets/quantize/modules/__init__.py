"""Quantisers as modules, layers that hold them, and a converter for networks of one's own.

The first family of Roth et al., Resource-Efficient Neural Networks for Embedded Systems (JMLR
2024): weights and activations of few bits, trained through the rounding or rounded afterwards::

    network = quantize_model(model, "lsq", "lsq", weight_bits=4, activation_bits=4)
    calibrate(network, loader)
    ...                                   # a training of your own; after every step:
    after_step(network)
    codes = weight_codes(freeze(network))

    small = quantize_after_training(model, loader, 8, 8)     # no training at all

Every method is a function in a module beside this package; here each has a module with its width,
its start and its codes.
"""

from smallnets.quantize.modules.activations import (
    PACT,
    ActQuantizer,
    AffineAct,
    DoReFaAct,
    GradientQuantizer,
    LSQAct,
    SignAct,
    XNORAct,
)
from smallnets.quantize.modules.base import Codes, Grid, Quantizer
from smallnets.quantize.modules.calibration import calibrate, in_float, layer_inputs
from smallnets.quantize.modules.convert import (
    ACTIVATIONS,
    SIDES,
    WEIGHTS,
    fold_batch_norm,
    quantizable,
    quantize_after_training,
    quantize_model,
    sweep,
)
from smallnets.quantize.modules.file import StoredWeight, load_quantized, save_quantized
from smallnets.quantize.modules.incremental import SHARES, IncrementalPowerOfTwo
from smallnets.quantize.modules.layers import (
    BinaryConv2d,
    QuantConv2d,
    QuantLinear,
    quantized_layers,
    widths,
)
from smallnets.quantize.modules.learning import (
    after_step,
    freeze,
    incrementally,
    parameter_groups,
    weight_codes,
)
from smallnets.quantize.modules.plain import as_plain
from smallnets.quantize.modules.weights import (
    TTQ,
    TWN,
    AffineWeight,
    BinaryWeight,
    DoReFaWeight,
    LSQWeight,
    PowerOfTwo,
)

__all__ = [
    "ACTIVATIONS",
    "PACT",
    "SHARES",
    "SIDES",
    "TTQ",
    "TWN",
    "WEIGHTS",
    "ActQuantizer",
    "AffineAct",
    "AffineWeight",
    "BinaryConv2d",
    "BinaryWeight",
    "Codes",
    "DoReFaAct",
    "DoReFaWeight",
    "GradientQuantizer",
    "Grid",
    "IncrementalPowerOfTwo",
    "LSQAct",
    "LSQWeight",
    "PowerOfTwo",
    "QuantConv2d",
    "QuantLinear",
    "Quantizer",
    "SignAct",
    "StoredWeight",
    "XNORAct",
    "after_step",
    "as_plain",
    "calibrate",
    "fold_batch_norm",
    "freeze",
    "in_float",
    "incrementally",
    "layer_inputs",
    "load_quantized",
    "parameter_groups",
    "quantizable",
    "quantize_after_training",
    "quantize_model",
    "quantized_layers",
    "save_quantized",
    "sweep",
    "weight_codes",
    "widths",
]
