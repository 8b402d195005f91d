"""How good a network is, how big it is, and how long it takes."""

from smallnets.measure.evaluation import evaluating, predict
from smallnets.measure.latency import Latency, latency
from smallnets.measure.quality import (
    accuracy,
    agreement,
    calibration_error,
    negative_log_likelihood,
    predictive_kl,
)
from smallnets.measure.size import macs, parameters, weight_bytes

__all__ = [
    "Latency",
    "accuracy",
    "agreement",
    "calibration_error",
    "evaluating",
    "latency",
    "macs",
    "negative_log_likelihood",
    "parameters",
    "predict",
    "predictive_kl",
    "weight_bytes",
]
