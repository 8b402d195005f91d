"""The networks of the fidelity study, for any image of yours."""

import pytest
import torch

from smallnets.models import RowReader, named, preact_resnet


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_preactivation_network_takes_other_sizes_and_starts_like_the_published_one(norm):
    torch.manual_seed(0)
    network = preact_resnet(8, 5, in_channels=1, norm=norm)
    assert network(torch.randn(2, 1, 19, 23)).shape == (2, 5)
    assert network.stage_names == ("stage1", "stage2", "stage3")
    weight = network.stage3[0].residual[5].weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)


def test_layer_norm_gives_the_same_outputs_in_training_and_evaluation():
    network, images = preact_resnet(8, 5, norm="layer"), torch.randn(3, 3, 16, 16)
    assert torch.equal(network.train()(images), network.eval()(images))


@pytest.mark.parametrize("name", ["lenet-5", "vgg-16", "preresnet-20", "preresnet-47", "convnet-4"])
def test_names(name):
    network = named(name, 7, 1)
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg-19", 10), r"network must be .*vgg-16, .*; got 'vgg-19'"),
        (("lenet-4", 10), r"network must be .*; got 'lenet-4'"),
        (("preresnet-50", 10), r"depth must be 6n \+ 2 below 44 and 9n \+ 2 from there; got 50"),
    ],
)
def test_other_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        named(*arguments)


def test_norm_is_refused_where_there_is_no_choice():
    with pytest.raises(ValueError, match=r"norm can be given for convnet and preresnet; got 'l"):
        named("wrn-10-1", 10, norm="layer")
    with pytest.raises(ValueError, match=r"norm must be one of batch, layer; got 'group'"):
        named("preresnet-20", 10, norm="group")


def test_row_reader_reads_rows_in_order():
    torch.manual_seed(0)
    network = RowReader(6, 4, in_channels=3, width=5)
    images = torch.randn(2, 3, 7, 5)
    assert network(images).shape == (2, 4)
    assert not torch.allclose(network(images), network(images.flip(2)))
    images.requires_grad_()
    network(images).sum().backward()
    assert all((images.grad != 0).flatten(1).any(dim=1))
