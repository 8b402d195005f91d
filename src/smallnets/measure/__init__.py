"""How good a network is, how big it is, and how long it takes."""

from smallnets.measure.alignment import cka
from smallnets.measure.calibration import CalibrationBins, calibration_bins, calibration_error
from smallnets.measure.evaluation import evaluating, one_tensor, predict, predict_with_labels
from smallnets.measure.latency import Latency, Timing, interleaved, latency
from smallnets.measure.layers import LayerSize, layer_sizes
from smallnets.measure.pareto import pareto
from smallnets.measure.quality import (
    accuracy,
    agreement,
    negative_log_likelihood,
    predictive_kl,
)
from smallnets.measure.size import macs, parameters, weight_bytes

__all__ = [
    "CalibrationBins",
    "Latency",
    "LayerSize",
    "Timing",
    "accuracy",
    "agreement",
    "calibration_bins",
    "calibration_error",
    "cka",
    "evaluating",
    "interleaved",
    "latency",
    "layer_sizes",
    "macs",
    "negative_log_likelihood",
    "one_tensor",
    "parameters",
    "pareto",
    "predict",
    "predict_with_labels",
    "predictive_kl",
    "weight_bytes",
]
