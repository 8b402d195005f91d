"""Gates: factors of one on channels, and where they go (section 3.2 of the paper's method).

A gate z multiplies the channels of a feature map, out[b, c, ...] = z[c] * in[b, c, ...]. At one it
changes nothing, at zero the channel is gone, and the loss can be differentiated in between. Gates
here are plain tensors that hooks apply for the length of a block: the network itself is never
rebuilt, gates are in no optimiser, and several places can share one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from smallnets import checks
from smallnets.measure import evaluating
from smallnets.models.hooks import NOT_CALLED, uncompiled

WHERE = ("after_bn", "before_bn", "after_conv")


class Site(NamedTuple):
    """A place where a gate acts.

    Attributes:
        module: dotted name of a submodule.
        side: "out" gates what it returns, "in" what it is given.
        places: channels of the feature map that the gate acts on; None is all of them.
        units: for each of the `places` the entry of the gate; None is one after the other.
    """

    module: str
    side: str = "out"
    places: tuple[int, ...] | None = None
    units: tuple[int, ...] | None = None


Sites = Mapping[str, Sequence[Site]]  # name of a gate -> where it acts; several: they share it


def gate(x: Tensor, z: Tensor, site: Site | None = None, dim: int = 1) -> Tensor:
    """A feature map with its channels multiplied.

    Args:
        x: (batch, channels, ...), or (batch, ..., channels) with `dim=-1`.
        z: (channels,), or (batch, channels) for a gate of each example's own.
        site: which channels, if not all.
        dim: where x has its channels.
    """
    if site is not None and site.places is not None:
        units = range(len(site.places)) if site.units is None else site.units
        chosen = z[..., torch.tensor(list(units), device=z.device)]
        whole = torch.ones_like(z[..., :1]).expand(*z.shape[:-1], x.shape[dim])
        z = whole.index_copy(-1, torch.tensor(site.places, device=z.device), chosen)
    ones = [1] * (x.ndim - 2)
    shape = (*z.shape, *ones) if dim == 1 else (*z.shape[:-1], *ones, z.shape[-1])
    return x * z.to(x.dtype).reshape(shape)


@contextmanager
def gated(model: nn.Module, sites: Sites, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Let gates of the given values act inside the block.

    Args:
        model: left as it was afterwards.
        sites: where each gate acts.
        values: one tensor (channels,) or (batch, channels) a gate; gates without one stay open.

    Raises:
        ValueError: a value for an unknown gate, a site in an unknown module or in one that is
            scripted, or a pass of the network that does not call a module with a gate.
    """
    for name in values:
        checks.one_of("gate", name, sites)
    modules = dict(model.named_modules())
    gates = [(site, z) for name, z in values.items() for site in sites[name]]
    for site, _ in gates:
        checks.one_of("module of a gate", site.module, modules)
    names = list(dict.fromkeys(site.module for site, _ in gates))
    called: set[str] = set()

    def enter(_: nn.Module, __: Any) -> None:
        called.clear()

    def leave(_: nn.Module, __: Any, ___: Any) -> None:
        for name in names:
            if name not in called:
                raise ValueError(f"{name!r}, which has a gate, {NOT_CALLED}")

    with ExitStack() as stack, uncompiled(model, names):
        stack.callback(model.register_forward_pre_hook(enter).remove)
        for site, z in gates:
            stack.callback(_hooked(modules[site.module], site, z, called).remove)
        stack.callback(model.register_forward_hook(leave).remove)
        yield


def _hooked(module: nn.Module, site: Site, z: Tensor, called: set[str]) -> RemovableHandle:
    dim = channel_dim(module)

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        called.add(site.module)
        return (gate(_tensor(site, *inputs[:1]), z, site, dim), *inputs[1:])

    def after(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        called.add(site.module)
        return gate(_tensor(site, output), z, site, dim)

    if site.side == "in":
        return module.register_forward_pre_hook(before)
    return module.register_forward_hook(after)


def _tensor(site: Site, value: Any = None) -> Tensor:
    if not isinstance(value, Tensor):
        verb = "be given a tensor first" if site.side == "in" else "give a tensor"
        kind = type(value).__name__
        raise ValueError(f"{site.module!r}, which has a gate, must {verb}; got {kind}")
    return value


def channel_dim(module: nn.Module) -> int:
    """Where a module's feature maps have their channels: the last place for a linear layer."""
    return -1 if isinstance(module, nn.Linear) else 1


def sites_everywhere(model: nn.Module, where: str = "after_bn") -> dict[str, tuple[Site, ...]]:
    """One gate for every norm or convolution, by the module's name.

    Args:
        model: any network.
        where: "after_bn" (the paper's choice), "before_bn" or "after_conv".

    Raises:
        ValueError: another place, or a network without such modules.
    """
    checks.one_of("where", where, WHERE)
    kind, called = (_ConvNd, "convolution") if where == "after_conv" else (_BatchNorm, "BatchNorm")
    side = "in" if where == "before_bn" else "out"
    found: dict[str, tuple[Site, ...]] = {
        name: (Site(name, side),)
        for name, module in model.named_modules()
        if isinstance(module, kind)
    }
    if not found:
        raise ValueError(f"the network must have a {called} for gates {where}; it has none")
    return found


def open_gates(model: nn.Module, sites: Sites, images: Tensor) -> dict[str, Tensor]:
    """Ones (channels,) for every gate, of the images' dtype and device.

    Args:
        model: run once in evaluation mode, to see how many channels there are.
        sites: where the gates act.
        images: (batch, ...) that the network takes; the first is used.

    Raises:
        ValueError: sites in unknown modules, or in modules that the network does not run.
    """
    modules, widths = dict(model.named_modules()), dict[str, int]()
    where = [site.module for shared in sites.values() for site in shared]
    for module_name in where:
        checks.one_of("module of a gate", module_name, modules)
    with (
        ExitStack() as stack,
        evaluating(model),
        torch.no_grad(),
        uncompiled(model, where),
    ):
        for name, shared in sites.items():
            for site in shared:
                module = modules[site.module]
                handle = module.register_forward_hook(partial(_note_width, widths, name, site))
                stack.callback(handle.remove)
        model(images[:1])
    for name in sites:
        if name not in widths:
            raise ValueError(f"gate {name!r} must lie on the way to the logits; no image passes it")
    return {name: images.new_ones(widths[name]) for name in sites}


def _note_width(
    widths: dict[str, int], name: str, site: Site, module: nn.Module, inputs: Any, output: Tensor
) -> None:
    seen = _tensor(site, *(inputs[:1] if site.side == "in" else (output,)))
    if site.units is not None:
        widths[name] = max(site.units) + 1
    else:
        widths[name] = seen.shape[channel_dim(module)] if site.places is None else len(site.places)
