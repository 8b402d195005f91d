import math

import pytest
import torch
from torch import nn

from smallnets.models import FeatureTap, cifar_resnet


@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (1, 3, 8, 8), (2, 4, 31, 19), (2, 3, 32, 32)])
def test_stages(shape):
    n, channels, height, width = shape
    network = cifar_resnet(14, 5, channels, width=4)
    assert network.stage_names == ("stage1", "stage2", "stage3")
    with FeatureTap(network, network.stage_names) as tap:
        assert network(torch.rand(shape)).shape == (n, 5)
    for i, feature in enumerate(tap.features.values()):
        size = math.ceil(height / 2**i), math.ceil(width / 2**i)
        assert feature.shape == (n, 4 * 2**i, *size)
        assert feature.min() == 0, "taken after the ReLU"


def test_a_block_with_silent_convolutions_passes_its_input_on():
    network = cifar_resnet(14, 5, width=4).eval()
    block = network.stage1[1]
    nn.init.zeros_(block.norm2.weight)
    x = torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_convolutions_start_with_he_deviation_over_outputs():
    torch.manual_seed(0)
    weight = cifar_resnet(8, 5, width=64).stage3[0].conv2.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)


@pytest.mark.parametrize("depth", [3, 7, 16, 22])
def test_depth_must_be_6n_plus_2(depth):
    message = rf"^depth must be 6n \+ 2 \(8, 14, 20, \.\.\.\); got {depth}$"
    with pytest.raises(ValueError, match=message):
        cifar_resnet(depth, 10)


def test_depth_2_has_no_blocks():
    with pytest.raises(ValueError, match="6n"):
        cifar_resnet(2, 10)


@pytest.mark.parametrize(
    ("name", "value"), [("width", 0), ("stem", 0), ("in_channels", 0), ("num_classes", 0)]
)
def test_sizes_are_at_least_one(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1; got {value}$"):
        cifar_resnet(**{"depth": 8, "num_classes": 10, name: value})
