"""Residual networks of Big Transfer (Kolesnikov et al., ECCV 2020): pre-activation bottlenecks with
GroupNorm and standardised weights.

Nothing in them depends on the rest of the batch, so they compute the same in training and in
evaluation. They are the published teacher (R152x2) and student (R50x1) of function matching.
"""

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.checks import one_of, whole
from smallnets.models.staged import StagedNetwork, pooled_classifier

BLOCKS: dict[str, tuple[int, ...]] = {
    "26": (2, 2, 2, 2),
    "50": (3, 4, 6, 3),
    "101": (3, 4, 23, 3),
    "152": (3, 8, 36, 3),
}
GROUPS = 32


class StandardisedConv2d(nn.Conv2d):
    """Convolution whose kernels have mean 0 and variance 1 for each output channel.

    The variance is the biased one, 1e-10 is added under the root, and there is no gain.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, out, h / stride, w / stride)."""
        return self._conv_forward(x, standardised(self.weight), self.bias)


def standardised(weight: Tensor) -> Tensor:
    """Kernels (out, in, height, width) with mean 0 and variance 1 for each output channel."""
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
    return (weight - mean) / (variance + 1e-10).sqrt()


def bit_resnet(
    depth: int | tuple[int, ...],
    num_classes: int,
    in_channels: int = 3,
    *,
    width: float = 1,
) -> StagedNetwork:
    """BiT ResNet-v2 of 26, 50, 101 or 152 layers, `width` times as wide as usual.

    A 7x7 stem of stride 2 and a 3x3 max-pool of stride 2, then stages of bottleneck units with 64,
    128, 256 and 512 inner channels (times `width`) and four times as many outside, at strides 1, 2,
    2, 2. The classifier starts at zero: the untrained network predicts all classes alike.

    Args:
        depth: number of layers, or the number of units of each stage.
        num_classes: length of the logits.
        in_channels: channels of the images.
        width: 64 * width must be a multiple of the 32 groups.

    Raises:
        ValueError: for another depth, a width that the groups do not divide, or a size below 1.
    """
    if isinstance(depth, int):
        one_of("depth", str(depth), BLOCKS)
        blocks = BLOCKS[str(depth)]
    else:
        blocks = depth
        whole("number of stages", len(blocks), 1)
    whole("in_channels", in_channels, 1)
    channels = int(64 * width)
    if channels < GROUPS or channels % GROUPS:
        raise ValueError(f"width must make 64 x width a multiple of {GROUPS}; got {width!r}")

    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["root"] = StandardisedConv2d(in_channels, channels, 7, 2, padding=3, bias=False)
    parts["shrink"] = nn.MaxPool2d(3, 2, padding=1)
    inner = channels
    for i, count in enumerate(blocks):
        units = []
        for unit in range(count):
            stride = 2 if i > 0 and unit == 0 else 1
            units.append(PreactivationBottleneck(channels, inner, stride))
            channels = 4 * inner
        parts[f"stage{i + 1}"] = nn.Sequential(*units)
        inner *= 2
    parts["norm"] = nn.GroupNorm(GROUPS, channels)
    parts["relu"] = nn.ReLU()
    parts.update(pooled_classifier(channels, num_classes))
    network = StagedNetwork(parts)
    nn.init.zeros_(network.classifier.weight)
    nn.init.zeros_(network.classifier.bias)
    return network


class PreactivationBottleneck(nn.Module):
    """x + conv(act(conv(act(conv(act(x)))))) with kernels 1, 3, 1; act is GroupNorm and ReLU.

    Where the shape changes, x goes through a 1x1 convolution of act(x) instead.
    """

    def __init__(self, in_channels: int, inner: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, in_channels)
        self.conv1 = StandardisedConv2d(in_channels, inner, 1, bias=False)
        self.norm2 = nn.GroupNorm(GROUPS, inner)
        self.conv2 = StandardisedConv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.norm3 = nn.GroupNorm(GROUPS, inner)
        self.conv3 = StandardisedConv2d(inner, 4 * inner, 1, bias=False)
        changes = stride != 1 or in_channels != 4 * inner
        self.projection = (
            StandardisedConv2d(in_channels, 4 * inner, 1, stride, bias=False) if changes else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, 4 inner, h / stride, w / stride), halves rounded up."""
        active = F.relu(self.norm1(x))
        shortcut = x if self.projection is None else self.projection(active)
        out = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return shortcut + self.conv3(F.relu(self.norm3(out)))


def load_published(network: StagedNetwork, arrays: Mapping[str, np.ndarray]) -> None:
    """Put the arrays of a published checkpoint into a `bit_resnet` of the same shape.

    Args:
        network: changed in place.
        arrays: by their names in the published code, such as "block1.unit01.conv1.kernel", with "."
            or "/" between the parts; kernels (height, width, in, out).

    Raises:
        ValueError: an array is missing, is left over or has another shape; the message names it.
    """
    given = {name.replace("/", "."): value for name, value in arrays.items()}
    state = network.state_dict()
    for name, tensor in state.items():
        published = _published_name(name)
        if published not in given:
            raise ValueError(f"arrays must hold {published}; got {', '.join(sorted(given)[:3])}")
        value = torch.from_numpy(np.asarray(given.pop(published), dtype=np.float64))
        if name == "classifier.weight":
            value = value.squeeze().T
        elif name.endswith("weight") and tensor.ndim == 4:
            value = value.permute(3, 2, 0, 1)
        else:
            value = value.flatten()
        if value.shape != tensor.shape:
            raise ValueError(
                f"{published} must have {tensor.numel()} numbers as {tuple(tensor.shape)}; "
                f"got {tuple(value.shape)}"
            )
        state[name] = value.to(tensor.dtype)
    if given:
        raise ValueError(f"arrays must fit the network; got {min(given)} besides")
    network.load_state_dict(state)


def _published_name(name: str) -> str:
    """What the published code calls one of our parameters."""
    part, *inside, kind = name.split(".")
    if part == "classifier":
        return "head.kernel" if kind == "weight" else "head.bias"
    if part == "root":
        return "root_block.conv_root.kernel"
    norm = {"weight": "scale", "bias": "bias"}
    if part == "norm":
        return f"norm-pre-head.{norm[kind]}"
    unit = f"block{part.removeprefix('stage')}.unit{int(inside[0]) + 1:02d}"
    layer = inside[1]
    if layer.startswith("norm"):
        return f"{unit}.gn{layer[-1]}.{norm[kind]}"
    return f"{unit}.{'conv_proj' if layer == 'projection' else layer}.kernel"
