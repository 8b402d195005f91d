"""Networks of a study: built by name, trained once and kept, judged on test images."""

from pathlib import Path

from torch import nn

from smallnets import measure
from smallnets.data import Dataset
from smallnets.models import NAMES, RowReader, is_named, named
from smallnets.surgery import replace_module
from smallnets.training import TrainSettings, fit, seeded


def build_network(
    name: str, dataset: Dataset, seed: int, *, norm: str = "batch", stem_stride: int = 1
) -> nn.Module:
    """An untrained network for the data set's images and classes.

    Args:
        name: of `smallnets.models.named`, a classification network of torchvision such as
            "mobilenet_v2", or "rows-UNITS" for a recurrent network that reads rows of pixels.
        dataset: for its channels and classes. The first convolution of torchvision's networks is
            exchanged where images have not three channels.
        seed: of the initial weights.
        norm: of networks that can be built with several, see `named`.
        stem_stride: of a CIFAR ResNet's first convolution.

    Raises:
        ValueError: another name.
    """
    classes, channels = dataset.num_classes, dataset.channels
    with seeded(seed):
        if name.startswith("rows-") and name[5:].isdecimal():
            return RowReader(int(name[5:]), classes, channels, dataset.size[1])
        if not is_named(name):
            return _of_torchvision(name, classes, channels)
        network: nn.Module = named(name, classes, channels, norm=norm)
        if stem_stride != 1:
            network.conv.stride = (stem_stride, stem_stride)
        return network


def _of_torchvision(name: str, classes: int, channels: int) -> nn.Module:
    from torchvision.models import get_model, list_models  # a second that few runs need

    if name not in list_models():
        raise ValueError(
            f"network must be one of {NAMES}, rows-UNITS, or a torchvision classification network; "
            f"got {name!r}"
        )
    network: nn.Module = get_model(name, weights=None, num_classes=classes)
    if channels != 3:
        place, stem = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
        own = nn.Conv2d(
            channels, stem.out_channels, stem.kernel_size, stem.stride, stem.padding,
            bias=stem.bias is not None,
        )  # fmt: skip
        replace_module(network, place, own)
    return network


def train_network(
    name: str,
    dataset: Dataset,
    training: TrainSettings,
    seed: int,
    cache_dir: Path | None = None,
    *,
    label: str = "network",
    norm: str = "batch",
    stem_stride: int = 1,
) -> nn.Module:
    """A network trained on the labels of all training images, in evaluation mode on the CPU.

    Args:
        name, dataset, norm, stem_stride: as for `build_network`.
        training: how.
        seed: of start and training.
        cache_dir: folder for finished trainings.
        label: of the kept file and of the progress bar.
    """
    network = build_network(name, dataset, seed, norm=norm, stem_stride=stem_stride)
    fit(network, dataset, training, seed=seed, cache_dir=cache_dir, label=label)
    return network


def evaluate_accuracy(network: nn.Module, dataset: Dataset) -> float:
    """Share of the test images that a network gets right."""
    logits = measure.predict(network, dataset.x_test, dataset.normalise)
    return measure.accuracy(logits, dataset.y_test)
