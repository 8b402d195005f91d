"""A network in whole numbers against the fake-quantised one."""

import pytest
import torch
from torch import nn

from smallnets.models import convnet
from smallnets.quantize import modules as q
from smallnets.quantize.integer import (
    fixed_point,
    largest_differences,
    rescale,
    to_integer,
    whole_biases,
)
from smallnets.surgery import recalibrate
from smallnets.training import seeded

X = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def strided():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.Conv2d(8, 12, 1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(108, 20), nn.Dropout(),
        nn.Linear(20, 5),
    )  # fmt: skip


class Functions(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 25, 3)

    def forward(self, x):
        return self.head(torch.flatten(torch.relu(self.conv(x))[..., :5, :5], 1))


NETWORKS = {"convnet": lambda: convnet(6, 5, depth=2), "strided": strided}
KINDS = {
    "8 bits": ("symmetric", "affine", 8, 8),
    "zero points": ("affine", "search", 8, 8),
    "learned steps": ("lsq", "lsq", 4, 4),
    "between codes": ("dorefa_scaled", "affine", 3, 8),
    "ternary": ("twn", "lsq", None, 6),
    "signs": ("bwn", "affine", None, 8),
}


@pytest.fixture(params=NETWORKS)
def model(request):
    with seeded(0):
        return recalibrate(NETWORKS[request.param]().eval(), [X])


def converted(model, kind):
    weights, activations, weight_bits, activation_bits = KINDS[kind]
    return q.quantize_after_training(
        model, X, weight_bits, activation_bits, weights=weights, activations=activations, fold=True
    )


@pytest.mark.parametrize("kind", ["8 bits", "zero points"])
def test_whole_numbers_are_within_one_step_everywhere(model, kind):
    network = converted(model, kind)
    integer = to_integer(network, X)
    found = largest_differences(integer, network, X)
    assert set(found) == {*(layer.name for layer in integer.layers), "output"}
    assert max(found.values()) <= 1
    codes = integer.codes(X)
    assert all(one.dtype == torch.int32 for one in codes.values())
    assert len(codes["output"].unique()) > 10
    step = float(integer.layers[-1].taken.scale)
    assert float((integer(X) - network(X)).detach().abs().max()) <= 1.51 * step


@pytest.mark.parametrize("kind", KINDS)
def test_at_any_width_only_roundings_of_biases_differ(model, kind):
    network = whole_biases(converted(model, kind)).double()
    assert (
        max(largest_differences(to_integer(network, X.double()), network, X.double()).values()) <= 1
    )


def test_multipliers_are_31_bits_and_a_shift():
    values = torch.tensor([0.75, 1.0, 3e-9, 0.3, 2.0 - 2**-40, 1e8], dtype=torch.float64)
    whole, shift = fixed_point(values)
    assert bool(((whole >= 2**30) & (whole < 2**31)).all())
    torch.testing.assert_close(whole * torch.exp2(-shift.double()), values, rtol=2**-30, atol=0)
    for bad in (0.0, -1.0, torch.nan, 2.0**30):
        with pytest.raises(ValueError, match=r"multipliers must be above 0 and below 2\^30; got"):
            fixed_point(torch.tensor([bad]))


def test_rescaling_is_rounding_of_the_product():
    sums = torch.tensor([-(2**31) + 1, -7, 0, 5, 12345, 2**31 - 1])
    for value in (0.4999, 0.001, 1e-12, 1e-30):
        whole, shift = fixed_point(torch.tensor(value, dtype=torch.float64))
        wanted = torch.floor(sums.double() * value + 0.5).long()
        assert int((rescale(sums, whole, shift) - wanted).abs().max()) <= 1
    whole, shift = fixed_point(torch.tensor(0.5))
    assert rescale(torch.tensor([-3, -1, 1, 3]), whole, shift).tolist() == [-1, 0, 1, 2]


def quantised(*layers, weights="symmetric", activations="affine", bits=8):
    made = q.quantize_model(
        nn.Sequential(*layers), weights, activations, weight_bits=bits,
        activation_bits=None if activations == "sign" else bits, skip=(),
    )  # fmt: skip
    return q.calibrate(made.eval(), X)


def test_what_cannot_be_whole_numbers():
    conv, head = nn.Conv2d(3, 4, 3), nn.Linear(400, 3)
    cases = [
        (quantised(conv, nn.BatchNorm2d(4)), r"layer '1' is BatchNorm2d"),
        (quantised(nn.ReLU(), conv), r"must begin with a quantised layer; got Pooling"),
        (quantised(conv, nn.Flatten(), head, bits=9), r"at most 8 bits; got 9 and 9"),
        (quantised(conv, weights="power_of_two"), r"must lie on an even grid; they have a table"),
        (quantised(conv, activations="sign"), r"grid with 0 on it; SignAct has none"),
        (quantised(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")), r"zeros; got 'reflect'"),
        (nn.Sequential(nn.ReLU()), r"must begin with a quantised layer"),
    ]
    for network, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            to_integer(network, X)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="output_bits must be between 1 and 16; got 17"):
        to_integer(quantised(conv), X, 17)
    fresh = q.quantize_model(
        nn.Sequential(conv, nn.ReLU()), weight_bits=8, activation_bits=8, skip=()
    ).eval()
    with pytest.raises(ValueError, match="LSQAct has no start yet"):
        to_integer(fresh, X)


def test_a_bias_beyond_32_bits_and_sums_beyond_them():
    network = quantised(nn.Conv2d(3, 4, 3))
    network[0].bias.data[1] = 1e9
    with pytest.raises(ValueError, match=r"the bias of layer '0' must fit into 32 bits"):
        to_integer(network, X)
    network[0].bias.data[1] = 0
    network[0].weight.data[2].abs_()
    network[0].bias.data[2] = float(0.99999 * 2**31 * _unit(network[0])[2])
    whole = to_integer(network, X)
    with pytest.raises(ValueError, match=r"sums of layer '0' must fit into 32 bits; got one of"):
        whole(100 * X.abs())


def _unit(layer):
    return layer.a_quant.grid().scale * layer.weight_codes().scale.flatten()


def test_steps_that_read_two_tensors_are_refused():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(x) + x

    network = q.quantize_model(Sum(), weight_bits=8, activation_bits=8, skip=())
    with pytest.raises(ValueError, match=r"a chain in which each step reads the one before; add"):
        to_integer(q.calibrate(network.eval(), X), X)
    with pytest.raises(ValueError, match=r"relu and flatten\(1\) as functions .* is getitem"):
        to_integer(q.quantize_model(Functions(), weight_bits=8, activation_bits=8, skip=()), X)
