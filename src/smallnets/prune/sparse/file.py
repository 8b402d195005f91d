"""Sparse networks as files that are as small as they should be.

A safetensors file in which a weight with zeros stands as its bitmap, packed, and as the numbers
that are not zero, in the order of the bitmap. Everything else stands as it is, and so does a weight
for which that would take more bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smallnets.prune.sparse.masks import Masked, prunable_weights
from smallnets.prune.sparse.storage import bitmap_bytes, dense_bytes
from smallnets.storage import atomic_path, one_line, user_path

BITMAP = ":bitmap"


def save_sparse(network: nn.Module, path: Path | str, layers: Sequence[str] | None = None) -> int:
    """Write a network, atomically.

    Args:
        network: an ordinary network with zeros in its weights, or a `Masked` one.
        path: of the file.
        layers: whose weights may be stored with a bitmap, see `prunable_weights`.

    Returns:
        Bytes of the file.

    Raises:
        ValueError: a network without layers to prune, or a path that cannot be written.
    """
    path = user_path(path)
    network = network.plain() if isinstance(network, Masked) else network
    sparse = prunable_weights(network, layers)
    stored: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        bits = 8 * tensor.element_size()
        if name in sparse and bitmap_bytes(tensor, bits) < dense_bytes(tensor, bits):
            there = tensor.flatten() != 0
            stored[name] = tensor.flatten()[there]
            stored[name + BITMAP] = torch.from_numpy(np.packbits(there.numpy()))
        else:
            stored[name] = tensor.clone()
    try:
        with atomic_path(path) as temporary:
            save_file(stored, temporary)
        return path.stat().st_size
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({one_line(error)})") from None


def load_sparse(path: Path | str, network: nn.Module) -> nn.Module:
    """Put what `save_sparse` wrote into a network of the same kind, and return it.

    Args:
        path: of the file.
        network: its weights are overwritten.

    Raises:
        ValueError: no such file, one that is damaged, or of a network with other weights.
    """
    path = user_path(path)
    try:
        stored = load_file(path)
    except SafetensorError:
        raise ValueError(f"{path.name} must be a safetensors file; got one that is not") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({one_line(error)})") from None
    wanted = network.state_dict()
    given = {name for name in stored if not name.endswith(BITMAP)}
    if other := sorted(given ^ wanted.keys()):
        where = "network" if other[0] in wanted else "file"
        raise ValueError(
            f"file and network must have the same weights; only the {where} has {other[0]!r}"
        )
    state = {name: _whole(name, stored, like) for name, like in wanted.items()}
    network.load_state_dict(state)
    return network


def _whole(name: str, stored: dict[str, Tensor], like: Tensor) -> Tensor:
    """A tensor of the shape of another, from its bitmap if it has one."""
    values, bitmap = stored[name], stored.get(name + BITMAP)
    if bitmap is None:
        fits, found = values.shape == like.shape, values
    else:
        there = np.unpackbits(bitmap.numpy())
        fits = len(bitmap) == -(-like.numel() // 8) and int(there.sum()) == len(values)
        found = values.new_zeros(like.numel() if fits else 0)
        if fits:
            found[torch.from_numpy(there[: like.numel()]) > 0] = values
            found = found.view(like.shape)
    if not fits:
        raise ValueError(
            f"{name!r} must have shape {tuple(like.shape)}, as in the network; the file has another"
        )
    return found
