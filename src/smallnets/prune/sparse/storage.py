"""What a sparse network takes in memory, indices included (section 4.12).

A weight of n numbers of which m are not zero, b bits each, takes

    dense    n b
    bitmap   n + m b                     a bit says whether a number is there
    index    m (b + ceil(log2 n))        every number with its place
    gaps     (m + f) (b + g)             every number with its distance from the last in g bits, and
                                         f zeros that fill gaps which are longer (Han et al., 2016)

bits, rounded up to whole bytes for every tensor.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.prune.sparse.masks import Masked, prunable_weights

FORMS = ("dense", "bitmap", "index", "gaps")


def dense_bytes(weight: Tensor, bits: int = 32) -> int:
    """Bytes of a tensor whose numbers all stand there."""
    return _bytes(weight.numel() * checks.whole("bits", bits, 1))


def bitmap_bytes(weight: Tensor, bits: int = 32) -> int:
    """Bytes of a tensor's numbers that are not zero, and of a bit for each place."""
    return _bytes(bits_of_bitmap(weight, bits))


def index_bytes(weight: Tensor, bits: int = 32) -> int:
    """Bytes of a tensor's numbers that are not zero, each with its place."""
    place = max(1, (weight.numel() - 1).bit_length())
    return _bytes(int(weight.count_nonzero()) * (checks.whole("bits", bits, 1) + place))


def gap_bytes(weight: Tensor, bits: int = 32, gap_bits: int = 5) -> int:
    """Bytes of a tensor's numbers that are not zero, each with its distance from the one before.

    Args:
        weight: any shape, read row by row.
        bits: of a number.
        gap_bits: of a distance, which is from 1 to 2^gap_bits; longer ones are cut by zeros that
            are stored as numbers.
    """
    return _bytes(bits_of_gaps(weight, bits, gap_bits))


def bits_of_bitmap(weight: Tensor, bits: int = 32) -> int:
    """As `bitmap_bytes`, in bits."""
    return weight.numel() + int(weight.count_nonzero()) * checks.whole("bits", bits, 1)


def bits_of_gaps(weight: Tensor, bits: int = 32, gap_bits: int | None = None) -> int:
    """As `gap_bytes`, in bits; without `gap_bits` with those, of 1 to 16, that take fewest."""
    checks.whole("bits", bits, 1)
    if gap_bits is not None:
        checks.between("gap_bits", checks.whole("gap_bits", gap_bits, 1), 1, 32)
    places = weight.flatten().nonzero().flatten()
    gaps = places.diff(prepend=places.new_full((1,), -1)) - 1
    return min(
        (len(places) + int((gaps // 2**one).sum())) * (bits + one)
        for one in (range(1, 17) if gap_bits is None else [gap_bits])
    )


def stored_bytes(
    network: nn.Module,
    form: str = "bitmap",
    bits: int = 32,
    *,
    layers: Sequence[str] | None = None,
) -> int:
    """Bytes of a network whose weights are stored in a form, with everything else as it is.

    Args:
        network: with zeros in its weights, or a `Masked` one. Of other parameters and of buffers
            every number counts with the bytes of its type.
        form: "dense", "bitmap", "index" or "gaps".
        bits: of a weight, such as 8 for one that is quantised, too.
        layers: whose weights are stored so, see `prunable_weights`; None is all.

    Raises:
        ValueError: another form, bits below 1, or a network without such layers.
    """
    checks.one_of("form", form, FORMS)
    size = {
        "dense": dense_bytes,
        "bitmap": bitmap_bytes,
        "index": index_bytes,
        "gaps": gap_bytes,
    }[form]
    if isinstance(network, Masked):
        network = network.plain()
    weights = prunable_weights(network, layers)
    packed = {id(weight) for weight in weights.values()}
    others = [p for p in [*network.parameters(), *network.buffers()] if id(p) not in packed]
    with torch.no_grad():
        return sum(size(weight, bits) for weight in weights.values()) + sum(
            one.numel() * one.element_size() for one in others
        )


def _bytes(bits: int) -> int:
    return -(-bits // 8)
