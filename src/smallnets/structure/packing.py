"""Code books in a file: indices of a few bits, side by side."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from smallnets.packing import pack_codes, unpack_codes
from smallnets.structure.codebook import Codebook, index_bits


def packed_state(network: nn.Module) -> dict[str, Any]:
    """The state of a network with the indices of its code books packed, to be stored.

    Args:
        network: left as it is.

    Returns:
        Tensors by name, detached, which take `stored_bits` bits, buffers apart; and what else the
        state holds, such as the settings of quantisers, as it is.
    """
    state = {
        name: value.detach() if isinstance(value, Tensor) else value
        for name, value in network.state_dict().items()
    }
    for key, book in _labels(network).items():
        state[key] = pack_codes(book.labels, index_bits(len(book.centroids)))
    return state


def load_packed(network: nn.Module, state: Mapping[str, Any]) -> nn.Module:
    """Load what `packed_state` gave into a network of the same layers, in place.

    Raises:
        ValueError: names or shapes are others.
    """
    books, full = _labels(network), dict(state)
    for key in books.keys() & state.keys():
        book = books[key]
        codes = unpack_codes(state[key], index_bits(len(book.centroids)), book.size)
        full[key] = codes.reshape(book.weight_shape).to(book.labels)
    try:
        network.load_state_dict(full)
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise ValueError(f"the state must be that of such a network; {line}") from error
    return network


def _labels(network: nn.Module) -> dict[str, Codebook]:
    """Code books by the name of their indices."""
    return {
        f"{name}.labels" if name else "labels": one
        for name, one in network.named_modules()
        if isinstance(one, Codebook)
    }
