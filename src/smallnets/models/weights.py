"""Weights from a file: the network's own, or those of a checkpoint that holds more."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from smallnets.storage import one_line

PACKED = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
"""Names under which a checkpoint keeps the weights beside other things."""
WRAPPERS = ("module", "_orig_mod")
"""What `DataParallel` and `torch.compile` put in front of names."""


def read_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """The network with weights from a file, in evaluation mode.

    The file is what `torch.save` writes of a state dictionary, alone or under one of the names of
    `PACKED`, or a .safetensors file. Names may have parts of `WRAPPERS` in them, or one part in
    front of all. Nothing but tensors and plain values is unpickled.

    Args:
        network: changed in place, and only if all of the file fits.
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or holds other things than plain values, or its weights are
            not those of the network; the message names one that is missing, too many or of
            another shape.
    """
    path = Path(path)
    expected = network.state_dict()
    try:
        network.load_state_dict(_fitted(_unpacked(_content(path)), expected))
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file ends in whatever its bytes happen to mean
        raise ValueError(
            f"{path.name} must hold the network's weights; {one_line(error)}"
        ) from error
    return network.eval()


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        # Torch's own advice, to unpickle whatever is there, is none to follow.
        other = re.search(r"GLOBAL (?:builtins\.)?(\S+)", str(error))
        reason = one_line(error).partition(". ")[0][:120].replace(";", ",")
        what = f"it holds {other[1]}" if other else f"it cannot be read ({reason})"
        raise ValueError(
            f"{what}: save the network's state_dict() alone, with no other thing than weights"
        ) from error


def _unpacked(content: Any) -> Mapping[str, Tensor]:
    """The weights in what a file holds."""
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds no weights by name but a {type(content).__name__}")
    if _are_weights(content):
        return content
    packed = [name for name in PACKED if _are_weights(content.get(name))]
    if len(packed) != 1:
        found = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise ValueError(
            f"it holds {found}, where weights must be alone or under one of {', '.join(PACKED)}"
        )
    return content[packed[0]]


def _are_weights(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(one, Tensor) for one in content.values())
        and all(isinstance(name, str) for name in content)
    )


def _fitted(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Given weights by the names of the network."""
    wanted, found = _unwrapped(expected), _unwrapped(given)
    while wanted.keys() != found.keys() and (inner := _without_front(found)):
        found = inner
    if wanted.keys() != found.keys():
        found = _unwrapped(given)  # whose names the user knows
    for name, own in wanted.items():
        if name not in found:
            raise ValueError(f"the weight {own} is missing from it")
        shape, allowed = tuple(given[found[name]].shape), tuple(expected[own].shape)
        if shape != allowed:
            raise ValueError(f"the weight {own} must have shape {allowed}, got {shape}")
    if len(found) > len(wanted):
        name = next(found[name] for name in found if name not in wanted)
        raise ValueError(f"the weight {name} is too many in it")
    return {own: given[found[name]] for name, own in wanted.items()}


def _unwrapped(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Name without wrappers -> name, or all names as they are where two would become one."""
    short = {
        ".".join(part for part in name.split(".") if part not in WRAPPERS): name for name in weights
    }
    return short if len(short) == len(weights) else {name: name for name in weights}


def _without_front(names: Mapping[str, str]) -> dict[str, str] | None:
    """Names without the first part that they all share; None if they share none."""
    fronts = {name.partition(".")[0] for name in names}
    shares = len(fronts) == 1 and all("." in name for name in names)
    return {name.partition(".")[2]: own for name, own in names.items()} if shares else None
