"""A bidirectional LSTM that reads an image row by row: the sequence model of the book."""

import torch
from torch import Tensor, nn

from smallnets.checks import whole


class RowReader(nn.Module):
    """Rows of an image as the words of a sentence, then a linear layer on the last states.

    Args:
        units: of the hidden state, in each direction.
        num_classes: length of the logits.
        in_channels, width: of the images; a row has in_channels * width numbers.
    """

    def __init__(self, units: int, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        whole("units", units, 1)
        inputs = whole("in_channels", in_channels, 1) * whole("width", width, 1)
        self.reader = nn.LSTM(inputs, units, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * units, whole("num_classes", num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) -> logits (n, classes)."""
        rows = images.transpose(1, 2).flatten(2)  # (n, height, channels * width)
        with torch.autocast(images.device.type, enabled=False):
            _, (last, _) = self.reader(rows.float())  # (2, n, units)
        return self.classifier(last.transpose(0, 1).flatten(1))
