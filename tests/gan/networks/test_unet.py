"""The U-Net of pix2pix."""

import pytest
import torch

from smallnets.gan.networks.unet import UNetGenerator


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_images_keep_their_size(norm):
    x = torch.rand(2, 3, 16, 32)
    y = UNetGenerator(3, 2, ngf=2, downs=3, norm=norm)(x)
    assert y.shape == (2, 2, 16, 32)
    assert y.abs().max() <= 1


def test_dropout_stands_behind_the_inner_ways_up():
    network = UNetGenerator(ngf=1, downs=8, dropout=True)
    levels = [any(isinstance(m, torch.nn.Dropout) for m in up) for up in network.up]
    assert levels == [False] * 4 + [True] * 3 + [False]


def test_wrong_settings_and_images_are_refused():
    for options, message in (
        ({"downs": 1}, "downs must be at least 2"),
        ({"norm": "none"}, "norm must be one of"),
        ({"ngf": 0}, "ngf must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            UNetGenerator(**options)
    network = UNetGenerator(ngf=1, downs=3)
    with pytest.raises(ValueError, match="multiples of 8; got 12 x 16"):
        network(torch.zeros(1, 3, 12, 16))
    with pytest.raises(ValueError, match=r"\(batch, 3, height, width\)"):
        network(torch.zeros(1, 1, 16, 16))
