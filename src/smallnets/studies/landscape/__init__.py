"""Chapter 01: which remedy makes a network smaller or faster, and what that costs."""

from smallnets.studies.landscape.conditions import (
    FLOAT,
    TUNED,
    conditions,
    core_conditions,
    equals,
    further_conditions,
    named,
    sweep,
    taxonomy,
    trade_off,
)
from smallnets.studies.landscape.experiments import (
    count,
    finish,
    measure,
    measure_further,
    train_side_by_side,
)
from smallnets.studies.landscape.making import FAMILIES, Bench, Made, Remedy
from smallnets.studies.landscape.plan import PRESETS, Options, Settings, prepare
from smallnets.studies.landscape.pruned import structured_name, unstructured_name
from smallnets.studies.landscape.quantised import SIDES, pairs, sweep_name
from smallnets.studies.landscape.storing import file_bytes, stored
from smallnets.studies.landscape.structural import DESIGNS
from smallnets.studies.landscape.timing import files_of, time_networks, time_seeds, time_table

__all__ = [
    "DESIGNS",
    "FAMILIES",
    "FLOAT",
    "PRESETS",
    "SIDES",
    "TUNED",
    "Bench",
    "Made",
    "Options",
    "Remedy",
    "Settings",
    "conditions",
    "core_conditions",
    "count",
    "equals",
    "file_bytes",
    "files_of",
    "finish",
    "further_conditions",
    "measure",
    "measure_further",
    "named",
    "pairs",
    "prepare",
    "stored",
    "structured_name",
    "sweep",
    "sweep_name",
    "taxonomy",
    "time_networks",
    "time_seeds",
    "time_table",
    "trade_off",
    "train_side_by_side",
    "unstructured_name",
]
