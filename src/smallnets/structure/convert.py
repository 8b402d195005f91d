"""Any network with structured layers in the places of its dense ones.

Every `to_...` returns a copy and leaves the network as it is. Without `layers` it takes all linear
layers and convolutions that are worth it: those for which the new layer stores less and, where the
point of it is speed, multiplies less. Layers that something else reads or computes (attention,
parametrisations, tied weights, subclasses) are left alone; named ones are refused with a reason.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from smallnets.checks import above, between, one_of, whole
from smallnets.structure.circulant import CirculantLinear
from smallnets.structure.codebook import STARTS, CodebookConv2d, CodebookLinear, codebook_bits
from smallnets.structure.cp import CPConv2d
from smallnets.structure.hashed import HashedConv2d, HashedLinear
from smallnets.structure.layers import Cost, Layer, check_layer, copied, dense_cost
from smallnets.structure.low_rank import BasisConv2d, LowRankConv2d, LowRankLinear
from smallnets.structure.ranks import RankRule
from smallnets.structure.separable import SeparableConv2d
from smallnets.structure.shared import SharedWeight
from smallnets.structure.tensor_train import TTLinear
from smallnets.structure.tucker import Tucker2Conv2d
from smallnets.surgery import check_untied, places_of, put

STRUCTURED: tuple[type[nn.Module], ...] = (
    LowRankLinear, LowRankConv2d, BasisConv2d, Tucker2Conv2d, CPConv2d, SeparableConv2d, TTLinear,
    CirculantLinear, SharedWeight,
)  # fmt: skip
RESHAPES = ("channels", "kernels", "cheaper")
ENDS = ("first", "last")
# They read the weights of the layers that they hold, and do not call these.
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)

Maker = Callable[[Any], nn.Module | None]  # a layer -> what replaces it; None is not worth it


def to_low_rank(
    network: nn.Module,
    *,
    rank: int | None = None,
    share: float | None = None,
    energy: float | None = None,
    cost: float | None = None,
    reshape: str = "cheaper",
    layers: Sequence[str] | None = None,
    skip: Sequence[str] = (),
) -> nn.Module:
    """Linear layers and convolutions of low rank, by singular value decomposition.

    Args:
        network: left as it is.
        rank, share, energy, cost: exactly one, see `RankRule`.
        reshape: how a convolution is read as a matrix: "channels" (`LowRankConv2d`), "kernels"
            (`BasisConv2d`), or "cheaper", whichever takes fewer multiply-adds by the same rule.
        layers: dotted names of the ones to replace, worth it or not; None is all that are.
        skip: names of layers, or of modules that hold some, to leave alone; also "first" and
            "last" of all linear layers and convolutions.

    Raises:
        ValueError: none or several rules, a number out of range, an unknown name, a layer that
            cannot be replaced, or none that is worth it.
    """
    rule = RankRule(rank, share, energy, cost)
    kinds = {"channels": [LowRankConv2d], "kernels": [BasisConv2d]}
    both = kinds.get(one_of("reshape", reshape, RESHAPES), [LowRankConv2d, BasisConv2d])
    makers = {
        nn.Linear: _by_rule([LowRankLinear], rule, layers is not None),
        nn.Conv2d: _by_rule(both, rule, layers is not None),
    }
    return convert(network, makers, layers=layers, skip=skip)


def to_tucker2(
    network: nn.Module,
    *,
    rank: int | tuple[int, int] | None = None,
    share: float | None = None,
    energy: float | None = None,
    cost: float | None = None,
    sweeps: int = 0,
    layers: Sequence[str] | None = None,
    skip: Sequence[str] = (),
) -> nn.Module:
    """Convolutions as Tucker-2 decompositions; a `rank` may be a pair (outputs, inputs).

    Args and Raises: as `to_low_rank`, and `sweeps` of alternating least squares, see `tucker2`.
        Kernels of one pixel have no use for it; name them in `layers` if they should have it.
    """
    rule = RankRule(rank, share, energy, cost)
    whole("sweeps", sweeps, 0)
    make = _by_rule([Tucker2Conv2d], rule, layers is not None, sweeps=sweeps)
    return convert(network, {nn.Conv2d: make}, layers=layers, skip=skip)


def to_cp(
    network: nn.Module,
    *,
    rank: int | None = None,
    share: float | None = None,
    cost: float | None = None,
    sweeps: int = 30,
    layers: Sequence[str] | None = None,
    skip: Sequence[str] = (),
) -> nn.Module:
    """Convolutions in one group as sums of outer products: 1x1, depthwise, 1x1.

    Args and Raises: as `to_low_rank`; and `sweeps`, see `cp`. CP has no singular values, so there
        is no `energy`.
    """
    rule = RankRule(rank, share, None, cost)
    whole("sweeps", sweeps, 1)
    make = _by_rule([CPConv2d], rule, layers is not None, sweeps=sweeps)
    return convert(network, {nn.Conv2d: _one_group(make, layers)}, layers=layers, skip=skip)


def to_separable(
    network: nn.Module,
    *,
    rank: int | None = None,
    share: float | None = None,
    energy: float | None = None,
    cost: float | None = None,
    layers: Sequence[str] | None = None,
    skip: Sequence[str] = (),
) -> nn.Module:
    """Convolutions in one group as the nearest depthwise separable ones, with `rank` kernels a
    channel; without any rule, with one.

    Args and Raises: as `to_low_rank`.
    """
    usual = 1 if rank is share is energy is cost is None else rank
    make = _by_rule([SeparableConv2d], RankRule(usual, share, energy, cost), layers is not None)
    return convert(network, {nn.Conv2d: _one_group(make, layers)}, layers=layers, skip=skip)


def to_tensor_train(
    network: nn.Module,
    *,
    rank: int,
    count: int = 3,
    layers: Sequence[str] | None = None,
    skip: Sequence[str] = (),
) -> nn.Module:
    """Linear layers as tensor trains of `count` cores and at most this rank. They store less; they
    do not always multiply less.

    Args and Raises: as `to_low_rank`.
    """
    whole("rank", rank, 1)
    whole("count", count, 2)

    def make(layer: nn.Linear) -> nn.Module | None:
        if layers is None and TTLinear.cost(layer, rank, count).weights >= layer.weight.numel():
            return None
        return TTLinear.from_linear(layer, rank, count=count)

    return convert(network, {nn.Linear: make}, layers=layers, skip=skip)


def to_circulant(
    network: nn.Module,
    *,
    block: int | None = None,
    layers: Sequence[str] | None = None,
    skip: Sequence[str] = (),
) -> nn.Module:
    """Linear layers as the nearest ones of circulant blocks of a side, at most a layer's smaller
    one; None is that side. They are far from the dense ones: train them.

    Args and Raises: as `to_low_rank`.
    """
    if block is not None:
        whole("block", block, 1)

    def make(layer: nn.Linear) -> nn.Module | None:
        small = min(layer.in_features, layer.out_features)
        side = small if block is None else min(block, small)
        if layers is None and not _worth(layer, CirculantLinear.cost(layer, side)):
            return None
        return CirculantLinear.from_linear(layer, side)

    return convert(network, {nn.Linear: make}, layers=layers, skip=skip)


def to_hashed(
    network: nn.Module,
    *,
    share: float,
    seed: int = 0,
    layers: Sequence[str] | None = None,
    skip: Sequence[str] = (),
) -> nn.Module:
    """Linear layers and convolutions whose weights are hashed into a share of their number. They
    are far from the dense ones: train them.

    Args and Raises: as `to_low_rank`; `share` is in (0, 1), and `seed` is of the hash of the first
        such layer, the next one having the next seed.
    """
    above("share", share, 0)
    between("share", share, 0, 1)
    seeds = iter(range(whole("seed", seed, 0), 2**63))

    def make(layer: Layer) -> nn.Module | None:
        buckets = max(1, int(share * layer.weight.numel()))
        if layers is None and buckets >= layer.weight.numel():
            return None
        if isinstance(layer, nn.Linear):
            return HashedLinear.from_linear(layer, buckets, seed=next(seeds))
        return HashedConv2d.from_conv(layer, buckets, seed=next(seeds))

    return convert(network, {nn.Linear: make, nn.Conv2d: make}, layers=layers, skip=skip)


def to_codebook(
    network: nn.Module,
    *,
    k: int,
    start: str = "linear",
    generator: torch.Generator | None = None,
    layers: Sequence[str] | None = None,
    skip: Sequence[str] = (),
) -> nn.Module:
    """Linear layers and convolutions with weights of k values, by k-means; also those inside of
    layers that are decomposed already.

    Args and Raises: as `to_low_rank`; `start` and `generator` as `start_centroids`.
    """
    whole("k", k, 1)
    one_of("start", start, STARTS)

    def make(layer: Layer) -> nn.Module | None:
        count = layer.weight.numel()
        if layers is None and (k > count or codebook_bits(count, k) >= 32 * count):
            return None
        if isinstance(layer, nn.Linear):
            return CodebookLinear.from_linear(layer, k, start=start, generator=generator)
        return CodebookConv2d.from_conv(layer, k, start=start, generator=generator)

    makers = {nn.Linear: make, nn.Conv2d: make}
    return convert(network, makers, layers=layers, skip=skip, inside=True)


def to_dense(network: nn.Module) -> nn.Module:
    """A copy whose structured layers are dense ones that compute the same, for what takes only
    these, such as a quantiser.

    Raises:
        ValueError: it is no network.
    """
    copy = copied(network)
    # A code book inside of a decomposition comes before it.
    for layer in reversed(structured(copy).values()):
        if layer is copy:
            return layer.dense()
        (places,) = places_of(copy, [layer])
        put(places, layer.dense())
    return copy


def structured(network: nn.Module) -> dict[str, nn.Module]:
    """The structured layers of a network by name; one inside of another comes after it."""
    return {name: one for name, one in network.named_modules() if isinstance(one, STRUCTURED)}


def relative_errors(network: nn.Module, converted: nn.Module) -> dict[str, float]:
    """How far each structured layer is from the dense one in its place: the Frobenius norm of the
    difference of their weights over that of the dense one, by name.

    Args:
        network: the original.
        converted: what a `to_...` made of it.

    Raises:
        ValueError: they do not belong together.
    """
    dense, layers = (dict(one.named_modules()) for one in (to_dense(converted), network))
    errors: dict[str, float] = {}
    for name in structured(converted):
        if any(name.startswith(f"{outer}.") for outer in errors):
            continue
        layer = layers.get(name)
        weight, found = getattr(layer, "weight", None), dense[name].weight
        if not isinstance(weight, Tensor) or weight.shape != found.shape:
            raise ValueError(
                f"the network must have a layer {name!r} with a weight of shape "
                f"{tuple(found.shape)}; got {type(layer).__name__}"
            )
        weight, found = weight.detach().double(), found.detach().double()
        gap, size = (torch.linalg.vector_norm(one) for one in (weight - found, weight))
        errors[name] = float(gap / size.clamp_min(1e-300))
    return errors


def convert(
    network: nn.Module,
    makers: Mapping[type[nn.Module], Maker],
    *,
    layers: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    inside: bool = False,
) -> nn.Module:
    """A copy of a network in which other modules stand for some of its layers.

    Args:
        network: left as it is.
        makers: kind of layer -> what makes the new one, or None where it is not worth it.
        layers: names of the ones to replace; None is all that can be and are worth it.
        skip: names to leave alone, see `to_low_rank`.
        inside: whether to look into structured layers.

    Raises:
        ValueError: an unknown name, a named layer that cannot be replaced, or none is replaced.
    """
    copy = copied(network)
    if isinstance(copy, tuple(makers)):
        raise ValueError("the network must hold its layers; got a single layer: use its from_...")
    shut = READERS if inside else (*READERS, *STRUCTURED)
    outer = [one for one in copy.modules() if isinstance(one, shut)]
    closed = {one for holder in outer for one in holder.modules() if one is not holder}
    if layers is None:
        found = copy.named_modules()
        chosen = {one: name for name, one in found if type(one) in makers and one not in closed}
    else:
        chosen = _named(copy, layers, makers, closed)
    left = _left_out(copy, skip)
    chosen = {one: name for one, name in chosen.items() if one not in left}
    able = replaced = 0
    for layer, name in chosen.items():
        try:
            check_layer(layer, next(kind for kind in makers if isinstance(layer, kind)), name)
            check_untied(copy, [name])
        except ValueError:
            if layers is not None:
                raise
            continue
        able += 1
        made = next(make for kind, make in makers.items() if isinstance(layer, kind))(layer)
        if made is not None:
            (places,) = places_of(copy, [layer])
            put(places, made)
            replaced += 1
    if not replaced:
        kinds = " or ".join(kind.__name__ for kind in makers)
        raise ValueError(
            f"the network must have a {kinds} that is worth replacing; of the {able} that "
            "may be replaced none gets smaller"
        )
    return copy


def _left_out(network: nn.Module, skip: Iterable[str]) -> set[nn.Module]:
    """The modules that are named, and what they hold."""
    modules = dict(network.named_modules(remove_duplicate=False))
    usual = [one for one in network.modules() if isinstance(one, nn.Linear | nn.Conv2d)]
    left: set[nn.Module] = set()
    for name in _list("skip", skip):
        if name and name in modules:
            left |= set(modules[name].modules())
        elif name in ENDS and usual:
            left.add(usual[0 if name == "first" else -1])
        else:
            raise ValueError(
                f"skip must name layers of the network, or be first or last; got {name!r}"
            )
    return left


def _named(
    network: nn.Module,
    layers: Iterable[str],
    makers: Mapping[type[nn.Module], Maker],
    closed: set[nn.Module],
) -> dict[nn.Module, str]:
    """The layers of some names, each once."""
    modules, kinds = dict(network.named_modules(remove_duplicate=False)), tuple(makers)
    names = _list("layers", layers)
    if not names:
        raise ValueError("layers must name at least one layer; got none")
    for name in names:
        allowed = " or ".join(kind.__name__ for kind in kinds)
        if not isinstance(modules.get(name), kinds):
            found = type(modules[name]).__name__ if name in modules else "nothing"
            raise ValueError(f"layer {name!r} must be a {allowed}; there is {found}")
        if modules[name] in closed:
            raise ValueError(
                f"layer {name!r} must not be part of attention or of a structured layer; it is"
            )
    return {modules[name]: name for name in names}


def _list(what: str, names: Iterable[str]) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ValueError(f"{what} must be a list of names; got {names!r}")
    found = list(names)
    for one in found:
        if not isinstance(one, str):
            raise ValueError(f"{what} must be a list of names; got {one!r} among them")
    return found


def _worth(layer: Layer, cost: Cost) -> bool:
    """Whether a layer gets smaller and faster."""
    dense = dense_cost(layer)
    return cost.weights < dense.weights and cost.macs < dense.macs


def _by_rule(kinds: Sequence[Any], rule: RankRule, always: bool, **options: Any) -> Maker:
    """The cheapest of some kinds of layer at the ranks that a rule gives."""

    def make(layer: Layer) -> nn.Module | None:
        found = []
        for kind in kinds:
            full, cost_at = kind.full(layer), partial(kind.cost, layer)
            ranks = rule(partial(_spectra, kind, layer), full, cost_at, dense_cost(layer))
            fits = all(rank <= most for rank, most in zip(ranks, full, strict=True))
            if always or (fits and _worth(layer, cost_at(*ranks))):
                found.append((cost_at(*ranks).macs, kind, ranks))
        if not found:
            return None
        _, kind, ranks = min(found, key=lambda one: one[0])
        make = kind.from_linear if isinstance(layer, nn.Linear) else kind.from_conv
        return make(layer, *ranks, **options)

    return make


def _spectra(kind: Any, layer: Layer) -> Sequence[Tensor]:
    """Singular values of a layer, of kinds that have any."""
    spectra: Sequence[Tensor] = kind.spectra(layer)
    return spectra


def _one_group(make: Maker, layers: Sequence[str] | None) -> Maker:
    """Leaves convolutions in groups alone, unless they are named."""
    return lambda layer: None if layers is None and layer.groups > 1 else make(layer)
