"""Genie: quantisation without data (Jeon, Lee and Kim, CVPR 2023).

Two halves. A *synthesiser* makes images that a trained network takes for its training data, from
the statistics in its BatchNorm layers alone (`synthesize`, and its rivals). A *quantiser* learns on
them, part by part, to round weights up or down and how wide the steps are (`quantize`,
`reconstruct`). Both work on any network that torch.fx can trace::

    images = synthesize(model, 1024, (3, 224, 224)).images
    network = quantize(model, weight_bits=4, activation_bits=4)
    reconstruct(network, images)
    logits = network(batch)

From the paper: the loss, the generator with learned latent vectors, swing convolution, the detached
base. From the official code: reductions, schedules, order of operations, QDrop in two places.
"""

from smallnets.quantize.genie.frozen import export, restore
from smallnets.quantize.genie.generator import DataGenerator
from smallnets.quantize.genie.network import (
    Allocated,
    BitPolicy,
    QuantizedNetwork,
    calibrate,
    quantize,
)
from smallnets.quantize.genie.quantizers import (
    MODES,
    ActivationQuantizer,
    QDrop,
    WeightQuantizer,
)
from smallnets.quantize.genie.reconstruct import (
    Progress,
    ReconstructionSettings,
    UnitHistory,
    learn,
    reconstruct,
    reconstruction_loss,
)
from smallnets.quantize.genie.statistics import (
    BatchNormInputs,
    BNSLoss,
    BNStat,
    bn_statistics,
    bns_loss,
    matching_loss,
)
from smallnets.quantize.genie.swing import SwingConv2d, phase_coverage, swing
from smallnets.quantize.genie.synthesis import (
    METHODS,
    Synthesis,
    SynthesisSettings,
    corner_energy,
    optimise,
    roughness,
    synthesize,
)
from smallnets.quantize.genie.units import Unit, find_units, traced

__all__ = [
    "METHODS",
    "MODES",
    "ActivationQuantizer",
    "Allocated",
    "BNSLoss",
    "BNStat",
    "BatchNormInputs",
    "BitPolicy",
    "DataGenerator",
    "Progress",
    "QDrop",
    "QuantizedNetwork",
    "ReconstructionSettings",
    "SwingConv2d",
    "Synthesis",
    "SynthesisSettings",
    "Unit",
    "UnitHistory",
    "WeightQuantizer",
    "bn_statistics",
    "bns_loss",
    "calibrate",
    "corner_energy",
    "export",
    "find_units",
    "learn",
    "matching_loss",
    "optimise",
    "phase_coverage",
    "quantize",
    "reconstruct",
    "reconstruction_loss",
    "restore",
    "roughness",
    "swing",
    "synthesize",
    "traced",
]
