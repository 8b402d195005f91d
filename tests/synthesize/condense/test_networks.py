"""The ConvNet family and the other networks, each with an embedding."""

import pytest
import torch
from torch import nn

from smallnets import measure
from smallnets.synthesize import condense as dm


def test_default_has_the_published_size():
    network = dm.ConvNet(10)
    assert measure.parameters(network) == 320_010
    assert network.dimension == 2048
    assert dm.published_depth((32, 32)) == 3
    assert dm.published_depth((64, 64)) == 4
    assert dm.Fresh(200, 3, (64, 64))().dimension == 2048  # 8192 with three blocks


def test_space_holds_720_different_networks():
    space = dm.convnet_space()
    assert len(set(space)) == 720
    assert {spec.activation for spec in space} == {"sigmoid", "relu", "leaky_relu"}
    assert str(space[0]) == "1-32-sigmoid-none-none"


@pytest.mark.parametrize("name", ["AlexNet", "AlexNetBN", "VGG11", "VGG11BN", "ResNet18",
                                  "ResNet18BN", "ResNet18_AP", "ResNet18BN_AP", "MLP", "LeNet",
                                  "ConvNetD2W32ASwishLNMP", "ConvNetGN", "ConvNetNN"])  # fmt: skip
def test_logits_are_the_classifier_of_the_embedding(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = dm.network(name, 5, 3, (32, 32)).eval()
        x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = network.embed(x)
        assert torch.equal(network.classifier(found), network(x))
    assert dm.check_embeds(network, x) == found.shape[1]
    assert dm.couples_examples(network.train()) == name.replace("_AP", "").endswith("BN")


def test_building_leaves_batch_norm_unused():
    network = dm.network("VGG11BN", 3, 3, (32, 32))
    norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    assert all(int(norm.num_batches_tracked) == 0 for norm in norms)
    assert all(bool((norm.running_mean == 0).all()) for norm in norms)


def test_images_that_leave_more_than_one_position_are_embedded_apart():
    for name, side in (("ResNet18_AP", 16), ("ResNet18BN_AP", 8), ("VGG11BN", 32)):
        network = dm.network(name, 3, 3, (side, side)).eval()
        with torch.no_grad():
            one, other = network.embed(torch.randn(2, 3, side, side))
        assert not torch.allclose(one, other)
        assert not any(module._forward_pre_hooks for module in network.modules())


def test_grey_images_of_28_pixels_are_padded_and_others_are_not():
    assert dm.ConvNet(10, 1, (28, 28)).dimension == 2048
    assert dm.ConvNet(10, 1, (16, 16), dm.ConvNetSpec(depth=2, width=8)).dimension == 8 * 16
    assert dm.ConvNet(10, 3, (28, 28)).dimension == 128 * 9


@pytest.mark.parametrize("norm", dm.NORMS)
@pytest.mark.parametrize("pooling", dm.POOLINGS)
@pytest.mark.parametrize("activation", dm.ACTIVATIONS)
def test_every_member_embeds(norm, pooling, activation):
    spec = dm.ConvNetSpec(2, 4, activation, norm, pooling)
    network = dm.ConvNet(3, 2, (9, 8), spec)
    assert network.embed(torch.randn(2, 2, 9, 8)).shape == (2, network.dimension)


def test_bad_specifications_are_refused_in_one_line():
    for call, words in (
        (lambda: dm.ConvNet(10, 3, (16, 16), dm.ConvNetSpec(depth=5)), "depth must be at most 4"),
        (lambda: dm.ConvNet(0), "num_classes must be at least 1"),
        (lambda: dm.ConvNetSpec(depth=0), "depth must be at least 1"),
        (lambda: dm.ConvNetSpec(width=2.5), "width must be a whole number"),
        (lambda: dm.ConvNetSpec(norm="spectral"), "norm must be one of none, batch"),
        (lambda: dm.ConvNetSpec(activation="tanh"), "activation must be one of"),
        (lambda: dm.ConvNetSpec(pooling="sum"), "pooling must be one of"),
        (lambda: dm.ConvNetSpec(width=6, norm="group"), "multiple of 4 with norm 'group'; got 6"),
        (lambda: dm.network("DenseNet", 10), "network must be one of MLP, LeNet.*got 'DenseNet'"),
        (lambda: dm.network("ConvNetD9", 10), "depth must be at most 5"),
        (lambda: dm.network("LeNet", 10, 3, (8, 8)), "LeNet does not take images of 3x8x8"),
        (
            lambda: dm.network("ResNet18_AP", 10, 3, (8, 8)),
            "images of 3x8x8: an instance norm would see maps of 1x1 and make all images alike",
        ),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_embedding_networks_of_your_own_are_checked():
    x = torch.randn(2, 3, 8, 8)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert dm.check_embeds(dm.Embedded(body), x) == 4 * 36

    class Odd(nn.Module):
        def __init__(self, result):
            super().__init__()
            self.result = result

        def embed(self, x):
            return self.result

    for network, words in (
        (body, "must have a method embed.*got Sequential: wrap it as Embedded"),
        (Odd(torch.zeros(2)), r"must give \(images, D\) for 2 images; got \(2,\)"),
        (Odd(None), "got NoneType"),
        (Odd(torch.full((2, 3), torch.nan)), "finite numbers"),
        (dm.ConvNet(3, 1, (8, 8), dm.ConvNetSpec(2, 4)), "does not take images of shape"),
    ):
        with pytest.raises(ValueError, match=words):
            dm.check_embeds(network, x)
