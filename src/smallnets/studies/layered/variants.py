"""The ways to train a network of many widths that are compared, by name."""

from typing import Any

from smallnets.quantize.layered.baselines import AdaBits, AnyPrecision
from smallnets.quantize.layered.fake import WeightRule
from smallnets.quantize.layered.train import TrainOnce

# Variants about which something is claimed: they have as many seeds as dedicated networks.
JUDGED = ("layered", "plain", "shared norm", "highest only", "min-norm", "direct")

# name -> arguments of `to_layered`, objective
VARIANTS: dict[str, tuple[dict[str, Any], TrainOnce]] = {
    "layered": ({}, TrainOnce()),
    "weighted": ({}, TrainOnce(combine="narrowest half")),
    "plain": ({"weights": WeightRule(rule="plain")}, TrainOnce()),
    "shared norm": ({"norms": "shared"}, TrainOnce()),
    "raw": ({"weights": WeightRule(gradient="raw")}, TrainOnce()),
    "tied": ({"weights": WeightRule(steps="tied", gradient="scaled")}, TrainOnce()),
    "round": ({"weights": WeightRule(rule="round")}, TrainOnce()),
    "highest only": ({}, TrainOnce(combine="highest only")),
    "min-norm": ({}, TrainOnce(combine="min-norm")),
    "min-norm, normalised": ({}, TrainOnce(combine="min-norm, normalised")),
    "pcgrad": ({}, TrainOnce(combine="pcgrad")),
    "random width": ({}, TrainOnce(combine="random width")),
    "scratch": ({}, TrainOnce()),
    "soft": ({}, TrainOnce(mode="soft")),
    "recursive": ({}, TrainOnce(mode="recursive")),
    "direct": ({"weights": WeightRule(rule="direct")}, TrainOnce()),
    "Any-Precision": ({"weights": AnyPrecision()}, TrainOnce(mode="recursive")),
    "AdaBits": ({"weights": AdaBits()}, TrainOnce()),
}
