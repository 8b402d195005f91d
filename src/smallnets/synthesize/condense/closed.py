"""Real images through the published ConvNet: embeddings, and gradients of the weights, in closed
form and without a graph.

Real images need no gradient of their own, so less is to be done than on the synthetic side:

- Scale and shift of a norm with positive weights w move through ReLU and mean. With a channel's
  deviation s, pool(relu(w (x - m) / s + b)) = (w / s) pool(relu(x - m + b s / w)).
- The first block's weights meet 27 inputs a position. The gradient with respect to its convolution
  y = W p of patches p, normalised, follows from sums of g p^T and p p^T over positions alone, for
  the gradient g before the norm; no map of the convolution's own gradient is made.
- Later convolutions take a quarter of the multiplications, see `winograd`, or bfloat16.

The bias of a convolution before an instance norm changes nothing, and its gradient is zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.synthesize.condense import winograd
from smallnets.synthesize.condense.convnets import PUBLISHED, ConvNet
from smallnets.synthesize.condense.norms import channels_last
from smallnets.synthesize.condense.threads import in_threads

WIDE = 64  # channels from which on products of matrices outweigh the transforms
LEAST = 0.01  # weight of a norm that may be divided by


def suits(network: nn.Module, x: Tensor) -> bool:
    """Whether a network, as it is now, may see such images here instead of in its own `forward`.

    That is a ConvNet of the published kind, wide and in channels-last memory of a processor, whose
    maps consist of whole tiles, with positive weights of its norms.
    """
    if not isinstance(network, ConvNet) or network.spec.width < WIDE or x.requires_grad:
        return False
    spec = network.spec
    if (spec.norm, spec.activation, spec.pooling) != PUBLISHED or spec.depth < 2:
        return False
    first = network.features[0]
    assert isinstance(first, nn.Conv2d)
    sides = [side + 2 * int(first.padding[0]) - 2 for side in x.shape[2:]]
    smallest = [side / 2 ** (spec.depth - 1) for side in sides]
    whole = winograd.tiles(*smallest)
    kinds = {one.dtype for one in network.parameters()} | {x.dtype}
    if not whole or kinds != {torch.float32} or x.shape[1] != first.in_channels:
        return False
    weights = torch.stack([network.features[4 * k + 1].weight for k in range(spec.depth)])
    last = network.features[4].weight
    assert isinstance(last, Tensor)
    return x.device.type == "cpu" and channels_last(last) and bool((weights > LEAST).all())


class Convolution(Protocol):
    """A 3x3 convolution with padding 1 that adds up the gradient of its weights."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (n, height, width, channels) -> outputs, and what `backward` is to be given."""

    def backward(self, kept: Tensor, g: Tensor) -> Tensor:
        """dL/dY -> dL/dX, both (n, height, width, channels)."""

    def gradient(self) -> Tensor:
        """dL/dw of all calls of `backward`."""


class Winograd:
    """In float32, with a quarter of the multiplications."""

    def __init__(self, weight: Tensor, backward: bool) -> None:
        self.points = winograd.at_points(weight)
        if backward:
            self.turned = winograd.at_points(winograd.turned(weight))
            self.products = torch.zeros_like(self.points)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = winograd.inputs_at_points(x)
        return winograd.convolve(kept, self.points, x.shape), kept

    def backward(self, kept: Tensor, g: Tensor) -> Tensor:
        self.products.baddbmm_(kept.transpose(1, 2), winograd.outputs_at_points(g))
        return winograd.convolve(winograd.inputs_at_points(g), self.turned, g.shape)

    def gradient(self) -> Tensor:
        return winograd.weight_gradient(self.products)


class Rounded:
    """In bfloat16, whose products are added in float32."""

    def __init__(self, weight: Tensor, backward: bool) -> None:
        self.weight = weight.to(torch.bfloat16, memory_format=torch.channels_last)
        self.sum = torch.zeros_like(weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = x.permute(0, 3, 1, 2).bfloat16()
        return F.conv2d(kept, self.weight, padding=1).permute(0, 2, 3, 1).float(), kept

    def backward(self, kept: Tensor, g: Tensor) -> Tensor:
        rounded = g.permute(0, 3, 1, 2).bfloat16()
        one = [1, 1]
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            rounded, kept, self.weight, None, one, one, one, False, [0, 0], 1, [True, True, False]
        )
        self.sum += of_weight
        return of_x.permute(0, 2, 3, 1).float()

    def gradient(self) -> Tensor:
        return self.sum


@dataclass
class Kept:
    """What the backward pass of a block needs: maps (n, height, width, channels) and moments
    (n, 1, 1, channels). Of the first block nothing is `centred`.
    """

    given: Tensor
    rectified: Tensor
    centred: Tensor | None
    mean: Tensor
    inverse: Tensor


class Blocks:
    """A network whose weights stand still while real images pass.

    Args:
        network: that `suits` the images.
        precision: "32-true" or "bf16-mixed".
        backward: whether gradients will be asked for.
    """

    def __init__(self, network: ConvNet, precision: str, backward: bool = False) -> None:
        layers = network.features
        kind = Winograd if precision == "32-true" else Rounded
        self.first, *others = (layers[k] for k in range(0, len(layers), 4))
        self.norms = [layers[k] for k in range(1, len(layers), 4)]
        self.others: list[Convolution] = [kind(one.weight.detach(), backward) for one in others]
        self.head = network.classifier
        self.keeps = backward
        if backward:
            self.of_first = torch.zeros_like(self.first.weight)
            self.of_norms = [
                (torch.zeros_like(n.weight), torch.zeros_like(n.bias)) for n in self.norms
            ]
            self.of_head = torch.zeros_like(self.head.weight), torch.zeros_like(self.head.bias)

    def embed(self, x: Tensor) -> Tensor:
        """Images (n, channels, height, width) -> (n, dimension), as `ConvNet.embed`."""
        return self._forward(x)[0].permute(0, 3, 1, 2).flatten(1)

    def _forward(self, x: Tensor) -> tuple[Tensor, list[Kept]]:
        """The last map, (n, height, width, channels), and what the blocks keep."""
        x = x.contiguous(memory_format=torch.channels_last)
        maps = F.conv2d(x, self.first.weight, padding=self.first.padding).permute(0, 2, 3, 1)
        pooled, kept = self._block(0, maps, x)
        found = [kept]
        for k, convolution in enumerate(self.others, 1):
            maps, given = convolution.forward(pooled)
            pooled, kept = self._block(k, maps, given)
            found.append(kept)
        return pooled, found

    def _block(self, k: int, maps: Tensor, given: Tensor) -> tuple[Tensor, Kept]:
        """Norm, ReLU and pooling of a new map, which is overwritten."""
        norm = self.norms[k]
        mean = maps.mean((1, 2), keepdim=True)
        centred = maps.sub_(mean)
        inverse = (centred.square().mean((1, 2), keepdim=True) + norm.eps).rsqrt_()
        scale = norm.weight * inverse
        again = self.keeps and k > 0
        shift = norm.bias / scale
        rectified = centred + shift if again else centred.add_(shift)
        rectified.clamp_min_(0)
        pooled = F.avg_pool2d(rectified.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1) * scale
        return pooled, Kept(given, rectified, centred if again else None, mean, inverse)

    def add_gradients(self, x: Tensor, label: int, count: int) -> None:
        """Add the gradients of the sum of some images' cross-entropies divided by `count`."""
        pooled, kept = self._forward(x)
        embedded = pooled.permute(0, 3, 1, 2).flatten(1)
        g = F.softmax(self.head(embedded), 1)
        g[:, label] -= 1
        g /= count
        weight, bias = self.of_head
        weight.addmm_(g.T, embedded)
        bias += g.sum(0)
        n, height, width, channels = pooled.shape
        g = (g @ self.head.weight).view(n, channels, height, width).permute(0, 2, 3, 1)
        for k in range(len(self.others), 0, -1):
            g = self.others[k - 1].backward(kept[k].given, self._through(k, g, kept[k]))
        self._first(self._before(g, kept[0]), kept[0])

    def _before(self, g: Tensor, kept: Kept) -> Tensor:
        """The gradient before ReLU and pooling, of the size of the map."""
        n, height, width, channels = g.shape
        whole = kept.rectified.view(n, height, 2, width, 2, channels)
        each = (g / 4)[:, :, None, :, None].expand_as(whole)
        return torch.ops.aten.threshold_backward(each, whole, 0).view_as(kept.rectified)

    def _through(self, k: int, g: Tensor, kept: Kept) -> Tensor:
        """The gradient at the convolution's output; of the norm's parameters it is added up."""
        assert kept.centred is not None
        g = self._before(g, kept)
        total = g.sum((1, 2), keepdim=True)
        along = (g * kept.centred).sum((1, 2), keepdim=True) * kept.inverse
        self._add_norm(k, along, total)
        scale = self.norms[k].weight * kept.inverse
        share = -scale / (g.shape[1] * g.shape[2])
        found = torch.addcmul(share * total, g, scale)
        return found.addcmul_(kept.centred, share * along * kept.inverse)

    def _add_norm(self, k: int, along: Tensor, total: Tensor) -> None:
        weight, bias = self.of_norms[k]
        weight += along.flatten(0, -2).sum(0)
        bias += total.flatten(0, -2).sum(0)

    def _first(self, g: Tensor, kept: Kept) -> None:
        """Of the first block, from sums over positions, with patches (n, inputs, positions)."""
        weight = self.first.weight.flatten(1)
        patches = F.unfold(kept.given, 3, padding=self.first.padding)
        positions = patches.shape[2]
        g = g.flatten(1, 2)
        mean, inverse = (one.flatten(1, 2) for one in (kept.mean, kept.inverse))
        total, of_patches = g.sum(1, keepdim=True), patches.sum(2, keepdim=True)
        crossed = torch.bmm(patches, g)
        centred = torch.bmm(patches, patches.transpose(1, 2)) @ weight.T - of_patches * mean
        along = ((crossed * weight.T).sum(1, keepdim=True) - mean * total) * inverse
        self._add_norm(0, along, total)
        found = crossed - (of_patches * total + centred * (along * inverse)) / positions
        scale = self.norms[0].weight * inverse
        self.of_first += (found * scale).sum(0).T.view_as(self.of_first)

    def gradients(self) -> list[Tensor]:
        """Of all calls of `add_gradients`, in the order of the network's parameters."""
        convolutions = [self.of_first, *(one.gradient() for one in self.others)]
        found = []
        for one, (weight, bias) in zip(convolutions, self.of_norms, strict=True):
            found += [one, torch.zeros_like(bias), weight, bias]
        return [*found, *self.of_head]


def sum_of_embeddings(network: ConvNet, parts: Sequence[Tensor], precision: str) -> Tensor:
    """Sum (dimension,) of the embeddings of images in parts."""

    def work(part: Tensor) -> Tensor:
        with torch.no_grad():
            return blocks.embed(part).sum(0)

    blocks = Blocks(network, precision)
    return torch.stack(in_threads(work, parts)).sum(0)


@torch.no_grad()
def sum_of_gradients(
    network: ConvNet, parts: Sequence[Tensor], label: int, precision: str
) -> list[Tensor]:
    """Gradients of the mean cross-entropy of images in parts, all of one class, by parameter."""
    blocks = Blocks(network, precision, backward=True)
    for part in parts:
        blocks.add_gradients(part, label, sum(map(len, parts)))
    return blocks.gradients()
