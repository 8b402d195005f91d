"""The ConvNet family of the condensation papers (Zhao et al., ICLR 2021).

Blocks of a 3x3 convolution with bias, a norm, an activation and a 2x2 pooling, all of one width;
then a linear classifier on the flattened last map. The embedding is that flattened map. Names of
weights are those of the official code: `features.I.weight` with I counting the layers there are.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import product
from math import log2

from torch import Tensor, nn

from smallnets import checks
from smallnets.synthesize.condense.norms import InstanceNorm, norm_relu_pool

DEPTHS = (1, 2, 3, 4)
WIDTHS = (32, 64, 128, 256)
ACTIVATIONS = ("sigmoid", "relu", "leaky_relu", "swish")
NORMS = ("none", "batch", "layer", "instance", "group")
POOLINGS = ("none", "max", "average")
GROUPS = 4  # of "group"
PUBLISHED = ("instance", "relu", "average")  # norm, activation and pooling of the main experiments


@dataclass(frozen=True)
class ConvNetSpec:
    """One member of the family; the defaults are those of all main experiments.

    Attributes:
        depth: number of blocks; 3 for images of up to 32 pixels. For 64 pixels the official code
            takes 3, later papers 4 (see `published_depth`).
        width: channels of every block.
        activation, norm, pooling: one of `ACTIVATIONS`, `NORMS`, `POOLINGS`. "layer" averages over
            channels and positions and scales every one of them, "group" has four groups.

    Raises:
        ValueError: a field is out of range.
    """

    depth: int = 3
    width: int = 128
    activation: str = "relu"
    norm: str = "instance"
    pooling: str = "average"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("depth", self.depth, 1)
        checks.whole("width", self.width, 1)
        checks.one_of("activation", self.activation, ACTIVATIONS)
        checks.one_of("norm", self.norm, NORMS)
        checks.one_of("pooling", self.pooling, POOLINGS)
        if self.norm == "group" and self.width % GROUPS:
            raise ValueError(
                f"width must be a multiple of {GROUPS} with norm 'group'; got {self.width}"
            )

    def __str__(self) -> str:
        return "-".join(str(getattr(self, field.name)) for field in fields(self))


def published_depth(size: tuple[int, int]) -> int:
    """Blocks that figures are published for: 3, and 4 from 64 pixels on."""
    return 4 if min(size) >= 64 else 3


def convnet_space() -> tuple[ConvNetSpec, ...]:
    """The 720 networks of the architecture search.

    Depth, width, activation (sigmoid, ReLU, leaky ReLU), norm and pooling, the last varying
    fastest.
    """
    return tuple(
        ConvNetSpec(*choice) for choice in product(DEPTHS, WIDTHS, ACTIVATIONS[:3], NORMS, POOLINGS)
    )


class ConvNet(nn.Module):
    """A member of the family.

    Args:
        num_classes: length of the logits.
        channels: of the images.
        size: height and width of the images. Those of 28x28 with one channel are padded to 32x32.
        spec: which member.

    Raises:
        ValueError: nothing would be left of the image; the line names the largest depth.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 3,
        size: tuple[int, int] = (32, 32),
        spec: ConvNetSpec = ConvNetSpec(),
    ) -> None:
        super().__init__()
        checks.whole("channels", channels, 1)
        height, width = size
        padding = first_padding(channels, size)
        height, width = height + 2 * (padding - 1), width + 2 * (padding - 1)
        smallest = checks.whole("smaller side of the images", min(height, width), 1)
        if spec.pooling != "none" and smallest < 2**spec.depth:
            raise ValueError(
                f"depth must be at most {int(log2(smallest))} for images of "
                f"{size[0]}x{size[1]}, which {spec.depth} poolings would leave nothing of"
            )
        layers: list[nn.Module] = []
        for block in range(spec.depth):
            layers.append(nn.Conv2d(channels, spec.width, 3, padding=1 if block else padding))
            channels = spec.width
            layers += norm_layers(spec.norm, channels, (height, width))
            layers.append(activation(spec.activation))
            if spec.pooling != "none":
                layers.append(nn.MaxPool2d(2) if spec.pooling == "max" else nn.AvgPool2d(2))
                height, width = height // 2, width // 2
        self.spec = spec
        self.features = nn.Sequential(*layers)
        self.dimension = channels * height * width
        classes = checks.whole("num_classes", num_classes, 1)
        self.classifier = nn.Linear(self.dimension, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Images (n, channels, height, width) -> the last map, (n, dimension), channel first."""
        spec = self.spec
        if (spec.norm, spec.activation, spec.pooling) != PUBLISHED:
            return self.features(x).flatten(1)
        for block in range(0, len(self.features), 4):
            norm = self.features[block + 1]
            assert isinstance(norm, InstanceNorm)
            x = norm_relu_pool(self.features[block](x), norm)
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Images -> logits (n, classes)."""
        return self.classifier(self.embed(x))


def first_padding(channels: int, size: tuple[int, int]) -> int:
    """Padding of a network's first 3x3 convolution: 3 brings grey images of 28 pixels to 32.

    The official code pads every grey image so, and then fails for other sizes.
    """
    return 3 if channels == 1 and tuple(size) == (28, 28) else 1


def norm_layers(norm: str, channels: int, size: tuple[int, int]) -> list[nn.Module]:
    """A norm by name, as a list that "none" leaves empty; `size` is the map's, for "layer"."""
    makers: dict[str, Callable[[], list[nn.Module]]] = {
        "none": list,
        "batch": lambda: [nn.BatchNorm2d(channels)],
        "layer": lambda: [nn.LayerNorm([channels, *size])],
        "instance": lambda: [InstanceNorm(channels)],
        "group": lambda: [nn.GroupNorm(GROUPS, channels)],
    }
    return makers[norm]()


def activation(name: str) -> nn.Module:
    """An activation by name; none works in place, since gradients of gradients are taken."""
    makers = {
        "sigmoid": nn.Sigmoid, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "swish": nn.SiLU
    }  # fmt: skip
    return makers[name]()
