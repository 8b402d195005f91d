import math

import pytest
import torch
from torch import nn

from smallnets.models import FeatureTap, wide_resnet
from smallnets.models.wide_resnet import PreActivationBlock, SamePadding


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


@pytest.mark.parametrize("size", [(32, 32), (17, 22), (9, 31)])
def test_tensorflow_s_variant_takes_any_size(size):
    network = wide_resnet(10, 1, 5, tensorflow=True).eval()
    assert network(torch.rand(2, 3, *size)).shape == (2, 5)
    with FeatureTap(network, network.stage_names) as tap:
        network(torch.rand(1, 3, *size))
    sides = [tuple(features.shape[2:]) for features in tap.features.values()]
    assert sides == [size, *[tuple(-(-side // 2**k) for side in size) for k in (1, 2)]]


def test_tensorflow_s_variant_pads_at_the_end():
    x = torch.arange(1.0, 17).view(1, 1, 4, 4)
    padded = SamePadding()(x)
    assert padded.shape == (1, 1, 5, 5)
    assert torch.equal(padded[:, :, :4, :4], x)
    assert SamePadding()(x[:, :, :3]).shape == (1, 1, 5, 5)


def test_tensorflow_s_variant_adds_to_the_activated_input():
    block = PreActivationBlock(4, 4, activated_sum=True).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(x), block.norm1(x).relu())
    norms = [m for m in wide_resnet(10, 2, 3, tensorflow=True).modules()
             if isinstance(m, nn.BatchNorm2d)]  # fmt: skip
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
