"""What a training of a quantised network needs besides its loop, and what it ends with."""

from collections.abc import Callable, Sequence

from torch import nn

from smallnets import checks
from smallnets.quantize.modules.activations import PACT
from smallnets.quantize.modules.base import Codes, Quantizer
from smallnets.quantize.modules.incremental import SHARES, IncrementalPowerOfTwo
from smallnets.quantize.modules.layers import quantized_layers


def after_step(network: nn.Module) -> None:
    """Call after every step of the optimiser: clips latent binary weights, keeps ranges above 0."""
    for layer in quantized_layers(network).values():
        layer.after_step()


def freeze(network: nn.Module) -> nn.Module:
    """Freeze all quantisers and quantised weights; biases and norms still learn.

    Raises:
        ValueError: a quantiser has no start yet; nothing is frozen then.
    """
    layers = quantized_layers(network)
    for name, layer in layers.items():
        for one in (layer.w_quant, layer.a_quant):
            if one is not None and not bool(one.started):
                raise ValueError(f"layer {name!r}: {type(one).__name__} has no start yet")
    for layer in layers.values():
        layer.freeze()
    return network


def weight_codes(network: nn.Module) -> dict[str, Codes]:
    """Every quantised weight as it is stored, by name of its layer."""
    layers = quantized_layers(network)
    return {name: one.weight_codes() for name, one in layers.items() if one.w_quant is not None}


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameters for an optimiser: learned steps, biases and norms without weight decay, weights
    and PACT's ends with it.
    """
    checks.at_least("weight_decay", weight_decay, 0)
    steps = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, Quantizer) and not isinstance(module, PACT)
        for parameter in module.parameters(recurse=False)
    }
    alphas = {id(module.alpha) for module in network.modules() if isinstance(module, PACT)}
    free: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for parameter in network.parameters():
        kept = id(parameter) in alphas or (parameter.dim() > 1 and id(parameter) not in steps)
        (decayed if kept else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def incrementally(
    network: nn.Module,
    retrain: Callable[[nn.Module], object],
    shares: Sequence[float] = SHARES,
) -> nn.Module:
    """INQ: fix a share of the weights of every "incremental" layer, retrain the rest, and so on.

    Args:
        network: made by `quantize_model(model, "incremental", ...)`; changed in place.
        retrain: network -> anything; trains it in place. Called after every share below 1.
        shares: rising, the last one 1.

    Raises:
        ValueError: other shares, or no such layer.
    """
    shares = list(shares)
    checks.each("shares", shares, checks.between, 0, 1)
    if shares != sorted(shares) or shares[-1] != 1:
        raise ValueError(f"shares must rise to 1; got {shares}")
    layers = [
        layer
        for layer in quantized_layers(network).values()
        if isinstance(layer.w_quant, IncrementalPowerOfTwo)
    ]
    if not layers:
        raise ValueError('the network must have layers of weights="incremental"; it has none')
    for share in shares:
        for layer in layers:
            layer.w_quant.fix(layer.weight, share)  # type: ignore[union-attr]
        if share < 1:
            retrain(network)
    return network
