"""Low rank, Tucker-2, CP, separable, tensor trains, circulant: exact where they can be, best or
better with each sweep where they cannot, and of the cost that is said.
"""

import math
from functools import partial

import pytest
import torch
from torch import nn

from smallnets import measure
from smallnets.structure import (
    CP,
    BasisConv2d,
    CirculantLinear,
    CPConv2d,
    LowRankConv2d,
    LowRankLinear,
    RankRule,
    SeparableConv2d,
    TTLinear,
    Tucker2Conv2d,
    balanced_modes,
    circulant_matrix,
    cp,
    dense_cost,
    energy_rank,
    fft_macs,
    nearest_circulant,
    separable_kernel,
    share_rank,
    truncation_error,
    tt_cores,
    tt_matrix,
    tucker2,
)
from smallnets.structure.layers import steps_of


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(layer, seed=3):
    return drawn(2, layer.in_channels, 9, 8, seed=seed)


KINDS = [LowRankConv2d, BasisConv2d, Tucker2Conv2d, SeparableConv2d]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_full_rank_is_exact_and_cut_rank_is_what_its_dense_form_computes(kind, convolutions):
    for layer in convolutions:
        if kind is SeparableConv2d and layer.groups > 1:
            continue
        x, full = inputs(layer), kind.full(layer)
        torch.testing.assert_close(kind.from_conv(layer, *full)(x), layer(x))
        cut = kind.from_conv(layer, *(max(1, rank // 2) for rank in full))
        assert not torch.allclose(cut(x), layer(x))
        torch.testing.assert_close(cut.dense()(x), cut(x))


def test_full_rank_of_a_linear_layer_is_exact_and_cut_rank_is_the_best():
    layer = nn.Linear(7, 5, dtype=torch.float64)
    x = drawn(3, 2, 7)
    torch.testing.assert_close(LowRankLinear.from_linear(layer, 5)(x), layer(x))
    cut = LowRankLinear.from_linear(layer, 2)
    torch.testing.assert_close(cut.dense()(x), cut(x))
    (spectrum,) = LowRankLinear.spectra(layer)
    error = torch.linalg.norm(layer.weight - cut.dense().weight)
    torch.testing.assert_close(error, truncation_error(spectrum, 2))
    assert measure.parameters(cut) == 2 * (7 + 5) + 5


def test_the_reshape_decides_the_cost():
    """Of one rank, few filters and few kernels cost something else; both as counted."""
    layer = nn.Conv2d(8, 12, 3, padding=1, bias=False)
    for kind, weights, macs in (
        (LowRankConv2d, 2 * (8 * 9 + 12), 2 * (8 * 9 + 12)),
        (BasisConv2d, 2 * (9 + 8 * 12), 2 * (8 * 9 + 8 * 12)),
    ):
        made = kind.from_conv(layer, 2)
        assert kind.cost(layer, 2) == (weights, macs)
        assert measure.parameters(made) == weights
        assert measure.macs(made, (8, 4, 4)) == 16 * macs


@pytest.mark.parametrize(
    ("kind", "ranks"),
    [(LowRankConv2d, (2,)), (BasisConv2d, (2,)), (Tucker2Conv2d, (3, 2)), (CPConv2d, (3,)),
     (SeparableConv2d, (2,))],
)  # fmt: skip
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_costs_are_those_of_the_counter(kind, ranks, stride, groups):
    if groups > 1 and kind in (CPConv2d, SeparableConv2d):
        groups = 1
    layer = nn.Conv2d(8, 12, 3, stride, padding=1, groups=groups, bias=False)
    made, cost = kind.from_conv(layer, *ranks), kind.cost(layer, *ranks)
    assert steps_of(layer) == stride**2
    assert measure.parameters(made) == cost.weights
    assert measure.macs(made, (8, 8, 8)) == cost.macs * (8 // stride) ** 2


def test_sweeps_of_tucker_never_make_it_worse_and_mostly_better():
    weight = drawn(6, 5, 3, 3)
    errors = [
        float(torch.linalg.norm(weight - tucker2(weight, 3, 2, sweeps).dense()))
        for sweeps in (0, 1, 2, 10)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] - 1e-3


def test_bases_of_tucker_are_orthonormal():
    found = tucker2(drawn(2, 6, 5, 3, 3), 3, 2, 1)
    for basis in (found.outputs, found.inputs):
        eye = torch.eye(basis.shape[-1], dtype=torch.float64).expand(2, -1, -1)
        torch.testing.assert_close(basis.mT @ basis, eye)


def test_cp_finds_a_weight_that_is_one():
    factors = CP(drawn(6, 2), drawn(5, 2, seed=1), drawn(9, 2, seed=2))
    found = cp(factors.dense(), 2, 200)
    torch.testing.assert_close(found.dense(), factors.dense(), rtol=1e-4, atol=1e-4)


def test_sweeps_of_cp_make_it_better():
    tensor = drawn(6, 5, 9)
    errors = [float(torch.linalg.norm(tensor - cp(tensor, 8, n).dense())) for n in (1, 5, 40)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] - 1e-3
    torch.testing.assert_close(cp(tensor, 8, 5), cp(tensor, 8, 5), rtol=0, atol=0)


def test_a_cp_convolution_is_its_dense_form(convolutions):
    for layer in convolutions:
        if layer.groups == 1:
            made, x = CPConv2d.from_conv(layer, 7), inputs(layer)
            torch.testing.assert_close(made.dense()(x), made(x))
    exact = CPConv2d.from_conv(convolutions[0], *CPConv2d.full(convolutions[0]), 5)
    x = inputs(convolutions[0])
    torch.testing.assert_close(exact(x), convolutions[0](x), rtol=1e-5, atol=1e-5)


def test_the_nearest_separable_convolution_is_that_of_an_outer_product():
    depthwise, pointwise = drawn(4, 1, 3, 3), drawn(6, 4, 1, 1, seed=1)
    layer = nn.Conv2d(4, 6, 3, padding=1, bias=False, dtype=torch.float64)
    layer.weight.data = separable_kernel(depthwise, pointwise)
    x = inputs(layer)
    by_hand = nn.functional.conv2d(
        nn.functional.conv2d(x, depthwise, padding=1, groups=4), pointwise
    )
    torch.testing.assert_close(layer(x), by_hand)
    torch.testing.assert_close(SeparableConv2d.from_conv(layer)(x), by_hand)


def test_a_tensor_train_of_full_ranks_is_exact():
    layer = nn.Linear(12, 30, dtype=torch.float64)
    x = drawn(2, 4, 12)
    exact = TTLinear.from_linear(layer, 1000, (3, 2, 2), (2, 3, 5))
    torch.testing.assert_close(exact(x), layer(x))
    cut = TTLinear.from_linear(layer, 3, (3, 2, 2), (2, 3, 5))
    torch.testing.assert_close(cut.dense()(x), cut(x))
    assert [core.shape[-1] for core in cut.cores] == [3, 3, 1]
    assert cut(x).shape == (2, 4, 30)
    assert not torch.allclose(cut(x), layer(x))


def test_the_error_of_a_tensor_train_falls_with_its_rank():
    matrix = drawn(12, 12)
    errors = [
        float(torch.linalg.norm(matrix - tt_matrix(tt_cores(matrix, (2, 3, 2), (3, 2, 2), rank))))
        for rank in (1, 2, 4, 8)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(0, abs=1e-12)


def test_costs_of_a_tensor_train_are_those_of_the_counter():
    layer = nn.Linear(24, 30, bias=False)
    made = TTLinear.from_linear(layer, 3)
    cost = TTLinear.cost(layer, 3)
    assert (measure.parameters(made), measure.macs(made, (24,))) == cost


def test_a_new_tensor_train_starts_as_wide_as_a_linear_layer():
    torch.manual_seed(0)
    made = TTLinear((4, 4, 4), (4, 4, 4), 8)
    spread = float(made.dense().weight.detach().std())
    assert spread == pytest.approx(math.sqrt(1 / (3 * 64)), rel=0.25)
    assert made.bias.abs().max() <= 64**-0.5


@pytest.mark.parametrize(
    ("size", "count", "modes"),
    [(512, 3, (8, 8, 8)), (10, 3, (5, 2, 1)), (7, 2, (7, 1)), (1, 2, (1, 1)), (360, 3, (10, 6, 6))],
)
def test_balanced_modes(size, count, modes):
    found = balanced_modes(size, count)
    assert found == modes
    assert math.prod(found) == size


@pytest.mark.parametrize("block", [None, 1, 3, 4, 8])
def test_circulant_layers_are_their_dense_form(block):
    layer = CirculantLinear(10, 7, block).double()
    x = drawn(2, 3, 10)
    torch.testing.assert_close(layer.dense()(x), layer(x))
    again = CirculantLinear.from_linear(layer.dense(), block)
    torch.testing.assert_close(again(x), layer(x))


def test_a_circulant_matrix_has_one_number_a_diagonal():
    column = drawn(5)
    matrix = circulant_matrix(column[None, None])
    for i in range(5):
        for j in range(5):
            assert matrix[i, j] == column[(i - j) % 5]


def test_the_nearest_circulant_matrix_has_the_least_error():
    matrix = drawn(6, 6)
    best = nearest_circulant(matrix, 6)
    error = (matrix - circulant_matrix(best)).square().sum()
    for place in range(6):
        for step in (-0.01, 0.01):
            other = best.clone()
            other[0, 0, place] += step
            assert (matrix - circulant_matrix(other)).square().sum() > error


def test_transforms_are_cheaper_than_the_matrix_once_it_is_large():
    assert fft_macs(1, 1, 1024) < 1024**2 / 40
    assert fft_macs(1, 1, 2) > 2**2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half(dtype):
    layer = nn.Linear(8, 8, dtype=dtype)
    x = torch.ones(2, 8, dtype=dtype)
    for made in (
        LowRankLinear.from_linear(layer, 8),
        TTLinear.from_linear(layer, 64),
        CirculantLinear.from_linear(layer, 1),
    ):
        assert {one.dtype for one in made.parameters()} == {dtype}
        assert made(x).dtype == dtype
        torch.testing.assert_close(made(x), layer(x), rtol=0.05, atol=0.05)


def test_rules_of_ranks():
    values = torch.tensor([3.0, 2.0, 1.0, 1.0])  # squares 9, 4, 1, 1 of 15
    assert [energy_rank(values, e) for e in (0.6, 0.61, 0.86, 0.87, 1)] == [1, 2, 2, 3, 4]
    assert [share_rank(10, s) for s in (0.01, 0.5, 0.51, 1)] == [1, 5, 6, 10]
    assert share_rank(70, 0.1) == 7
    layer = nn.Linear(20, 30)
    for share in (0.2, 0.5, 0.9):
        (rank,) = RankRule(cost=share)(
            partial(LowRankLinear.spectra, layer),
            LowRankLinear.full(layer),
            partial(LowRankLinear.cost, layer),
            dense_cost(layer),
        )
        assert 50 * rank <= 600 * share < 50 * (rank + 1)
