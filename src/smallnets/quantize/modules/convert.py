"""From a network of one's own to a quantised one: which layers, which quantisers, which widths."""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from smallnets import checks
from smallnets.batches import Batches, Source
from smallnets.measure import evaluating
from smallnets.quantize.genie.units import check_trace, traced
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
from smallnets.quantize.modules.base import Quantizer
from smallnets.quantize.modules.calibration import calibrate
from smallnets.quantize.modules.incremental import IncrementalPowerOfTwo
from smallnets.quantize.modules.layers import QUANTIZED, with_quantisers
from smallnets.quantize.modules.weights import (
    TTQ,
    TWN,
    AffineWeight,
    BinaryWeight,
    DoReFaWeight,
    LSQWeight,
    PowerOfTwo,
)
from smallnets.surgery import check_plain, check_untied, recalibrate, replace_module

MakeWeight = Callable[[int], Quantizer]
MakeAct = Callable[[int], ActQuantizer]

WEIGHTS: Mapping[str, MakeWeight] = {
    "affine": AffineWeight,
    "symmetric": partial(AffineWeight, symmetric=True),
    "search": partial(AffineWeight, symmetric=True, span="search"),
    "stochastic": partial(AffineWeight, symmetric=True, stochastic=True),
    "lsq": LSQWeight,
    "dorefa": DoReFaWeight,
    "dorefa_scaled": partial(DoReFaWeight, scale="largest"),
    "binary": lambda bits: BinaryWeight("none"),
    "bwn": lambda bits: BinaryWeight("filter"),
    "xnor": lambda bits: BinaryWeight("filter", centred=True),
    "twn": lambda bits: TWN(),
    "ttq": lambda bits: TTQ(),
    "power_of_two": PowerOfTwo,
    "incremental": IncrementalPowerOfTwo,
}
"""Quantisers of weights by name; a number of bits gives one. PACT's weights are DoReFa's."""

ACTIVATIONS: Mapping[str, MakeAct] = {
    "affine": AffineAct,
    "search": partial(AffineAct, span="search"),
    "lsq": LSQAct,
    "pact": PACT,
    "dorefa": DoReFaAct,
    "sign": lambda bits: SignAct(),
    "xnor": lambda bits: XNORAct(),
}
"""Quantisers of activations by name."""

ONLY = {"binary": 1, "bwn": 1, "xnor": 1, "sign": 1, "twn": 2, "ttq": 2}


def quantize_model(
    model: nn.Module,
    weights: str | MakeWeight | None = "lsq",
    activations: str | MakeAct | None = "lsq",
    *,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    gradient_bits: int | None = None,
    skip: Collection[str] = ("first", "last"),
    skip_bits: int | None = None,
    bits: Mapping[str, tuple[int | None, int | None]] | None = None,
    fold: bool = False,
) -> nn.Module:
    """A copy of a network whose convolutions and linear layers are quantised, ready to be trained.

    Quantisers of weights start from the weights. Those of activations start with the first batch in
    training mode, or in `calibrate`.

    Args:
        model: any network; not changed. Layers other than Conv2d and Linear stay as they are.
        weights: a name in `WEIGHTS`, or what makes a quantiser of a number of bits; None leaves
            weights in floating point.
        activations: of every quantised layer's input: a name in `ACTIVATIONS`, and so on.
        weight_bits, activation_bits: 1 to 32; 32 and None leave numbers as they are. Quantisers
            with one width only need none.
        gradient_bits: of the gradients of layers' outputs (DoReFa).
        skip: layers that stay as they are: "first" and "last" in the order in which the network
            holds them, and names.
        skip_bits: quantise these, too, with learned steps of so many bits (LSQ's 8).
        bits: layer name -> (bits of its weight, bits of its input), instead of the widths above.
        fold: put BatchNorm into the weights first, see `fold_batch_norm`; the result is a traced
            network.

    Raises:
        ValueError: an unknown name, bits out of range or that a quantiser does not have, a layer of
            another kind or one whose weight is no plain parameter, no layer to quantise.
    """
    if isinstance(skip, str):
        raise ValueError(f"skip must be a collection of names; got the string {skip!r}")
    skip = list(skip)
    plain = _makers(weights, weight_bits, activations, activation_bits)
    for name, found in (("gradient_bits", gradient_bits), ("skip_bits", skip_bits)):
        if found is not None:
            checks.between(name, checks.whole(name, found, 1), 1, 32)
    network = fold_batch_norm(model) if fold else copy.deepcopy(model)
    layers = quantizable(network)
    left = _left(layers, skip)
    own = dict(bits or {})
    _known(network, layers, own)
    check_untied(network, layers)
    changed = 0
    for name, layer in layers.items():
        make_weight, make_act = plain
        if name in own:
            make_weight, make_act = _makers(weights, own[name][0], activations, own[name][1], name)
        elif name in left:
            if skip_bits is None:
                continue
            make_weight, make_act = _makers("lsq", skip_bits, "lsq", skip_bits)
        w_quant = None if make_weight is None else make_weight()
        a_quant = None if make_act is None else make_act()
        g_quant = None if gradient_bits is None else GradientQuantizer(gradient_bits)
        if w_quant is None and a_quant is None and g_quant is None:
            continue
        check_plain(name, layer, kind=nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear)
        replace_module(network, name, with_quantisers(layer, w_quant, a_quant, g_quant))
        changed += 1
        if w_quant is not None and w_quant.needs_start:
            try:
                w_quant.start(layer.weight)
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from None
    asked = any(one is not None for one in (*plain, gradient_bits)) or bool(own)
    if asked and not changed:
        raise ValueError(
            "the network must have a Conv2d or Linear layer to quantise beside those that skip "
            f"names ({', '.join(map(str, skip)) or 'none'}); its layers are "
            f"{', '.join(layers) or 'none'}"
        )
    return network


def quantizable(network: nn.Module) -> dict[str, nn.Module]:
    """The Conv2d and Linear layers of a network by name, in the order in which it holds them.

    The projections inside `nn.MultiheadAttention`, which reads their weights itself, are not among
    them.

    Raises:
        ValueError: `nn.TransformerEncoderLayer`, which in evaluation mode does that with all its
            layers; or layers that are quantised already.
    """
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            raise ValueError(
                f"layer {name!r} must call its parts to be quantised; nn.TransformerEncoderLayer "
                "reads their weights itself in evaluation mode"
            )
        if isinstance(module, QUANTIZED):
            raise ValueError(f"layer {name!r} is quantised already")
        if type(module) in (nn.Conv2d, nn.Linear):
            found[name] = module
    if "" in found:
        raise ValueError("the network must hold its layers; got a single layer")
    return found


def _makers(
    weights: str | MakeWeight | None,
    weight_bits: int | None,
    activations: str | MakeAct | None,
    activation_bits: int | None,
    layer: str = "",
) -> tuple[Callable[[], Quantizer] | None, Callable[[], ActQuantizer] | None]:
    """What makes one layer's two quantisers, checked by making them once."""
    made: list[Any] = []
    for what, kind, bits, known in (
        ("weight", weights, weight_bits, WEIGHTS),
        ("activation", activations, activation_bits, ACTIVATIONS),
    ):
        name = f"{what}_bits" + (f" of layer {layer!r}" if layer else "")
        if bits is not None:
            checks.between(name, checks.whole(name, bits, 1), 1, 32)
        if isinstance(kind, str):
            plural = {"weight": "weights", "activation": "activations"}[what]
            checks.one_of(plural, kind, known)
            only = ONLY.get(kind)
            if only is not None and bits not in (None, only, 32):
                raise ValueError(f"{name} of {kind} must be {only}; got {bits}")
            bits = only if bits is None else bits
        if kind is None or bits in (None, 32):
            made.append(None)
            continue
        make = partial(known[kind] if isinstance(kind, str) else kind, bits)  # type: ignore[arg-type]
        if not isinstance(given := make(), Quantizer):
            raise ValueError(
                f"{what}s must be a name or give a Quantizer; got {type(given).__name__}"
            )
        made.append(make)
    return tuple(made)  # type: ignore[return-value]


def _left(layers: Mapping[str, nn.Module], skip: Collection[str]) -> set[str]:
    names = list(layers)
    ends = {"first": names[:1], "last": names[-1:]}
    unknown = [one for one in skip if one not in ends and one not in layers]
    if unknown:
        raise ValueError(
            f"skip must name first, last or layers ({', '.join(names) or 'none'}); got "
            f"{', '.join(map(repr, unknown))}"
        )
    return {name for one in skip for name in ends.get(one, [one])}


def _known(network: nn.Module, layers: Mapping[str, nn.Module], names: Iterable[str]) -> None:
    modules = dict(network.named_modules())
    for name in names:
        if name in layers:
            continue
        kind = f"a {type(modules[name]).__name__}" if name in modules else "no layer"
        raise ValueError(
            f"bits must name Conv2d and Linear layers ({', '.join(layers) or 'none'}); "
            f"{name!r} is {kind}"
        )


def fold_batch_norm(model: nn.Module, images: Tensor | None = None) -> nn.Module:
    """A copy without the BatchNorm layers that can be put into the weights before them.

    w' = w gamma / sqrt(var + eps) and b' = beta + (b - mean) gamma / sqrt(var + eps). The copy is a
    traced network (torch.fx) in evaluation mode, whose parameters can be trained.

    Args:
        model: any network that torch.fx can trace.
        images: (batch, ...) on which both are compared.

    Raises:
        ValueError: it cannot be traced, or says something else on the images.
    """
    with evaluating(model):
        folded = traced(model, fold=True)
        if images is not None:
            check_trace(model, folded, images)
    return folded.requires_grad_(True)


def quantize_after_training(
    model: nn.Module,
    batches: Tensor | Batches | Source,
    weight_bits: int | None = 8,
    activation_bits: int | None = 8,
    *,
    weights: str | MakeWeight = "search",
    activations: str | MakeAct = "search",
    skip: Collection[str] = (),
    fold: bool = False,
    norms: bool = False,
    bits: Mapping[str, tuple[int | None, int | None]] | None = None,
) -> nn.Module:
    """Post-training quantisation: convert, find all ranges from a loader, train nothing.

    Args:
        batches: as of `layer_inputs`; read once, or twice with `norms`.
        norms: take the statistics of BatchNorm layers anew with quantised weights and activations,
            without which methods that change scales (DoReFa) fail.

    All else as `quantize_model` has it; the copy is in evaluation mode.
    """
    network = quantize_model(
        model,
        weights,
        activations,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        skip=skip,
        fold=fold,
        bits=bits,
    ).eval()
    if any(isinstance(module, QUANTIZED) for module in network.modules()):
        calibrate(network, batches)
    if norms:
        recalibrate(network, [batches] if isinstance(batches, Tensor) else batches)
    return network


SIDES = ("weights", "activations", "both")


def sweep(
    model: nn.Module,
    bits: Sequence[int],
    judge: Callable[[nn.Module], float],
    *,
    sides: Sequence[str] = SIDES,
    weights: str | MakeWeight = "lsq",
    activations: str | MakeAct = "lsq",
    batches: Tensor | Batches | Source | None = None,
    train: Callable[[nn.Module], object] | None = None,
    skip: Collection[str] = ("first", "last"),
) -> dict[tuple[int, int], float]:
    """What a network is worth at several widths of weights alone, activations alone, and both.

    Args:
        judge: network -> its worth, such as a test accuracy.
        batches: that activations are calibrated on, before training.
        train: quantised network -> anything; trains it in place. Without it nothing is trained.

    Returns:
        (weight bits, activation bits) -> worth, 32 for those that are exact.

    Raises:
        ValueError: no widths or sides, unknown ones; activations with neither batches nor training.
    """
    bits, sides = list(bits), list(sides)
    checks.each("bits", bits, checks.whole, 1)
    if not sides:
        raise ValueError(f"sides must be some of {', '.join(SIDES)}; got none")
    for side in sides:
        checks.one_of("sides", side, SIDES)
    if batches is None and train is None and set(sides) != {"weights"}:
        raise ValueError("a sweep of activations needs batches to calibrate on, or a training")
    found = {}
    for side in sides:
        for wide in bits:
            pair = (wide if side != "activations" else 32, wide if side != "weights" else 32)
            network = quantize_model(
                model,
                weights,
                activations,
                weight_bits=pair[0],
                activation_bits=pair[1],
                skip=skip,
            )
            if batches is not None and pair != (32, 32):
                calibrate(network, batches)
            if train is not None:
                train(network)
            found[pair] = judge(network)
    return found
