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
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from smallnets import checks
from smallnets.models.hooks import OVERWRITING
from smallnets.quantize.genie.synthesis import frozen_copy
from smallnets.surgery import check_plain, replace_module

UNITS = ("block", "layer", "model")
TRACED_LIKE = "the traced network must give what the network gives;"
SLACK = 1e-3  # share of the largest output that a trace may be off, folded norms included
PROBE = 8  # images on which a trace is compared
FOLDED = {
    nn.Conv1d: (nn.BatchNorm1d, nn.SyncBatchNorm),
    nn.Conv2d: (nn.BatchNorm2d, nn.SyncBatchNorm),
    nn.Conv3d: (nn.BatchNorm3d, nn.SyncBatchNorm),
}
SAME_SHAPE = (nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Identity, nn.Dropout)
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
        fold: put BatchNorm into the weights of the convolution or linear layer before it, wherever
            it has fixed statistics and runs over the channels that the layer writes; elsewhere it
            stays. Behind a linear layer that is known where something has flattened before.

    Raises:
        ValueError: it cannot be traced, or takes or gives something else; one line says why.
    """
    copied = frozen_copy(model)
    try:
        graph = fx.symbolic_trace(copied)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the network must be traceable by torch.fx: {reason}") from None
    _write_nothing_in_place(graph)
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


def check_trace(network: nn.Module, graph: fx.GraphModule, images: Tensor) -> None:
    """Compare a trace with the network, on a few images and on half of them.

    A trace holds what the network did once: conditions, loops and numbers as they were then, and
    nothing of hooks around it.

    Args:
        network: what was traced, in evaluation mode.
        graph: of it.
        images: (batch, ...) that it takes; `PROBE` of them are used.

    Raises:
        ValueError: the two differ, or the trace cannot be run.
    """
    count = min(len(images), PROBE)
    for batch in dict.fromkeys((count, -(-count // 2))):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            state = torch.get_rng_state()
            try:
                wanted = network(images[:batch].clone())
            except RuntimeError:
                if batch == count:
                    raise
                continue  # a network that takes batches of one size
            torch.set_rng_state(state)
            try:
                off = _distance(graph(images[:batch].clone()), wanted)
            except (RuntimeError, AssertionError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ValueError(f"{TRACED_LIKE} for {batch} images it fails: {reason}") from None
        if not off <= SLACK:
            raise ValueError(f"{TRACED_LIKE} for {batch} images it is off by {off:.2g} of it")


def _distance(found: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest size; of other shapes infinite."""
    if found.shape != wanted.shape:
        return float("inf")
    known = wanted.isfinite()
    difference = torch.where(known, found - wanted, found.isfinite().to(wanted))
    largest = torch.where(known, wanted, 0).abs().max()
    return float(difference.abs().max() / largest.clamp(min=torch.finfo(wanted.dtype).tiny))


def _write_nothing_in_place(graph: fx.GraphModule) -> None:
    """Let steps that overwrite a tensor make a new one, which all later steps read.

    Parts of a network are run many times on inputs that are kept, and `x.add_(1)` says nothing of
    its result, so that it would be taken for dead.
    """
    done: set[fx.Node] = set()
    for node in graph.graph.nodes:
        done.add(node)
        target = _plain_step(node)
        written = node.args[0] if node.args else None
        if target is None or not isinstance(written, fx.Node):
            continue
        node.target = target
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        written.replace_all_uses_with(node, lambda user: user not in done)
    graph.recompile()


def _plain_step(node: fx.Node) -> Any:
    """The function or method that does what an overwriting step does without overwriting."""
    if node.op == "call_method" and node.target.endswith("_") and node.target[-2:] != "__":
        return node.target[:-1] if hasattr(Tensor, node.target[:-1]) else None
    if node.op != "call_function":
        return None
    name = getattr(node.target, "__name__", "")
    if node.target in OVERWRITING:
        return OVERWRITING[node.target]
    if node.kwargs.get("inplace"):
        return node.target
    if name.endswith("_") and not name.endswith("__"):
        places = (torch, nn.functional)
        return next((getattr(one, name[:-1]) for one in places if hasattr(one, name[:-1])), None)
    return None


def _fold(graph: fx.GraphModule) -> None:
    modules = dict(graph.named_modules())
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    read = {str(n.target).rpartition(".")[0] for n in graph.graph.nodes if n.op == "get_attr"}
    for node in list(graph.graph.nodes):
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node):
            continue
        if calls[node.target] > 1 or calls[before.target] > 1:  # a layer with two norms, or reverse
            continue
        norm = modules[node.target]
        if not isinstance(norm, _BatchNorm) or len(before.users) > 1:
            continue
        layer = modules.get(before.target) if before.op == "call_module" else None
        if layer is None or {node.target, before.target} & read or not _fits(before, layer, norm):
            continue
        if isinstance(layer, nn.Linear):
            fused: nn.Module = fuse_linear_bn_eval(layer, norm)
        else:
            fused = fuse_conv_bn_eval(layer, norm)
        replace_module(graph, before.target, fused.requires_grad_(False))
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()


def _fits(node: fx.Node, layer: nn.Module, norm: _BatchNorm) -> bool:
    """Whether a norm with fixed statistics runs over the very channels that a layer writes."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return False
    if any(is_lazy(one) for one in (*layer.parameters(), *norm.parameters(), *norm.buffers())):
        return False
    try:
        check_plain(str(node.target), layer)
        if norm.affine:
            check_plain("norm", norm)
    except ValueError:
        return False
    if type(layer) is nn.Linear:
        return layer.out_features == norm.num_features and _is_matrix(node.args[0], node.graph)
    kinds = FOLDED.get(type(layer), ())
    return isinstance(norm, kinds) and layer.out_channels == norm.num_features


def _is_matrix(node: Any, graph: fx.Graph) -> bool:
    """Whether a step is known to give (batch, features): behind anything that flattens.

    BatchNorm1d runs over the second dimension, which a linear layer writes in matrices alone.
    """
    if not isinstance(node, fx.Node) or node.op in ("placeholder", "get_attr"):
        return False
    if node.op == "call_module":
        module = graph.owning_module.get_submodule(str(node.target))
        if isinstance(module, nn.Flatten):
            return module.start_dim == 1 and module.end_dim == -1
        return isinstance(module, SAME_SHAPE) and _is_matrix(node.args[0], graph)
    flattens = node.target in (torch.flatten, "flatten")
    if flattens:
        places = (*node.args[1:], *node.kwargs.values())
        return places == (1,)
    if node.target in ("view", "reshape", torch.reshape):
        sizes = node.args[1:]
        return len(sizes) == 2 or (
            len(sizes) == 1 and isinstance(sizes[0], tuple | list) and len(sizes[0]) == 2
        )
    return node.target in (nn.functional.relu, torch.relu, "relu") and _is_matrix(
        node.args[0], graph
    )


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
