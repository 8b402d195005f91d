"""The other networks of the cross-architecture tables, and every network by its published name.

Plain CIFAR forms of MLP, LeNet, AlexNet, VGG-11 and ResNet-18, as in the official code; `embed`
gives what the classifier sees. MLP and LeNet have no embedding there; here it is their last hidden
layer.
"""

import re
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks, measure
from smallnets.synthesize.condense.convnets import ConvNet, ConvNetSpec, first_padding, norm_layers
from smallnets.synthesize.condense.norms import InstanceNorm

NAMES = (
    "MLP", "LeNet", "AlexNet", "AlexNetBN", "VGG11", "VGG11BN", "ResNet18", "ResNet18BN",
    "ResNet18_AP", "ResNet18BN_AP", "ConvNet", "ConvNetD[1-4]", "ConvNetW[32-256]",
    "ConvNetA[S|R|L|Swish]", "ConvNet[NN|BN|LN|IN|GN]", "ConvNet[NP|MP|AP]",
)  # fmt: skip
PARTS = (
    r"(?:D(?P<depth>\d+))?(?:W(?P<width>\d+))?(?:A(?P<activation>Swish|S|R|L))?"
    r"(?:(?P<norm>NN|BN|LN|IN|GN))?(?:(?P<pooling>NP|MP|AP))?"
)
LETTERS = {
    "S": "sigmoid", "R": "relu", "L": "leaky_relu", "Swish": "swish",
    "NN": "none", "BN": "batch", "LN": "layer", "IN": "instance", "GN": "group",
    "NP": "none", "MP": "max", "AP": "average",
}  # fmt: skip
VGG11 = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")


@runtime_checkable
class Embedder(Protocol):
    """A network of which an embedding can be asked."""

    def embed(self, x: Tensor) -> Tensor:
        """Images (n, ...) -> (n, D)."""


class Embedded(nn.Module):
    """Two parts as a network with an embedding: `head(body(x))`, and `embed(x)` = `body(x)`.

    Args:
        body: images (n, ...) -> features (n, ...), flattened to (n, D).
        head: (n, D) -> logits (n, classes); None where only the embedding is wanted.
    """

    def __init__(self, body: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.classifier = nn.Identity() if head is None else head

    def embed(self, x: Tensor) -> Tensor:
        """Images (n, ...) -> (n, D)."""
        return self.body(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Images -> logits."""
        return self.classifier(self.embed(x))


def check_embeds(network: nn.Module, images: Tensor) -> int:
    """Check that a network embeds such images, and return the dimension D.

    Raises:
        ValueError: it has no `embed`, does not take the images, or gives no finite (n, D).
    """
    if not isinstance(network, Embedder):
        raise ValueError(
            "an embedding network must have a method embed(images) -> (n, D); got "
            f"{type(network).__name__}: wrap it as Embedded(body, head)"
        )
    try:
        with torch.no_grad():
            found = network.embed(images)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"the embedding network does not take images of shape {tuple(images.shape[1:])}: "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(images):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"embed must give (images, D) for {len(images)} images; got {shape}")
    if not found.isfinite().all():
        raise ValueError("embed must give finite numbers; got nan or inf")
    return found.shape[1]


def mlp(num_classes: int, channels: int = 3, size: tuple[int, int] = (32, 32)) -> Embedded:
    """Two hidden layers of 128 units."""
    inputs = channels * size[0] * size[1]
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
    )
    return Embedded(body, nn.Linear(128, num_classes))


def lenet(num_classes: int, channels: int = 3, size: tuple[int, int] = (32, 32)) -> Embedded:
    """LeNet-5 with ReLU and max-pooling; grey images are padded by 2. 84 features."""
    convolutions = nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2 if channels == 1 else 0), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    )  # fmt: skip
    inputs = features_of("LeNet", convolutions, channels, size)
    body = nn.Sequential(
        *convolutions, nn.Linear(inputs, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()
    )
    return Embedded(body, nn.Linear(84, num_classes))


def alexnet(
    num_classes: int, channels: int = 3, size: tuple[int, int] = (32, 32), *, norm: str = "none"
) -> Embedded:
    """AlexNet for small images: five convolutions, three max-pools; 3,072 features at 32x32."""
    layers: list[nn.Module] = []
    grey, inputs = first_padding(channels, size) == 3, channels
    for width, kernel, pooled in ((128, 5, 1), (192, 5, 1), (256, 3, 0), (192, 3, 0), (192, 3, 1)):
        padding = 4 if grey and not layers else kernel // 2
        layers.append(nn.Conv2d(inputs, width, kernel, padding=padding))
        layers += [*norm_layers(norm, width, size), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] * pooled
        inputs = width
    return _with_classifier("AlexNet", layers, num_classes, channels, size)


def vgg11(
    num_classes: int, channels: int = 3, size: tuple[int, int] = (32, 32), *, norm: str = "instance"
) -> Embedded:
    """VGG-11: eight 3x3 convolutions, five max-pools; 512 features at 32x32."""
    layers: list[nn.Module] = []
    inputs = channels
    for width in VGG11:
        if width == "pool":
            layers.append(nn.MaxPool2d(2))
            continue
        padding = 1 if layers else first_padding(channels, size)
        layers.append(nn.Conv2d(inputs, int(width), 3, padding=padding))
        layers += [*norm_layers(norm, int(width), size), nn.ReLU()]
        inputs = int(width)
    return _with_classifier("VGG11", layers, num_classes, channels, size)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with norms, and a 1x1 shortcut where the shape changes.

    Args:
        inputs, width: channels.
        stride: of the block.
        norm: "instance" or "batch".
        pooled: halve by average pooling after convolutions of stride 1.
    """

    def __init__(self, inputs: int, width: int, stride: int, norm: str, pooled: bool) -> None:
        super().__init__()
        step = 1 if pooled else stride
        self.conv1 = nn.Conv2d(inputs, width, 3, step, padding=1, bias=False)
        (self.norm1,) = norm_layers(norm, width, (0, 0))
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        (self.norm2,) = norm_layers(norm, width, (0, 0))
        self.pool = nn.AvgPool2d(2) if pooled and stride == 2 else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != width:
            convolution = nn.Conv2d(inputs, width, 1, step, bias=False)
            pool = nn.AvgPool2d(2) if pooled and stride == 2 else nn.Identity()
            self.shortcut = nn.Sequential(convolution, pool, *norm_layers(norm, width, (0, 0)))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, width, h / stride, w / stride)."""
        out = self.pool(F.relu(self.norm1(self.conv1(x))))
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


def resnet18(
    num_classes: int,
    channels: int = 3,
    size: tuple[int, int] = (32, 32),
    *,
    norm: str = "instance",
    pooled: bool = False,
) -> Embedded:
    """ResNet-18 for small images, with instance or batch norm.

    Args:
        num_classes, channels, size: of the data.
        norm: "instance" or "batch".
        pooled: the "AP" form: 2x2 average pooling instead of strides, and the last map is flattened
            (8,192 features at 32x32) where the plain form averages blocks of 4x4 (512).
    """
    layers: list[nn.Module] = [
        nn.Conv2d(channels, 64, 3, padding=1, bias=False), *norm_layers(norm, 64, size), nn.ReLU(),
    ]  # fmt: skip
    inputs = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for step in (stride, 1):
            layers.append(ResidualBlock(inputs, width, step, norm, pooled))
            inputs = width
    if not pooled:
        layers.append(nn.AvgPool2d(4))
    return _with_classifier("ResNet18", layers, num_classes, channels, size)


def features_of(name: str, body: nn.Module, channels: int, size: tuple[int, int]) -> int:
    """Numbers that a body makes of one image.

    Raises:
        ValueError: nothing is left of such an image, or one position where an instance norm leaves
            its bias alone, so that all images would look alike.
    """
    norms = [one for one in body.modules() if isinstance(one, InstanceNorm)]
    positions: list[int] = []

    def look(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        positions.append(given[0].shape[2:].numel())

    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    try:
        with measure.evaluating(body), torch.no_grad():  # else batch norm would count the zeros
            count = body(torch.zeros(2, channels, *size)).flatten(1).shape[1]
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{name} does not take images of {channels}x{size[0]}x{size[1]}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if 1 in positions:
        raise ValueError(
            f"{name} does not take images of {channels}x{size[0]}x{size[1]}: an instance norm "
            "would see maps of 1x1 and make all images alike"
        )
    return count


def _with_classifier(
    name: str, layers: list[nn.Module], num_classes: int, channels: int, size: tuple[int, int]
) -> Embedded:
    body = nn.Sequential(*layers)
    return Embedded(body, nn.Linear(features_of(name, body, channels, size), num_classes))


def network(
    name: str, num_classes: int, channels: int = 3, size: tuple[int, int] = (32, 32)
) -> nn.Module:
    """A fresh network by the name that the official code gives it.

    Args:
        name: one of `NAMES`: "ConvNet" with any of the parts D (depth), W (width), A (activation),
            a norm and a pooling, in this order, as in "ConvNetD4BN"; "AlexNetBN", "VGG11BN",
            "ResNet18BN" with batch norm. Plain AlexNet has no norm, VGG11 and ResNet18 have
            instance norm.
        num_classes, channels, size: of the data.

    Raises:
        ValueError: an unknown name, or images that such a network cannot take.
    """
    checks.whole("num_classes", num_classes, 1)
    checks.whole("channels", channels, 1)
    batch = {"norm": "batch"}
    makers: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
        "MLP": (mlp, {}),
        "LeNet": (lenet, {}),
        "AlexNet": (alexnet, {}),
        "AlexNetBN": (alexnet, batch),
        "VGG11": (vgg11, {}),
        "VGG11BN": (vgg11, batch),
        "ResNet18": (resnet18, {}),
        "ResNet18BN": (resnet18, batch),
        "ResNet18_AP": (resnet18, {"pooled": True}),
        "ResNet18BN_AP": (resnet18, {"pooled": True, **batch}),
    }
    if name in makers:
        make, more = makers[name]
        return make(num_classes, channels, size, **more)
    match = re.fullmatch("ConvNet" + PARTS, name) if isinstance(name, str) else None
    if match is None:
        raise ValueError(f"network must be one of {', '.join(NAMES)}; got {name!r}")
    chosen = {
        key: LETTERS.get(part) or int(part) for key, part in match.groupdict().items() if part
    }
    return ConvNet(num_classes, channels, size, ConvNetSpec(**cast(dict[str, Any], chosen)))


def couples_examples(network: nn.Module) -> bool:
    """Whether an image's embedding depends on the others in its batch: batch norm in training."""
    kinds = (nn.modules.batchnorm._BatchNorm,)
    return any(isinstance(one, kinds) and one.training for one in network.modules())
