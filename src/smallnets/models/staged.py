"""What every classifier of the book has in common: stages in a row, pooling, a linear layer."""

from collections import OrderedDict

from torch import nn

from smallnets.checks import whole


class StagedNetwork(nn.Sequential):
    """An image classifier as a sequence of named parts, some of them called `stage1`, `stage2`, ...

    Input (n, channels, height, width), output logits (n, classes). As the network is a plain
    sequence, `network[:-1]` is the map from images to pooled features, sharing the weights.
    """

    classifier: nn.Linear

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the submodules whose outputs are the stages' feature maps, first to last."""
        return tuple(name for name in self._modules if name.startswith("stage"))


def pooled_classifier(channels: int, num_classes: int) -> "OrderedDict[str, nn.Module]":
    """The parts that end every network: (n, channels, h, w) -> (n, channels) -> (n, classes)."""
    return OrderedDict(
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(channels, whole("num_classes", num_classes, 1)),
    )


def blocks_per_stage(depth: int, surplus: int) -> int:
    """The n of `depth` = 6n + `surplus`: three stages of n blocks of two convolutions.

    Raises ValueError if no n of at least 1 fits.
    """
    blocks, rest = divmod(whole("depth", depth, 1) - surplus, 6)
    if rest or blocks < 1:
        examples = ", ".join(str(6 * n + surplus) for n in (1, 2, 3))
        raise ValueError(f"depth must be 6n + {surplus} ({examples}, ...); got {depth!r}")
    return blocks
