"""Code books: every weight is one of k numbers, found by k-means and trained further.

Han et al., Deep Compression (ICLR 2016). Centroids start evenly between the smallest and the
largest weight, which keeps the few large ones; a centroid's gradient is the sum of those of its
members. Indices take log2 k bits each, fewer with a Huffman code, as they are far from equally
frequent.
"""

import heapq
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.checks import between, one_of, whole
from smallnets.losses import check_finite
from smallnets.structure.layers import Layer, check_layer, wide_weight
from smallnets.structure.shared import SharedWeight

STARTS = ("linear", "density", "random")
CENTROID_BITS = 32


def start_centroids(
    weight: Tensor, k: int, start: str = "linear", generator: torch.Generator | None = None
) -> Tensor:
    """Centroids (k,) from which k-means starts.

    Args:
        weight: any shape, finite.
        k: from 1 to the number of weights.
        start: "linear", evenly between the smallest and the largest weight (both among them);
            "density", at evenly spaced quantiles; "random", k of the weights.
        generator: of "random".

    Raises:
        ValueError: k is out of range, the start is unknown, or a weight is not finite.
    """
    values = weight.detach().flatten()
    between("k", whole("k", k, 1), 1, values.numel())
    check_finite("weights", values)
    if one_of("start", start, STARTS) == "linear":
        low, high = values.min(), values.max()
        steps = torch.arange(k, dtype=values.dtype, device=values.device) / max(k - 1, 1)
        return low + (high - low) * steps
    if start == "random":
        return values[torch.randperm(len(values), generator=generator)[:k].to(values.device)]
    places = (torch.arange(k, dtype=torch.float64) + 0.5) / k * len(values)
    return values.sort().values[places.long().to(values.device)]


def k_means(weight: Tensor, centroids: Tensor, sweeps: int = 300) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm for numbers, until no label changes.

    A centroid without members takes the place of the weight that is farthest from its own, as in
    scikit-learn.

    Args:
        weight: any shape, finite.
        centroids: (k,), the start.
        sweeps: at most, at least 1.

    Returns:
        Centroids (k,) and labels int64 like the weight.

    Raises:
        ValueError: a number is out of range or not finite.
    """
    values = weight.detach().flatten()
    whole("sweeps", sweeps, 1)
    between("number of centroids", len(centroids), 1, values.numel())
    check_finite("weights", values)
    centroids = centroids.detach().to(values)
    # Members of a centroid lie side by side among sorted numbers, so that a sweep needs only where
    # they begin: sums are differences of sums from the left.
    ordered = values.sort().values
    sums_from_left = F.pad(ordered.double().cumsum(0), (1, 0))
    before: Tensor | None = None
    for _ in range(sweeps):
        sorted_centroids, rank = centroids.sort(stable=True)
        middles = (sorted_centroids[1:] + sorted_centroids[:-1]) / 2
        cuts = torch.searchsorted(ordered, middles, right=True)
        if before is not None and torch.equal(before, torch.cat([cuts, rank])):
            break
        before = torch.cat([cuts, rank])
        edges = F.pad(F.pad(cuts, (1, 0)), (0, 1), value=len(ordered))
        counts, sums = edges.diff().double(), sums_from_left[edges].diff()
        _fill_empty(ordered, sorted_centroids, counts, sums)
        found = torch.where(counts > 0, sums / counts.clamp_min(1), sorted_centroids.double())
        centroids = torch.empty_like(sorted_centroids).scatter(0, rank, found.to(values.dtype))
    return centroids, nearest_centroid(values, centroids).reshape(weight.shape)


def _fill_empty(ordered: Tensor, centroids: Tensor, counts: Tensor, sums: Tensor) -> None:
    """Give centroids without members the numbers that are farthest from theirs, in place."""
    empty = (counts == 0).nonzero().flatten()
    if len(empty):
        owner = torch.arange(len(counts), device=counts.device).repeat_interleave(counts.long())
        far = (ordered - centroids[owner]).square().topk(len(empty)).indices
        moved = ordered[far].double()
        sums.index_add_(0, owner[far], -moved)
        counts.index_add_(0, owner[far], -torch.ones_like(moved))
        sums[empty], counts[empty] = moved, 1.0


def nearest_centroid(values: Tensor, centroids: Tensor) -> Tensor:
    """The index, int64, of the centroid nearest to every number."""
    ordered, order = centroids.sort(stable=True)
    middles = (ordered[1:] + ordered[:-1]) / 2
    return order[torch.bucketize(values.contiguous(), middles)]


def index_bits(k: int) -> int:
    """Bits of an index among k: log2 k, rounded up."""
    return (whole("k", k, 1) - 1).bit_length()


def codebook_bits(count: int, k: int, centroid_bits: int = CENTROID_BITS) -> int:
    """Bits of so many indices and of the code book: n log2(k) + 32 k.

    Raises:
        ValueError: a number is below 1, or there are more entries than weights.
    """
    between("k", whole("k", k, 1), 1, whole("count", count, 1))
    return count * index_bits(k) + whole("centroid_bits", centroid_bits, 1) * k


def huffman_lengths(counts: Tensor) -> Tensor:
    """Bits of each label's word in a Huffman code, int64 (k,); 0 for one that never occurs.

    Args:
        counts: (k,), how often each label occurs; at least one does. A label that is alone takes 1.

    Raises:
        ValueError: none occurs.
    """
    heap: list[tuple[int, int, tuple[int, ...]]] = [
        (int(n), i, (i,)) for i, n in enumerate(counts.tolist()) if n > 0
    ]
    if not heap:
        raise ValueError(f"a Huffman code needs a label that occurs; got counts {counts.tolist()}")
    lengths = torch.zeros(len(counts), dtype=torch.int64)
    lengths[[i for _, i, _ in heap]] = int(len(heap) == 1)
    heapq.heapify(heap)
    while len(heap) > 1:
        (first, i, some), (second, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[list(some + others)] += 1
        heapq.heappush(heap, (first + second, i, some + others))
    return lengths


def huffman_bits(labels: Tensor, k: int, centroid_bits: int = CENTROID_BITS) -> int:
    """Bits of the labels in a Huffman code, of the lengths of its words (a byte each, which is all
    that a canonical code needs), and of the code book.

    Args:
        labels: whole numbers from 0 to k - 1, any shape.
        k: entries of the code book.
        centroid_bits: of an entry.

    Raises:
        ValueError: there are no labels, or one is out of range.
    """
    flat = labels.flatten().long().cpu()
    low, high = (int(flat.min()), int(flat.max())) if len(flat) else (0, 0)
    if low < 0 or high >= whole("k", k, 1):
        raise ValueError(f"labels must be from 0 to {k - 1}; got {low} to {high}")
    counts = torch.bincount(flat, minlength=k)
    words = int((counts * huffman_lengths(counts)).sum())
    return words + 8 * k + whole("centroid_bits", centroid_bits, 1) * k


class Codebook(SharedWeight):
    """What `CodebookLinear` and `CodebookConv2d` have in common: `centroids` (k,), and `labels` of
    the weight's shape.
    """

    labels: Tensor

    def __init__(self, layer: Layer, k: int, start: str, generator: Any) -> None:
        super().__init__(layer)
        weight = wide_weight(layer)
        centroids, labels = k_means(weight, start_centroids(weight, k, start, generator))
        self.centroids = nn.Parameter(centroids.to(layer.weight.dtype))
        small = torch.uint8 if k <= 2**8 else torch.int32
        self.register_buffer("labels", labels.to(small))

    @classmethod
    def _of(cls, layer: Layer, k: int, start: str, generator: torch.Generator | None) -> Self:
        """Made from a layer, in its mode, and trained if it is."""
        module = cls.__new__(cls)
        Codebook.__init__(module, layer, k, start, generator)
        module.requires_grad_(layer.weight.requires_grad).train(layer.training)
        return module

    def looked_up(self) -> Tensor:
        """The dense weight."""
        return self.centroids[self.labels.flatten().long()].reshape(self.weight_shape)

    def stored_bits(self, bits: float) -> float:
        """Indices of a fixed length, and the code book with `bits` a centroid."""
        k = len(self.centroids)
        return self.size * index_bits(k) + k * bits

    def huffman_bits(self) -> int:
        """Bits with a Huffman code; see `huffman_bits`."""
        return huffman_bits(self.labels, len(self.centroids))


class CodebookLinear(Codebook):
    """A linear layer with weights of k values.

    Args:
        in_features, out_features, bias: as of `nn.Linear`.
        k: from 1 to the number of weights.
        start: see `start_centroids`.
        generator: of a random start.

    Raises:
        ValueError: a number is out of range, or the start is unknown.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        k: int,
        bias: bool = True,
        *,
        start: str = "linear",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(nn.Linear(in_features, out_features, bias), k, start, generator)

    @classmethod
    def from_linear(
        cls,
        layer: nn.Linear,
        k: int,
        *,
        start: str = "linear",
        generator: torch.Generator | None = None,
    ) -> "CodebookLinear":
        """A layer with k-means of the weights of a layer, which stays as it is.

        Raises:
            ValueError: it is no plain linear layer, k is out of range, or the start is unknown.
        """
        check_layer(layer, nn.Linear)
        return cls._of(layer, k, start, generator)


class CodebookConv2d(Codebook):
    """A convolution with weights of k values.

    Args:
        k: from 1 to the number of weights.
        start: see `start_centroids`.
        generator: of a random start.
        given, options: as of `nn.Conv2d`.

    Raises:
        ValueError: a number is out of range, or the start is unknown.
    """

    def __init__(
        self,
        *given: Any,
        k: int,
        start: str = "linear",
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nn.Conv2d(*given, **options), k, start, generator)

    @classmethod
    def from_conv(
        cls,
        layer: nn.Conv2d,
        k: int,
        *,
        start: str = "linear",
        generator: torch.Generator | None = None,
    ) -> "CodebookConv2d":
        """A convolution with k-means of the weights of one, which stays as it is.

        Raises:
            ValueError: it is no plain convolution, k is out of range, or the start is unknown.
        """
        check_layer(layer, nn.Conv2d)
        return cls._of(layer, k, start, generator)
