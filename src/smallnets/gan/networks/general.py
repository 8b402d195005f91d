"""A supernet of your own generator: every width of it from one set of weights.

Layers are found by a trace, or named; none has to be written anew. A layer stands for its group:
all that write, norm and read the same channels. At a configuration every group has its first
channels alone: for the duration of a pass the network's layers get slices of their weights, and
export copies those slices into a network of the same class.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.gan.networks.configs import Config, ConfigSpace, as_config
from smallnets.gan.networks.counting import Cost, count_layers
from smallnets.gan.networks.grouping import (
    FAILURES,
    WEIGHTED,
    WidthGroup,
    sides_of,
    width_groups,
)
from smallnets.gan.networks.resnet import Taps
from smallnets.gan.networks.slicing import (
    SIDES,
    Kept,
    Reading,
    counts_of,
    keep_statistics,
    kept_of,
    number_of,
    parameters_left,
    resize,
    share_left,
    slices_of,
    sort_by_l1,
)
from smallnets.gan.networks.tapped import Tapped, check_taps
from smallnets.measure import evaluating, parameters
from smallnets.surgery import check_plain, check_untied

FRACTIONS = (1.0, 0.75, 0.5, 0.25)
Widths = Sequence[float] | Mapping[str | tuple[str, ...], Sequence[int]]
REMEMBERED = 1000


def supernet(
    generator: nn.Module,
    example: Tensor,
    widths: Widths | None = None,
    *,
    taps: Sequence[str] = (),
    sort: bool = False,
) -> "GeneralSupernet":
    """A supernet of a generator.

    Args:
        generator: any network of convolutions, transposed ones, linear layers, BatchNorm and
            instance norms, in the main; copied, and left as it is.
        example: (batch, ...) input of the size that it will see.
        widths: which layers may vary, and what widths they may have: by default all that can, at
            1, 3/4, 1/2 and 1/4 of their channels; a sequence of fractions, for all; or {name of a
            layer: numbers of channels}, with names from `width_groups`, or of any layer that
            writes a group's channels. A tuple of names makes groups vary together.
        taps: dotted names of modules whose outputs are to be distilled.
        sort: sort the channels of every group by the L1 norm of the weights that write them, the
            most important first; the full network computes the same. For trained generators.

    Raises:
        ValueError: layers that are not there, cannot vary or are named twice, widths that do not
            fit, weights that are shared or computed, or a network that cannot be traced or does
            not run with its smallest widths.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
        >>> small = supernet(net, torch.zeros(1, 3, 8, 8), {"0": [8, 4]}).export((4,))
    """
    if not isinstance(example, Tensor) or example.dim() < 2 or not len(example):
        raise ValueError(f"example must be a batch of inputs (batch, ...); got {_shape(example)}")
    check_taps(generator, taps)
    network = copy.deepcopy(generator)
    groups = width_groups(network, example)
    genes, space = _genes(network, groups, FRACTIONS if widths is None else widths)
    touched = sorted({m.layer for gene in genes for name in gene for m in groups[name].members})
    for name in touched:
        if isinstance(network.get_submodule(name), WEIGHTED):
            check_plain(name, network.get_submodule(name))
    check_untied(network, touched)
    if sort:
        for name in {name for gene in genes for name in gene}:
            sort_by_l1(network, groups[name])
    made = GeneralSupernet(network, groups, genes, space, example[:1].detach().clone(), taps)
    made.train(generator.training)
    _check_runs(made, generator, example)
    return made


def _shape(example: object) -> object:
    return tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__


Genes = tuple[tuple[str, ...], ...]


def _genes(
    network: nn.Module, groups: Mapping[str, WidthGroup], widths: Widths
) -> tuple[Genes, ConfigSpace]:
    """Groups that vary together, and their widths."""
    if not isinstance(widths, Mapping):
        checks.each("widths", widths, checks.above, 0)
        checks.each("widths", widths, checks.between, 0, 1)
        lists = [
            tuple(sorted({max(1, round(share * group.size)) for share in widths}, reverse=True))
            for group in groups.values()
        ]
        return tuple((name,) for name in groups), ConfigSpace(tuple(lists))
    owner = {layer: group.name for group in groups.values() for layer in group.layers}
    layers = dict(network.named_modules())
    genes, lists, taken = [], [], set[str]()
    for key, choices in widths.items():
        names = (key,) if isinstance(key, str) else tuple(key)
        for name in names:
            if name not in layers:
                raise ValueError(
                    f"a layer must be one of {', '.join(groups)} or another that writes their "
                    f"channels; got {name!r}"
                )
            if name not in owner:
                raise ValueError(
                    f"the width of layer {name!r} must be free to vary; it makes the output, or "
                    "reaches a layer that cannot be sliced. Those that can vary are "
                    f"{', '.join(groups)}"
                )
        gene = tuple(dict.fromkeys(owner[name] for name in names))
        if taken & set(gene):
            raise ValueError(f"a width must be named once; {key!r} has that of an earlier name")
        taken |= set(gene)
        sizes = {groups[name].size for name in gene}
        if len(sizes) != 1:
            raise ValueError(
                f"layers that vary together must be equally wide; those of {key!r} have "
                f"{', '.join(map(str, sorted(sizes)))} channels"
            )
        (size,) = sizes
        checks.each(f"widths of {key!r}", tuple(choices), checks.whole, 1)
        if max(choices) > size:
            raise ValueError(f"widths of {key!r} must be at most {size}; got {max(choices)}")
        genes.append(gene)
        lists.append(tuple(sorted(choices, reverse=True)))
    if not genes:
        raise ValueError("widths must name at least one layer; got none")
    return tuple(genes), ConfigSpace(tuple(lists))


class GeneralSupernet(nn.Module):
    """A generator, and the widths that it can have; made by `supernet`.

    Attributes:
        network: the generator at full width, whose weights are trained.
        groups: all that can vary, by name.
        genes: for every number of a configuration the names of its groups.
        space: the configurations; the numbers are channels.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: Mapping[str, WidthGroup],
        genes: Genes,
        space: ConfigSpace,
        example: Tensor,
        taps: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.network, self.groups, self.genes, self.space = network, dict(groups), genes, space
        self.taps = tuple(taps)
        self.register_buffer("example", example, persistent=False)
        self.full_config: Config = tuple(groups[gene[0]].size for gene in genes)

    # Cached properties, as these have no part in the name of a training.
    @cached_property
    def _plans(self) -> dict[Config, dict[str, tuple[Kept, Kept]]]:
        return {}

    @cached_property
    def _costs(self) -> dict[tuple[int, ...], dict[str, Cost]]:
        return {}

    def check(self, config: Sequence[int] | None) -> Config:
        """A configuration as a tuple; None is the full one, in the space or not.

        Raises:
            ValueError: another number of widths, or one that is not in the space.
        """
        if config is None or as_config(config) == self.full_config:
            return self.full_config
        return self.space.check(config)

    def forward(
        self, x: Tensor, config: Sequence[int] | None = None, taps: bool = False
    ) -> Tensor | Taps:
        """The generator's output, by the first channels of every group.

        Args:
            x: (batch, ...) as the generator takes it.
            config: numbers of channels; by default all.
            taps: whether the outputs of the tapped modules come as well.

        Raises:
            ValueError: a configuration that is not in the space.
        """
        with self._narrow(self._plan(self.check(config))):
            out: Tensor | Taps = _Pass(self.network, self.taps)(x, taps)
        return out

    @torch.no_grad()
    def export(self, config: Sequence[int] | None) -> nn.Module:
        """A generator of the same class with copies of a configuration's weights, which gives the
        same output, bit for bit.
        """
        narrow = copy.deepcopy(self.network)
        modules = dict(narrow.named_modules())
        for name, kept in self._plan(self.check(config)).items():
            module = modules[name]
            weights, buffers = slices_of(module, *kept)
            for part, value in weights.items():
                if value is not None:
                    trained = module._parameters[part].requires_grad
                    module._parameters[part] = nn.Parameter(value.detach().clone(), trained)
            for part, value in buffers.items():
                module._buffers[part] = None if value is None else value.clone()
            resize(module, *map(number_of, kept))
        return narrow

    def tap_channels(self, config: Sequence[int] | None = None) -> list[int]:
        """Channels of the taps at a configuration."""
        with evaluating(self), torch.no_grad():
            _, found = self(self.example, config, taps=True)
        return [tap.shape[1] for tap in found]

    def cost(self, config: Sequence[int] | None, size: tuple[int, ...] | None = None) -> Cost:
        """Of one example at a configuration: layers are counted once, and scaled with their
        channels. (Poolings and what modules count themselves are taken at full width; this touches
        the published convention alone.)

        Args:
            config: numbers of channels.
            size: (height, width) of the input; by default that of the example.
        """
        shape = (*self.example.shape[1:2], *(self.example.shape[2:] if size is None else size))
        if shape not in self._costs:
            self._costs[shape] = count_layers(self.network, tuple(shape))
        plan, sums = self._plan(self.check(config)), [0, 0, 0]
        modules = dict(self.network.named_modules())
        left = {
            name: share_left(modules[name], *map(number_of, kept)) for name, kept in plan.items()
        }
        for name, cost in self._costs[shape].items():
            part, whole = left.get(name, (1, 1))
            numbers = cost.published, cost.outsized, cost.exact
            sums = [a + b * part // whole for a, b in zip(sums, numbers, strict=True)]
        left_over = parameters(self.network)
        for name, kept in plan.items():
            sizes = parameters_left(modules[name], *map(number_of, kept))
            left_over += sizes - sum(p.numel() for p in modules[name].parameters(recurse=False))
        published, outsized, exact = sums
        return Cost(published, outsized, exact, left_over)

    def _plan(self, config: Config) -> dict[str, tuple[Kept, Kept]]:
        """For every layer that changes: the output and the input channels that it keeps."""
        if config not in self._plans:
            if len(self._plans) >= REMEMBERED:
                self._plans.clear()
            self._plans[config] = self._planned(config)
        return self._plans[config]

    def _planned(self, config: Config) -> dict[str, tuple[Kept, Kept]]:
        modules = dict(self.network.named_modules())
        plan = {}
        for layer, sides in self._readings.items():
            full = sides_of(modules[layer])
            kept = tuple(
                kept_of(size, sides[s], config) for size, s in zip(full, SIDES, strict=True)
            )
            if tuple(map(number_of, kept)) != full:
                plan[layer] = (kept[0], kept[1])
        return plan

    @cached_property
    def _readings(self) -> dict[str, dict[str, list[Reading]]]:
        """For every layer and side: which channels follow which number of a configuration."""
        found: dict[str, dict[str, list[Reading]]] = {}
        for place, gene in enumerate(self.genes):
            for member in (m for name in gene for m in self.groups[name].members):
                sides = found.setdefault(member.layer, {side: [] for side in SIDES})
                reading = (place, torch.tensor(member.places), torch.tensor(member.units))
                sides[member.side].append(reading)
        return found

    @contextmanager
    def _narrow(self, plan: Mapping[str, tuple[Kept, Kept]]) -> Iterator[None]:
        """Inside the block, layers have slices for weights, and the numbers of channels of these.

        They are put in the places where a module keeps its parameters, so that a pass is one of the
        generator itself, hooks included.
        """
        modules = dict(self.network.named_modules())
        before = []
        try:
            for name, kept in plan.items():
                module, state = modules[name], modules[name].__dict__
                keys = ("_parameters", "_buffers", *counts_of(module))
                before.append((state, {key: state[key] for key in keys}))
                state["_parameters"], state["_buffers"] = slices_of(module, *kept)
                resize(module, *map(number_of, kept))
            yield
            if self.training:
                for (state, old), kept in zip(before, plan.values(), strict=True):
                    keep_statistics(old["_buffers"], state["_buffers"], kept[0])
        finally:
            for state, old in before:
                state.update(old)


class _Pass(Tapped):
    """What a supernet runs; its taps were checked when it was made."""

    def __init__(self, network: nn.Module, taps: tuple[str, ...]) -> None:
        nn.Module.__init__(self)
        self.taps, self.network = taps, network


def _check_runs(made: GeneralSupernet, generator: nn.Module, example: Tensor) -> None:
    """A generator that counts its channels itself cannot be sliced; better to know at once."""
    smallest = made.space.smallest()
    with evaluating(generator), evaluating(made), torch.no_grad():
        expected = generator(example)
        if not isinstance(expected, Tensor):
            raise ValueError(f"the generator must give one tensor; got {type(expected).__name__}")
        try:
            found = made(example, smallest)
        except FAILURES as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"the generator must run with widths {smallest} as with its own: {reason}"
            ) from None
    if found.shape != expected.shape:
        raise ValueError(
            f"the output must have the same shape at all widths; got {tuple(found.shape)} "
            f"instead of {tuple(expected.shape)}"
        )
