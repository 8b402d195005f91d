import math

import pytest
import torch
from torch import nn

from smallnets.models import FeatureTap, wide_resnet


@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (1, 3, 8, 8), (2, 4, 31, 19), (2, 3, 32, 32)])
def test_stages(shape):
    n, channels, height, width = shape
    network = wide_resnet(10, 1, 5, channels)
    assert network.stage_names == ("stage1", "stage2", "stage3")
    with FeatureTap(network, network.stage_names) as tap:
        assert network(torch.rand(shape)).shape == (n, 5)
    for i, feature in enumerate(tap.features.values()):
        size = math.ceil(height / 2**i), math.ceil(width / 2**i)
        assert feature.shape == (n, 16 * 2**i, *size)
        assert feature.min() < 0 < feature.max(), "a raw sum has both signs"


def test_initial_weights():
    torch.manual_seed(0)
    network = wide_resnet(10, 4, 10)
    weight = network.stage3[0].conv2.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)
    assert not network.classifier.bias.any()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 7
    assert all((m.weight == 1).all() and not m.bias.any() for m in norms)


@pytest.mark.parametrize("depth", [4, 8, 14, 20])
def test_depth_must_be_6n_plus_4(depth):
    message = rf"^depth must be 6n \+ 4 \(10, 16, 22, \.\.\.\); got {depth}$"
    with pytest.raises(ValueError, match=message):
        wide_resnet(depth, 1, 10)


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("in_channels", 0), ("num_classes", 0)])
def test_sizes_are_at_least_one(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1; got {value}$"):
        wide_resnet(**{"depth": 10, "width": 1, "num_classes": 10, name: value})
