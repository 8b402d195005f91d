"""Sizes layer by layer, and fronts."""

import pytest
import torch
from torch import nn

from smallnets import measure
from smallnets.measure.layers import layer_sizes
from smallnets.measure.pareto import pareto
from smallnets.models import cifar_resnet


def test_layers_add_up_to_the_network():
    network = cifar_resnet(8, 5, width=4)
    sizes = layer_sizes(network, (3, 16, 16))
    assert sum(one.macs for one in sizes) == measure.macs(network, (3, 16, 16))
    assert sum(one.parameters for one in sizes) == measure.parameters(network)
    first = sizes[0]
    assert (first.kind, first.macs) == ("Conv2d", 256 * 3 * 4 * 9)
    assert (first.inputs, first.outputs) == (3 * 256, 4 * 256)
    assert network.training


class Own(nn.Module):
    """A product of its own beside a layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(self.inner(x)) @ self.weight


def test_own_products_and_layers_used_twice():
    sizes = {one.name: one for one in layer_sizes(Own(), (4,))}
    assert (sizes[""].macs, sizes[""].parameters) == (16, 16)
    assert (sizes["inner"].macs, sizes["inner"].parameters) == (32, 20)
    assert (sizes["inner"].inputs, sizes["inner"].outputs) == (8, 8)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert [one.parameters for one in layer_sizes(tied, (4,))] == [20, 4]
    assert layer_sizes(nn.Linear(3, 2), (3,))[0].macs == 6


class InALoop(nn.Module):
    """Calls what is in its lists, and never the lists themselves."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3)))
        self.others = nn.ModuleList([nn.Flatten(), nn.Linear(4 * 16, 2)])

    def forward(self, x):
        for layer in (*self.first, *self.others):
            x = layer(x)
        return x


def test_layers_of_a_list_that_is_not_called_are_counted_once():
    sizes = {one.name: one.macs for one in layer_sizes(InALoop(), (3, 8, 8))}
    assert sizes == {"first.0": 27 * 4 * 36, "first.1.1": 36 * 4 * 16, "others.1": 128}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 8, 7, 7), r"input_shape must be one that the network takes; got \(3, 8, 7, 7\)"),
        ((2, 8, 8), r"input_shape must be one that the network takes; got \(2, 8, 8\)"),
        ((3, 0, 8), "every side of input_shape must be at least 1; got 0"),
        ((3, True, 8), "every side of input_shape must be a whole number"),
        ((), "input_shape must be one example's sizes"),
        (3, "input_shape must be one example's sizes"),
    ],
)
def test_shapes_that_are_refused(shape, message):
    network = cifar_resnet(8, 5, width=4)
    with pytest.raises(ValueError, match=message) as error:
        layer_sizes(network, shape)
    assert "\n" not in str(error.value)
    assert not network.conv._forward_hooks


POINTS = {
    "big": {"bytes": 9, "accuracy": 0.9},
    "small": {"bytes": 2, "accuracy": 0.7},
    "beaten": {"bytes": 3, "accuracy": 0.6},
    "twin": {"bytes": 2, "accuracy": 0.7},
    "middle": {"bytes": 4, "accuracy": 0.8},
    "waste": {"bytes": 9, "accuracy": 0.85},
}


def test_what_nothing_beats():
    assert pareto(POINTS, ["bytes"], ["accuracy"]) == ["small", "twin", "middle", "big"]
    assert pareto(POINTS, most=["accuracy"]) == ["big"]
    assert pareto(POINTS, least=["bytes"]) == ["small", "twin"]
    assert pareto({}, ["bytes"]) == []


@pytest.mark.parametrize(
    ("points", "least", "most", "message"),
    [
        (POINTS, (), (), "must name something to compare by, each once; got nothing"),
        (POINTS, ["bytes"], ["bytes"], "each once; got"),
        (POINTS, "bytes", (), "must be collections of names; got a string"),
        (POINTS, ["seconds"], (), "seconds of 'big' must be a number; got None"),
        ({"a": {"x": float("nan")}}, ["x"], (), "x of 'a' must be a number; got nan"),
        ({"a": {"x": True}}, ["x"], (), "x of 'a' must be a number; got True"),
    ],
)
def test_fronts_of_nothing(points, least, most, message):
    with pytest.raises(ValueError, match=message):
        pareto(points, least, most)
