"""Modules in other places, and layers that cannot be changed."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from smallnets.surgery import check_plain, check_untied, places_of, replace_module


def test_a_module_is_replaced_wherever_it_stands():
    shared = nn.Linear(3, 3)
    network = nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared))
    network.again = shared
    fresh = nn.Identity()
    replace_module(network, "1.1", fresh)
    assert network[0] is network[1][1] is network.again is fresh


def test_places_of_a_module():
    shared, other = nn.Linear(3, 3), nn.ReLU()
    network = nn.Sequential(shared, nn.Sequential(other, shared))
    assert places_of(network, [other, shared]) == [
        [(network[1], "0")],
        [(network, "0"), (network[1], "1")],
    ]
    with pytest.raises(ValueError, match=r"^the network must hold its layers; got a single layer$"):
        replace_module(shared, "", other)


def whole_numbers(layer):
    layer.weight = nn.Parameter(torch.ones(4, 3, dtype=torch.int8), requires_grad=False)
    return layer


def parametrised_bias(layer):
    parametrize.register_parametrization(layer, "bias", nn.Tanh())
    return layer


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: parametrizations.weight_norm(nn.Linear(3, 4)), "weight of .* it is computed"),
        (lambda: nn.utils.weight_norm(nn.Linear(3, 4)), "weight of .* it is computed"),
        (lambda: parametrizations.spectral_norm(nn.Linear(3, 4)), "weight of .* it is computed"),
        (lambda: nn.utils.spectral_norm(nn.Linear(3, 4)), "weight of .* it is computed"),
        (lambda: parametrizations.orthogonal(nn.Linear(3, 4)), "weight of .* it is computed"),
        (lambda: prune.random_unstructured(nn.Linear(3, 4), "weight", 0.5), "it is computed"),
        (lambda: parametrised_bias(nn.Linear(3, 4)), "bias of .* it is computed"),
        (lambda: nn.BatchNorm2d(4, affine=False), r"it is missing \(as in a norm"),
        (lambda: nn.LazyLinear(4), "it is not there yet: run the network once"),
        (lambda: nn.Linear(3, 4, dtype=torch.complex64), "it is torch.complex64"),
        (lambda: whole_numbers(nn.Linear(3, 4)), "it is torch.int8"),
        (lambda: Scaled(3, 4), "must compute as Linear does; Scaled has a forward pass of its own"),
    ],
)
def test_layers_whose_weights_are_more_than_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message) as error:
        check_plain("body.3", make(), kind=nn.Linear)
    assert "layer 'body.3'" in str(error.value)
    assert "\n" not in str(error.value)


def test_plain_layers_pass():
    for layer in (nn.Linear(3, 4), nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)):
        check_plain("layer", layer)
    check_plain("layer", nn.Linear(3, 4), kind=nn.Linear)


def test_tied_weights_are_found():
    network = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 3), nn.Linear(3, 5, bias=False))
    check_untied(network, ["0", "1", "2"])
    network[2].weight = network[0].weight
    check_untied(network, ["1"])
    with pytest.raises(ValueError, match=r"^layer '2' must have parameters of its own; .* '0'$"):
        check_untied(network, ["2"])
