"""All networks of the study by name, and which experiment looks at which."""

from smallnets.studies.landscape import pruned, quantised, structural
from smallnets.studies.landscape.making import QUANTISED, Bench, Made, Remedy
from smallnets.studies.landscape.plan import Settings
from smallnets.studies.landscape.pruned import structured_name, unstructured_name
from smallnets.studies.landscape.quantised import sweep_name
from smallnets.studies.landscape.structural import DESIGNS

FLOAT, TUNED = "float", "float, tuned"


def dense(bench: Bench) -> Made:
    """The dense network."""
    return Made(bench.dense())


def tuned(bench: Bench) -> Made:
    """The dense network after as much further training as all that is made from it."""
    return bench.tune(bench.dense(), "tuned")


def core_conditions(settings: Settings) -> dict[str, Remedy]:
    """What is made with every seed, by name."""
    return {
        FLOAT: Remedy("", "", dense),
        TUNED: Remedy("", "", tuned),
        **quantised.sweep_remedies(settings),
        **quantised.named_remedies(settings),
        **quantised.equal_remedies(settings),
        "int8": Remedy(QUANTISED, "early, post-training", quantised.int8),
        **pruned.pruning_remedies(settings),
        **pruned.ticket_remedies(settings),
        **structural.trade_off_remedies(settings),
    }


def further_conditions(settings: Settings) -> dict[str, Remedy]:
    """What is made once, for the table of all families; nothing without a table."""
    if not settings.table:
        return {}
    return {
        **quantised.further_remedies(),
        **pruned.further_remedies(),
        **structural.further_remedies(settings),
    }


def conditions(settings: Settings) -> dict[str, Remedy]:
    """All of them by name."""
    return core_conditions(settings) | further_conditions(settings)


def sweep(settings: Settings, side: str, *, trained: bool = True) -> dict[int, str]:
    """Bits -> name of the network, of one side of the sweep.

    Args:
        settings: of the study.
        side: "weights", "activations" or "both".
        trained: or rounded after training, which there is from 2 bits on.
    """
    return {
        bits: sweep_name(side, bits, trained=trained)
        for bits in settings.bits
        if trained or bits > 1
    }


def named(settings: Settings) -> list[str]:
    """Names of the networks of named quantisers, those of many bits first."""
    found = [*quantised.named_remedies(settings), sweep_name("weights", 1)]
    both = quantised.pairs(found)
    return sorted(found, key=lambda name: -both[name][0] * both[name][1])


def equals(settings: Settings) -> list[str]:
    """Names of networks of as many bit operations, the widest first."""
    return ["LSQ, 2/2", *map(quantised.narrow_name, sorted(settings.factors))]


def trade_off(settings: Settings) -> list[str]:
    """Names of the networks whose accuracy and speed are compared, the dense one first."""
    return [
        FLOAT,
        "int8",
        *map(unstructured_name, settings.sparsities),
        *map(structured_name, settings.cuts),
        "low rank",
        *(DESIGNS[one] for one in settings.designs),
        "half as wide",
    ]


def taxonomy(settings: Settings) -> list[str]:
    """Names of the rows of the table of all families: family by family, and part by part of it.

    Of sweeps only what stands for its part is shown.
    """
    shown = {
        FLOAT,
        sweep_name("both", 2, trained=False),
        *quantised.named_remedies(settings),
        sweep_name("weights", 1),
        *quantised.equal_remedies(settings),
        "int8",
        unstructured_name(0.8),
        structured_name(0.5),
        "ticket",
        "low rank",
        *(DESIGNS[one] for one in settings.designs),
        *further_conditions(settings),
    }
    rows = {name: one for name, one in conditions(settings).items() if name in shown}
    kinds = list(dict.fromkeys((one.family, one.kind) for one in rows.values()))
    return sorted(rows, key=lambda n: (rows[n].family, kinds.index((rows[n].family, rows[n].kind))))
