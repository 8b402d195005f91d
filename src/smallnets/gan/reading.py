"""A small network that reads label maps off pictures, trained on a domain's own images.

It is the measure of what is made: the label map that it finds again (mIoU), and what its layers see
(FID, KID, perceptual loss). Published numbers come from large networks (DRN-D-105, Inception-v3,
VGG-19); those can take its place wherever a network of the user's choice is asked for.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from smallnets import checks
from smallnets.batches import Batches
from smallnets.data.translation import Translation
from smallnets.training import TrainSettings, fit, seeded
from smallnets.training.checkpoint import History

READING = TrainSettings(
    epochs=12, batch_size=32, lr=2e-3, optimizer="adamw", weight_decay=1e-4, precision="32-true"
)


class LabelReader(nn.Module):
    """Convolutions at three resolutions, and back: pictures -> logits of every pixel.

    Args:
        classes: of the label maps.
        channels: of the pictures.
        width: of the first layers; doubled twice.

    Attributes:
        first, second, third: its stages, at full, half and a quarter of the resolution, which a
            `PerceptualLoss` can listen to.
    """

    def __init__(self, classes: int, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        for name, value in (("classes", classes), ("channels", channels), ("width", width)):
            checks.whole(name, value, 1)
        self.first = _stage(channels, width, 1)
        self.second = _stage(width, 2 * width, 2)
        self.third = _stage(2 * width, 4 * width, 2)
        self.up = _stage(6 * width, 2 * width, 1)
        self.classifier = nn.Conv2d(3 * width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) in [-1, 1] -> (n, classes, height, width)."""
        large = self.first(x)
        middle = self.second(large)
        up = self.up(torch.cat([_like(self.third(middle), middle), middle], 1))
        return self.classifier(torch.cat([_like(up, large), large], 1))

    def features(self, x: Tensor) -> Tensor:
        """Means and spreads of the third stage over each picture: (n, 8 width)."""
        seen = self.third(self.second(self.first(x))).flatten(2)
        return torch.cat([seen.mean(2), seen.std(2, correction=0)], dim=1)

    @torch.no_grad()
    def labels(self, x: Tensor) -> Tensor:
        """The likeliest class of every pixel, uint8 (n, height, width)."""
        return self(x).argmax(1).to(torch.uint8)


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _like(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, other.shape[2:], mode="nearest")


def train_reader(
    data: Translation,
    settings: TrainSettings = READING,
    *,
    width: int = 16,
    seed: int = 0,
    cache_dir: Path | None = None,
) -> tuple[LabelReader, History]:
    """A reader of the training images of domain B, and its training's terms.

    Args:
        data: with label maps.
        settings: how to train.
        width: of the reader.
        seed: of its start, and of the order of images.
        cache_dir: see `smallnets.training.fit`.

    Raises:
        ValueError: data without label maps.
    """
    if data.labels_train is None:
        raise ValueError("data must have label maps to read; got none")
    with seeded(seed):
        reader = LabelReader(len(data.class_names), data.b_channels, width)
    pairs = TensorDataset(data.b(data.b_train), data.labels_train.long())
    size = min(settings.batch_size, len(pairs))
    loader = DataLoader(pairs, size, shuffle=True, drop_last=True)
    batches = Batches(loader, len(data.class_names), any_labels=True)
    history = fit(reader, batches, settings, seed=seed, cache_dir=cache_dir, label="reader")
    return reader, history
