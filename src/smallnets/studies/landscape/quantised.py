"""The first family: fewer bits, trained from the dense network or found without training.

The first and the last layer have 8 bits, as in LSQ, or stay as they are where Adam trains, whose
steps are too long for the steps of a grid. All others have the widths that a name says, weights
before activations: "LSQ, 4/32" has weights of 4 bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.deploy.int8 import POLICY
from smallnets.distill.classic import kd_loss
from smallnets.measure.layers import layer_sizes
from smallnets.quantize import modules as q
from smallnets.quantize.genie import network as genie
from smallnets.quantize.mixed import choose_bits
from smallnets.quantize.probabilistic import (
    TernaryDistributionConv2d,
    TernaryDistributionLinear,
    ternary_layers,
    total_kl,
)
from smallnets.studies.landscape.making import (
    CROSS_ENTROPY,
    QUANTISED,
    STRUCTURAL,
    Bench,
    Made,
    Remedy,
)
from smallnets.studies.landscape.plan import Settings, narrower
from smallnets.studies.networks import train_network
from smallnets.surgery import recalibrate, replace_module
from smallnets.training import Batch, TrainSettings, teaching
from smallnets.training.loop import Objective

ENDS = 8  # bits of the first and the last layer
KL = 1e-6  # of the divergence of distributions of weights from their prior
ADAM, SIGNS, LOGITS = 5e-3, 2e-2, 0.1  # learning rates of TTQ, of signs, of distributions
WIDTHS = {2: "half as wide", 4: "a quarter as wide"}
SIDES = ("weights", "activations", "both")


@dataclass(frozen=True)
class Rounded:
    """The objective of a quantised network: what quantisers need after a step is done before the
    next one, and weight decay leaves learned steps, biases and norms alone.

    Attributes:
        decay: of weights and of PACT's ends; that of the training has to be 0.
        objective: what is learned.
    """

    decay: float
    objective: Objective = CROSS_ENTROPY

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        q.after_step(model)
        terms = self.objective(model, batch)
        decayed: list[Tensor] = q.parameter_groups(model, self.decay)[0]["params"]  # type: ignore[assignment]
        size = torch.stack([one.square().sum() for one in decayed]).sum() / 2
        return terms | {"loss": terms["loss"] + self.decay * size}


@dataclass(frozen=True, eq=False)
class Taught:
    """Half cross-entropy with the labels, half distillation (Hinton et al.).

    Attributes:
        teacher: the dense network.
        temperature: of both softmaxes.
    """

    teacher: nn.Module
    temperature: float = 2.0

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            said = self.teacher(batch.images)
        logits = model(batch.images).float()
        distilled = kd_loss(logits, said, self.temperature)
        return {"loss": (F.cross_entropy(logits, batch.labels) + distilled) / 2}


@dataclass(frozen=True)
class Distributions:
    """The objective of a network of ternary distributions: expected loss and divergence."""

    strength: float = KL

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        divergence = total_kl(model)
        terms = CROSS_ENTROPY(model, batch)
        return {"loss": terms["loss"] + self.strength * divergence, "divergence": divergence}


def quantised(
    bench: Bench,
    weights: str | None,
    activations: str | None,
    weight_bits: int | None,
    activation_bits: int | None,
    *,
    gradient_bits: int | None = None,
    ends: int | None = ENDS,
    start: nn.Module | None = None,
    training: TrainSettings | None = None,
    objective: Objective = CROSS_ENTROPY,
) -> Made:
    """A network of few bits, trained through the rounding from the dense one.

    Args:
        bench: of the seed.
        weights, activations, weight_bits, activation_bits, gradient_bits: as of `quantize_model`.
        ends: bits of the first and the last layer; None leaves them in floating point.
        start: another network in the dense one's place.
        training: how; None is the tuning of the settings.
        objective: what is learned.
    """
    network = q.quantize_model(
        bench.dense() if start is None else start,
        weights,
        activations,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        gradient_bits=gradient_bits,
        skip_bits=ends,
    )
    return _trained(bench, network, training or bench.settings.tuning, objective)


def _trained(
    bench: Bench, network: nn.Module, training: TrainSettings, objective: Objective
) -> Made:
    q.calibrate(network, bench.images)
    before = bench.accuracy(network)
    how = replace(training, weight_decay=0.0)
    bench.fit(network, how, Rounded(training.weight_decay, objective), label="quantised")
    q.after_step(network)
    return Made(network, before=before)


def signs(bench: Bench, weights: str, activations: str) -> Made:
    """A network of binary weights and activations, trained by Adam without weight decay.

    Behind a ReLU all signs are one, so only the last of them stays, before the classifier; between
    the others signs are the only nonlinearity.
    """
    network = bench.dense()
    relus = [name for name, layer in network.named_modules() if isinstance(layer, nn.ReLU)]
    for name in relus[:-1]:
        replace_module(network, name, nn.Identity())
    return quantised(
        bench, weights, activations, 1, 1, ends=None, start=network, training=bench.slowly(SIGNS)
    )


def learned_ternary(bench: Bench) -> Made:
    """TTQ, by Adam: the gradients of its two values are sums over a layer."""
    how = replace(bench.settings.tuning, optimizer="adam", lr=ADAM)
    return quantised(bench, "ttq", None, 2, None, ends=None, training=how)


def taught(bench: Bench, bits: int) -> Made:
    """As LSQ at both widths, with the dense network as a teacher."""
    teacher = bench.dense().requires_grad_(False)
    with teaching([teacher], bench.settings.tuning.accelerator):
        return quantised(bench, "lsq", "lsq", bits, bits, objective=Taught(teacher))


def narrow(bench: Bench, factor: int, bits: int | None) -> Made:
    """A network whose width is divided by a factor, trained from its own start, and then quantised
    by LSQ; None leaves it dense.
    """
    settings = bench.settings
    network = train_network(
        narrower(settings.network, factor), bench.dataset, settings.training, bench.seed,
        bench.cache_dir, label="narrow",
    )  # fmt: skip
    if bits is None:
        return Made(network)
    return quantised(bench, "lsq", "lsq", bits, bits, start=network)


def after_training(
    bench: Bench,
    weight_bits: int | None,
    activation_bits: int | None,
    weights: str = "search",
    activations: str = "search",
) -> Made:
    """The dense network rounded: ranges and the statistics of BatchNorm come from a few images."""
    network = bench.dense()
    layers = list(q.quantizable(network))
    own = dict.fromkeys((layers[0], layers[-1]), (ENDS, ENDS))
    return Made(
        q.quantize_after_training(
            network,
            bench.images,
            weight_bits,
            activation_bits,
            weights=weights,
            activations=activations,
            bits=own,
            norms=True,
        )
    )


def int8(bench: Bench) -> Made:
    """The dense network in 8 bits, images and additions, too: in integers once it is exported."""
    network = genie.quantize(
        bench.dense(), 8, 8, mode="nearest", symmetric=True, policy=POLICY, fold=True
    )
    made = genie.calibrate(network, bench.images)
    dense = bench.dense()
    names = [one.name for one in layer_sizes(dense, bench.shape) if one.macs]
    return Made(made, counted=dense, bits=dict.fromkeys(names, (8, 8)))


def mixed(bench: Bench, bits: float = 3.0) -> Made:
    """A width for every layer, so many bits a weight on average, then a training by LSQ."""
    dense = bench.dense()
    weights = sum(layer.weight.numel() for layer in q.quantizable(dense).values())  # type: ignore[misc, operator]
    found = choose_bits(dense, bench.judged, bits * weights, candidates=(8, 4, 3, 2))
    network = q.quantize_model(dense, "lsq", "lsq", bits=found.bits, skip=tuple(found.bits))
    return _trained(bench, network, bench.settings.short, CROSS_ENTROPY)


def incremental(bench: Bench, bits: int = 4) -> Made:
    """Powers of two by INQ: the largest weights first, the others retrained after every share."""
    network = q.quantize_model(bench.dense(), "incremental", None, weight_bits=bits, skip_bits=ENDS)
    q.calibrate(network, bench.images)
    before = bench.accuracy(network)
    how = bench.settings.short
    objective = Rounded(how.weight_decay)

    def retrain(one: nn.Module) -> None:
        bench.fit(one, replace(how, weight_decay=0.0), objective, label="incremental")

    return Made(q.incrementally(network, retrain), before=before)


def probabilistic(bench: Bench) -> Made:
    """Distributions over ternary weights between the first and the last layer; in the end each
    weight takes its most probable value.

    The projections of shortcuts stay as they are: their noise would reach all layers behind them.
    """
    network = bench.dense()
    layers = q.quantizable(network)
    inner = [name for name in [*layers][1:-1] if "shortcut" not in name]
    for name in inner:
        layer = layers[name]
        made = (
            TernaryDistributionConv2d.from_conv(layer)
            if isinstance(layer, nn.Conv2d)
            else TernaryDistributionLinear.from_linear(layer)  # type: ignore[arg-type]
        )
        replace_module(network, name, made)
    before = bench.accuracy(network)
    bench.fit(network, bench.slowly(LOGITS), Distributions(), label="distributions")
    for name, found in zip(inner, ternary_layers(network), strict=True):
        replace_module(network, name, found.most_probable_layer())  # type: ignore[operator]
    recalibrate(network, [bench.images])
    return Made(network, before=before, bits=dict.fromkeys(inner, (2, 32)))


def sweep_name(side: str, bits: int, *, trained: bool = True) -> str:
    """What a network of the sweep is called.

    Args:
        side: one of `SIDES`.
        bits: of that side; the other one has 32.
        trained: or rounded after the training of the dense network.
    """
    wide, narrow_ = (bits if side != "activations" else 32, bits if side != "weights" else 32)
    method = "post-training"
    if trained:
        method = {"weights": "BWN", "both": "BWN and LSQ"}.get(side, "LSQ") if bits == 1 else "LSQ"
    return f"{method}, {wide}/{narrow_}"


def sweep_remedies(settings: Settings) -> dict[str, Remedy]:
    """The sweep of weights, activations and both: trained by LSQ (weights of one bit by BWN), and
    rounded after training.
    """
    found = {}
    for bits in settings.bits:
        for side in SIDES:
            wide = bits if side != "activations" else None
            narrow_ = bits if side != "weights" else None
            weights = None if wide is None else "bwn" if wide == 1 else "lsq"
            acts = None if narrow_ is None else "lsq"
            found[sweep_name(side, bits)] = Remedy(
                QUANTISED,
                "learned step" if bits > 1 else "binary weights",
                partial(
                    quantised, weights=weights, activations=acts, weight_bits=wide,
                    activation_bits=narrow_,
                ),
            )  # fmt: skip
            if bits > 1:
                found[sweep_name(side, bits, trained=False)] = Remedy(
                    QUANTISED,
                    "post-training",
                    partial(after_training, weight_bits=wide, activation_bits=narrow_),
                )
    return found


def named_remedies(settings: Settings) -> dict[str, Remedy]:
    """Named quantisers at their widths; LSQ at both is in the sweep, too, under the same name."""
    found = {}
    for bits in settings.named_bits:
        for name, kind, weights, acts in (
            ("LSQ", "learned step", "lsq", "lsq"),
            ("PACT", "learned clipping", "dorefa", "pact"),
            ("DoReFa", "k-bit uniform", "dorefa", "dorefa"),
        ):
            found[f"{name}, {bits}/{bits}"] = Remedy(
                QUANTISED,
                kind,
                partial(
                    quantised, weights=weights, activations=acts, weight_bits=bits,
                    activation_bits=bits,
                ),
            )  # fmt: skip
    found["TWN, 2/32"] = Remedy(
        QUANTISED,
        "ternary",
        partial(quantised, weights="twn", activations=None, weight_bits=2, activation_bits=None),
    )
    found["TTQ, 2/32"] = Remedy(QUANTISED, "ternary", learned_ternary)
    found["probabilistic, 2/32"] = Remedy(QUANTISED, "probabilistic", probabilistic)
    found["BNN, 1/1"] = Remedy(
        QUANTISED, "binary weights and activations",
        partial(signs, weights="binary", activations="sign"),
    )  # fmt: skip
    found["XNOR, 1/1"] = Remedy(
        QUANTISED, "binary weights and activations",
        partial(signs, weights="xnor", activations="xnor"),
    )  # fmt: skip
    return found


def narrow_name(factor: int) -> str:
    """What a network of another width is called that has as many bit operations as "LSQ, 2/2"."""
    bits = 2 * factor
    return f"{WIDTHS.get(factor, f'1 : {factor} as wide')}, {bits}/{bits}"


def equal_remedies(settings: Settings) -> dict[str, Remedy]:
    """Narrower networks with more bits, of as many bit operations as "LSQ, 2/2", and its twin with
    a teacher.
    """
    found = {
        narrow_name(one): Remedy(
            QUANTISED, "wide and low precision", partial(narrow, factor=one, bits=2 * one)
        )
        for one in settings.factors
    }
    return {
        WIDTHS[2]: Remedy(STRUCTURAL, "narrower", partial(narrow, factor=2, bits=None)),
        **found,
        "LSQ, 2/2, taught": Remedy(STRUCTURAL, "knowledge distillation", partial(taught, bits=2)),
    }


def further_remedies() -> dict[str, Remedy]:
    """What only the table of all families shows."""
    plain = "early, post-training"
    return {
        "affine, 8/8": Remedy(
            QUANTISED, plain,
            partial(after_training, weight_bits=8, activation_bits=8, weights="affine",
                    activations="affine"),
        ),
        "symmetric, 4/32": Remedy(
            QUANTISED, plain,
            partial(after_training, weight_bits=4, activation_bits=None, weights="symmetric"),
        ),
        "stochastic, 4/32": Remedy(
            QUANTISED, plain,
            partial(after_training, weight_bits=4, activation_bits=None, weights="stochastic"),
        ),
        "BinaryConnect, 1/32": Remedy(QUANTISED, "binary weights", binary_connect),
        "DoReFa, 2/2, gradients 8": Remedy(QUANTISED, "k-bit uniform", low_gradients),
        "power of two, 4/32": Remedy(QUANTISED, "power of two", power_of_two),
        "INQ, 4/32": Remedy(QUANTISED, "power of two", incremental),
        "mixed, 3 bits a weight": Remedy(QUANTISED, "mixed precision", mixed),
    }  # fmt: skip


def binary_connect(bench: Bench) -> Made:
    """Signs of weights without a scale."""
    return quantised(bench, "binary", None, 1, None, training=bench.settings.short)


def low_gradients(bench: Bench) -> Made:
    """DoReFa with gradients of 8 bits."""
    return quantised(
        bench, "dorefa", "dorefa", 2, 2, gradient_bits=8, training=bench.settings.short
    )


def power_of_two(bench: Bench) -> Made:
    """Powers of two, all at once."""
    return quantised(bench, "power_of_two", None, 4, None, training=bench.settings.short)


def pairs(names: Sequence[str]) -> Mapping[str, tuple[int, int]]:
    """Name -> bits of weights and activations, of names that end with them."""
    found = {}
    for name in names:
        parts = name.split(", ")
        for part in parts[1:]:
            first, slash, second = part.partition("/")
            if slash:
                found[name] = (int(first), int(second))
    return found
