import pytest
import torch
from torch import nn

from smallnets.measure import macs, parameters, weight_bytes
from smallnets.models import convnet


class Attention(nn.Module):
    """Two matrix products without weights: (n, tokens, width) -> (n, tokens, width)."""

    def forward(self, x):
        return (x @ x.transpose(1, 2)).softmax(2) @ x


def test_parameters_count_shared_ones_once_and_frozen_ones_too():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    first.bias.requires_grad_(False)
    assert parameters(nn.Sequential(first, second)) == 16 + 4 + 4
    assert parameters(nn.BatchNorm2d(3)) == 6, "running statistics are buffers"
    assert parameters(nn.ReLU()) == 0


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Linear(30, 7), (30,), 210),
        (nn.Linear(30, 7), (5, 30), 1050),
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 12), 10 * 12 * 8 * 27),
        (nn.Conv2d(8, 8, 3, stride=2, groups=8), (8, 9, 9), 4 * 4 * 8 * 9),
        (nn.ConvTranspose2d(8, 16, 4, 2, 1), (8, 16, 16), 524_288),
        (Attention(), (6, 4), 2 * 6 * 6 * 4),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)), (3, 8, 8), 0),
    ],
)
def test_macs_in_closed_form(layer, shape, expected):
    assert macs(layer, shape) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("resnet18", 1_814_073_344), ("mobilenet_v2", 300_774_272)]
)
def test_macs_as_published(name, expected):
    import torchvision

    assert macs(getattr(torchvision.models, name)(), (3, 224, 224)) == expected


def test_striding_takes_a_quarter_of_the_convolutions_work():
    linear = 16 * 10
    pooled, strided = (
        macs(convnet(4, 10, stem_stride=stride), (3, 32, 32)) - linear for stride in (1, 2)
    )
    assert pooled == 4 * strided


def test_macs_leaves_the_network_as_it_was():
    network = convnet(4, 10).double().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert macs(network, (3, 16, 16)) > 0
    assert network.training
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in network.parameters())


def test_weight_bytes_round_up():
    layer = nn.Linear(3, 3, bias=False)
    assert weight_bytes(layer) == 36
    assert weight_bytes(layer, bits=8) == 9
    assert weight_bytes(layer, bits=1) == 2
    assert weight_bytes(layer, bits=1.5) == 2


def test_errors():
    with pytest.raises(ValueError, match=r"^bits must be greater than 0; got 0$"):
        weight_bytes(nn.Linear(2, 2), bits=0)
    with pytest.raises(
        ValueError, match=r"^batch and each side of input_shape must be at least 1; got 0$"
    ):
        macs(nn.Linear(2, 2), (0,))
