"""The parts of a network that are reconstructed one by one, found in its graph.

torch.fx lists what a network computes, in order. After some of the steps a single tensor is all
that the rest will need; between two such places lies a part with one way in and one way out. A
residual block is the shortest such part that its additions allow, a layer of a plain network is one
by itself. Blocks without a shortcut, as those of stride 2 in MobileNets, have several such parts;
they are put together because elsewhere modules of their class are blocks.
"""

import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from smallnets import checks
from smallnets.quantize.genie.synthesis import frozen_copy
from smallnets.surgery import replace_module

UNITS = ("block", "layer", "model")
Sites = Mapping[fx.Node, Mapping[fx.Node, str]]  # reader -> tensor read -> name of a quantiser


@dataclass(frozen=True)
class Unit:
    """A part of a network.

    Attributes:
        name: of its block or layer, or of its first and last.
        nodes: its steps, in order.
        entries: tensors from outside that it reads.
        exits: its tensors that later parts read.
        target: the one that is compared with the original network's.
        layers: names of its layers with weights.
    """

    name: str
    nodes: tuple[fx.Node, ...]
    entries: tuple[fx.Node, ...]
    exits: tuple[fx.Node, ...]
    target: fx.Node
    layers: tuple[str, ...]


def traced(model: nn.Module, fold: bool = False) -> fx.GraphModule:
    """A frozen copy of a network in evaluation mode, as a list of steps.

    Args:
        model: any network that torch.fx can trace: one tensor in, one tensor out.
        fold: put every BatchNorm that follows a convolution or linear layer into its weights.

    Raises:
        ValueError: it cannot be traced, or takes or gives something else; one line says why.
    """
    copied = frozen_copy(model)
    try:
        graph = fx.symbolic_trace(copied)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the network must be traceable by torch.fx: {reason}") from None
    graph.graph.eliminate_dead_code()
    graph.meta["classes"] = {name: type(module) for name, module in copied.named_modules()}
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    (result,) = (node.args[0] for node in graph.graph.nodes if node.op == "output")
    if len([node for node in inputs if node.users]) != 1 or not isinstance(result, fx.Node):
        raise ValueError(
            f"the network must take one tensor and give one; {type(model).__name__} takes "
            f"{len(inputs)} and gives {type(result).__name__}"
        )
    if fold:
        _fold(graph)
    return graph


def _fold(graph: fx.GraphModule) -> None:
    modules = dict(graph.named_modules())
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    for node in list(graph.graph.nodes):
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node):
            continue
        if calls[node.target] > 1 or calls[before.target] > 1:  # a layer with two norms, or reverse
            continue
        norm = modules[node.target]
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or len(before.users) > 1:
            continue
        layer = modules.get(before.target) if before.op == "call_module" else None
        if isinstance(layer, _ConvNd) and not isinstance(layer, _ConvTransposeNd):
            fused: nn.Module = fuse_conv_bn_eval(layer, norm)
        elif isinstance(layer, nn.Linear):
            fused = fuse_linear_bn_eval(layer, norm)
        else:
            continue
        replace_module(graph, before.target, fused.requires_grad_(False))
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()


def layer_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """The steps that are convolutions or linear layers, in order of execution.

    Raises:
        ValueError: there is none.
    """
    modules = dict(graph.named_modules())
    found = [
        node
        for node in graph.graph.nodes
        if node.op == "call_module" and has_weights(modules[node.target])
    ]
    if not found:
        raise ValueError(
            "the network must have convolutions or linear layers (modules, not functions) to "
            "quantise; none was found"
        )
    return found


def has_weights(module: nn.Module) -> bool:
    """Whether a module is a layer whose weights can be quantised."""
    convolution = isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd)
    return convolution or type(module) is nn.Linear


def find_units(graph: fx.GraphModule, kind: str = "block") -> list[Unit]:
    """The parts of a network in order; together they are the whole of it.

    Args:
        graph: a traced network.
        kind: "block" as described above, "layer" for one layer at a time (with the norm and
            activation that follow it alone), "model" for everything at once.
    """
    checks.one_of("unit", kind, UNITS)
    nodes = [n for n in graph.graph.nodes if n.op not in ("placeholder", "output", "get_attr")]
    layers = {node: str(node.target) for node in layer_nodes(graph)}
    if kind == "model":
        groups = [nodes]
    elif kind == "layer":
        groups = _layer_groups(nodes, layers)
    else:
        groups = _block_groups(graph, nodes, layers)
    return [_unit(group, layers, kind) for group in groups]


def _unit(nodes: Sequence[fx.Node], layers: Mapping[fx.Node, str], kind: str) -> Unit:
    inside = set(nodes)
    entries = dict.fromkeys(
        source
        for node in nodes
        for source in node.all_input_nodes
        if source not in inside and source.op != "get_attr"
    )
    exits = tuple(node for node in nodes if any(user not in inside for user in node.users))
    names = tuple(dict.fromkeys(layers[node] for node in nodes if node in layers))
    target = exits[-1]
    if kind == "layer" and names:
        target = _end_of_layer(next(node for node in nodes if node in layers), inside)
    return Unit(_name(names), tuple(nodes), tuple(entries), exits, target, names)


def _end_of_layer(node: fx.Node, inside: set[fx.Node]) -> fx.Node:
    """The last step that belongs to a layer alone: its norm, its activation."""
    while len(node.users) == 1:
        (reader,) = node.users
        if reader not in inside or len(reader.all_input_nodes) != 1:
            break
        node = reader
    return node


def _name(names: Sequence[str]) -> str:
    if len(names) < 2:
        return names[0] if names else ""
    parts = [name.split(".") for name in names]
    common = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    return ".".join(common) or f"{names[0]} to {names[-1]}"


def _layer_groups(nodes: list[fx.Node], layers: Mapping[fx.Node, str]) -> list[list[fx.Node]]:
    groups: list[list[fx.Node]] = [[]]
    for node in nodes:
        if node in layers and any(one in layers for one in groups[-1]):
            groups.append([])
        groups[-1].append(node)
    return groups


def _block_groups(
    graph: fx.GraphModule, nodes: list[fx.Node], layers: Mapping[fx.Node, str]
) -> list[list[fx.Node]]:
    parts = _single_tensor_parts(nodes)
    kinds = graph.meta["classes"]  # tracing leaves plain modules in their places
    shared = {_shared_module(kinds, [layers[n] for n in part if n in layers]) for part in parts}
    classes = {kinds[path] for path in shared if path}
    groups: list[list[fx.Node]] = []
    owners: list[str | None] = []
    for part in parts:
        names = [layers[node] for node in part if node in layers]
        if not names and groups:  # pooling, an activation: the end of what came before
            groups[-1] += part
            continue
        owner = _owner(kinds, names, classes)
        if groups and (owners[-1] == owner is not None or not _any(groups[-1], layers)):
            groups[-1] += part
            owners[-1] = owner
        else:
            groups.append(list(part))
            owners.append(owner)
    return groups


def _any(nodes: Iterable[fx.Node], layers: Mapping[fx.Node, str]) -> bool:
    return any(node in layers for node in nodes)


def _single_tensor_parts(nodes: list[fx.Node]) -> list[list[fx.Node]]:
    """Cut behind every step after which one tensor is all that later steps read (not a tuple of
    several, which some steps give).
    """
    place = {node: i for i, node in enumerate(nodes)}
    last_read = {
        node: max((place.get(user, len(nodes)) for user in node.users), default=i)
        for node, i in place.items()
    }
    inputs = dict.fromkeys(s for n in nodes for s in n.all_input_nodes if s not in place)
    for source in inputs:
        if source.op == "placeholder":
            last_read[source] = max(place.get(user, len(nodes)) for user in source.users)
    alive = {source for source in inputs if source.op == "placeholder"}
    parts: list[list[fx.Node]] = [[]]
    for i, node in enumerate(nodes):
        parts[-1].append(node)
        alive = {one for one in alive | {node} if last_read[one] > i}
        if len(alive) == 1 and not any(_is_tuple(one) for one in alive):
            parts.append([])
    return [part for part in parts if part]


def _is_tuple(node: fx.Node) -> bool:
    return any(user.target is operator.getitem for user in node.users)


def _shared_module(kinds: Mapping[str, type[nn.Module]], names: Sequence[str]) -> str:
    """Path of the smallest module, mere lists of modules excepted, that holds several layers; "" of
    one layer, or where only the network does.
    """
    if len(names) < 2:
        return ""
    shared = _name(names)
    if " to " in shared or shared in names:
        return ""
    while shared and kinds[shared] in (nn.Sequential, nn.ModuleList):
        shared = shared.rpartition(".")[0]
    return shared


def _owner(
    kinds: Mapping[str, type[nn.Module]], names: Sequence[str], classes: set[type[nn.Module]]
) -> str | None:
    """The outermost block, by its class, that holds all of the layers."""
    parts = names[0].split(".") if names else []
    for depth in range(1, len(parts)):
        path = ".".join(parts[:depth])
        inside = all(name.startswith(path + ".") for name in names)
        if inside and kinds[path] in classes:
            return path
    return None


def compiled(
    root: nn.Module,
    nodes: Sequence[fx.Node],
    entries: Sequence[fx.Node],
    results: Sequence[fx.Node],
    sites: Sites | None = None,
) -> fx.GraphModule:
    """Steps as a module that shares all submodules with `root`.

    Args:
        root: holds the modules that steps name, and quantisers.
        nodes: the steps, in order.
        entries: what it takes, in order.
        results: what it returns, as a tuple.
        sites: where a tensor is quantised as it is read.
    """
    graph = fx.Graph()
    made = {node: graph.placeholder(f"entry_{i}") for i, node in enumerate(entries)}
    for node in nodes:
        for source in node.all_input_nodes:
            if source.op == "get_attr" and source not in made:
                made[source] = graph.node_copy(source)
        seen = dict(made)
        for source, quantizer in (sites or {}).get(node, {}).items():
            seen[source] = graph.call_module(quantizer, (made[source],))
        made[node] = graph.node_copy(node, lambda one, seen=seen: seen[one])
    graph.output(tuple(made[node] for node in results))
    return fx.GraphModule(root, graph)


def run_in_batches(
    module: nn.Module, inputs: Sequence[Tensor], batch_size: int
) -> tuple[Tensor, ...]:
    """The results of a compiled part for many inputs, without a graph.

    Raises:
        ValueError: one of them is not a tensor, so that the network cannot be cut there.
    """
    with torch.no_grad():
        parts = [
            module(*batch) for batch in zip(*(x.split(batch_size) for x in inputs), strict=True)
        ]
    for value in parts[0]:
        if not isinstance(value, Tensor):
            raise ValueError(
                "the network hands something else than tensors from layer to layer, such as "
                f"{value!r}; reconstruct it by block or as a whole"
            )
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))
