import numpy as np
import pytest
import torch
from torch import nn

from smallnets.models import FeatureTap, bit_resnet, load_published, named

UNIT = "block1.unit01"
SHAPES = {  # of one unit with 32 inner channels and five classes, by the published code's names
    "root_block.conv_root.kernel": (7, 7, 3, 32),
    f"{UNIT}.conv1.kernel": (1, 1, 32, 32),
    f"{UNIT}.conv2.kernel": (3, 3, 32, 32),
    f"{UNIT}.conv3.kernel": (1, 1, 32, 128),
    f"{UNIT}.conv_proj.kernel": (1, 1, 32, 128),
    **{f"{UNIT}.gn{i}.{kind}": (1, 1, 1, 32) for i in (1, 2, 3) for kind in ("scale", "bias")},
    **{f"norm-pre-head.{kind}": (1, 1, 1, 128) for kind in ("scale", "bias")},
    "head.kernel": (128, 5),
    "head.bias": (5,),
}


@pytest.fixture
def tiny():
    """A small network, and arrays that fit it."""
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=shape) for name, shape in SHAPES.items()}
    return bit_resnet((1,), 5, width=0.5).double(), arrays


def test_an_untrained_network_predicts_all_classes_alike():
    network = named("bit-26-1", 7, 1)
    with FeatureTap(network, network.stage_names) as tap:
        logits = network(torch.rand(2, 1, 64, 64))
    assert torch.equal(logits, torch.zeros(2, 7))
    shapes = [tuple(feature.shape) for feature in tap.features.values()]
    assert shapes == [(2, 256, 16, 16), (2, 512, 8, 8), (2, 1024, 4, 4), (2, 2048, 2, 2)]


def test_names_may_be_separated_by_dots_or_slashes(tiny):
    network, given = tiny
    kernel = given[f"{UNIT}.conv2.kernel"].transpose(3, 2, 0, 1)
    for separator in "./":
        nn.init.zeros_(network.stage1[0].conv2.weight)
        load_published(network, {k.replace(".", separator): v for k, v in given.items()})
        assert np.array_equal(network.stage1[0].conv2.weight.detach(), kernel)
        assert np.array_equal(network.classifier.weight.detach(), given["head.kernel"].T)


def test_arrays_that_do_not_fit_are_named(tiny):
    network, given = tiny
    with pytest.raises(ValueError, match="arrays must fit the network; got other besides"):
        load_published(network, {**given, "other": np.zeros(1)})
    with pytest.raises(ValueError, match=r"head.bias must have 5 numbers .*; got \(3,\)"):
        load_published(network, {**given, "head.bias": np.zeros(3)})
    given.pop("head.bias")
    with pytest.raises(ValueError, match=r"arrays must hold head\.bias; got"):
        load_published(network, given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((34, 10), "depth must be one of 26, 50, 101, 152; got '34'"),
        (((), 10), "number of stages must be at least 1; got 0"),
        ((26, 0), "num_classes must be at least 1; got 0"),
        ((26, 10, 0), "in_channels must be at least 1; got 0"),
    ],
)
def test_bad_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        bit_resnet(*arguments)
    with pytest.raises(ValueError, match=r"width must make .* a multiple of 32; got 0.3"):
        bit_resnet(26, 10, width=0.3)
