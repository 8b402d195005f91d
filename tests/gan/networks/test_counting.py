"""Costs: closed forms are what hooks count, by hand for small layers."""

import pytest
import torch
from torch import nn

from smallnets import measure
from smallnets.gan.networks.counting import (
    Cost,
    conv_cost,
    count,
    count_layers,
    linear_cost,
    norm_cost,
    separable_cost,
    total,
)
from smallnets.gan.networks.layers import SeparableConv2d
from smallnets.gan.networks.resnet import ResNetGenerator


def test_transposed_convolutions_are_published_four_times_too_high():
    layer = nn.ConvTranspose2d(3, 5, 3, 2, 1, 1)
    cost = count(layer, (3, 4, 4))
    assert cost == Cost(64 * 3 * 5 * 9, 64 * 3 * 5 * 9, 16 * 3 * 5 * 9, 3 * 5 * 9 + 5)
    assert cost == conv_cost(64, 3, 5, 3, up=4)


def test_separable_convolutions_and_norms():
    assert count(SeparableConv2d(4, 6, 3, padding=1), (4, 5, 5)) == separable_cost(25, 4, 6, 3)
    assert norm_cost(10, 3) == Cost(published=30)
    assert norm_cost(10, 3, "batch") == Cost(parameters=6)
    assert count(nn.BatchNorm2d(3), (3, 4, 4)) == Cost(parameters=6)


def test_linear_layers_are_not_in_the_published_count():
    assert count(nn.Linear(3, 4), (3,)) == linear_cost(3, 4) == Cost(0, 12, 12, 16)


def test_grouped_convolutions():
    assert count(nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 5, 5)).exact == 25 * 6 * 2 * 9
    assert count(nn.ConvTranspose2d(4, 6, 2, 2, groups=2), (4, 5, 5)).exact == 25 * 4 * 3 * 4


def test_true_count_is_that_of_torch():
    network = ResNetGenerator(ngf=4, n_blocks=2, separable=("blocks", "up"))
    assert count(network, (3, 16, 16)).exact == measure.macs(network, (3, 16, 16))


def test_a_layer_used_twice_counts_twice():
    layer = nn.Conv2d(2, 2, 1)
    once, twice = (count(nn.Sequential(*[layer] * n), (2, 3, 3)) for n in (1, 2))
    assert (twice.exact, twice.parameters) == (2 * once.exact, once.parameters)
    assert set(count_layers(nn.Sequential(layer, nn.ReLU()), (2, 3, 3))) == {"0"}


def test_costs_add_up():
    assert total([Cost(1, 2, 3, 4), Cost(4, 3, 2, 1) * 2]) == Cost(9, 8, 7, 6)
    assert total([]) == Cost()


def test_modes_and_hooks_are_left_as_they_were():
    network = ResNetGenerator(ngf=2, n_blocks=1)
    count(network, torch.zeros(1, 3, 8, 8))
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(ValueError, match="on one example; got 2"):
        count(network, torch.zeros(2, 3, 8, 8))
