"""Chapter 06: what an integer programme over layers finds, and what it is worth after tuning."""

from smallnets.models import read_weights
from smallnets.studies.lana.experiments import (
    SHARES,
    after_tuning,
    before_tuning,
    budgets,
    check_latency,
    choose_table,
    learning_curve,
    search,
    share,
    train_and_evaluate,
    train_family,
    train_member,
    train_pool,
    train_pools,
    tune_all,
    tuning_plans,
)
from smallnets.studies.lana.networks import build_arguments, layered_network, replaceable
from smallnets.studies.lana.plan import PRESETS, TUNED, Options, Settings, prepare, stored_table
from smallnets.studies.networks import build_network

__all__ = [
    "PRESETS",
    "SHARES",
    "TUNED",
    "Options",
    "Settings",
    "after_tuning",
    "before_tuning",
    "budgets",
    "build_arguments",
    "build_network",
    "check_latency",
    "choose_table",
    "layered_network",
    "learning_curve",
    "prepare",
    "read_weights",
    "replaceable",
    "search",
    "share",
    "stored_table",
    "train_and_evaluate",
    "train_family",
    "train_member",
    "train_pool",
    "train_pools",
    "tune_all",
    "tuning_plans",
]
