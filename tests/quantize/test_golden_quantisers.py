"""The quantisers against numbers computed by public implementations of the papers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from smallnets.quantize.adaround import (
    beta_schedule,
    hard_codes,
    rectified_sigmoid,
    rectified_sigmoid_inverse,
    rounding_regulariser,
    soft_start,
    soft_weights,
)
from smallnets.quantize.binary import (
    binary_product,
    binary_weights,
    filter_scale,
    pack_signs,
    sign,
    xnor_latent,
)
from smallnets.quantize.dorefa import dorefa_activations, dorefa_gradients, dorefa_weights
from smallnets.quantize.lsq import lsq, lsq_gradient_factor, lsq_start
from smallnets.quantize.pact import pact
from smallnets.quantize.power_of_two import power_of_two, power_range
from smallnets.quantize.rounding import integer_range
from smallnets.quantize.ternary import best_ternary, ttq, twn
from smallnets.quantize.uniform import (
    affine_grid,
    dequantize,
    fake_quantize,
    nearest_codes,
    search_grid,
    symmetric_grid,
)

Arrays = dict[str, np.ndarray]
BITS = (2, 3, 4, 8)


@pytest.fixture(scope="module")
def book(golden: Callable[[str], Arrays]) -> Arrays:
    return golden("01-resource-efficient")


@pytest.fixture(scope="module")
def genie(golden: Callable[[str], Arrays]) -> Arrays:
    return golden("09-genie")


def close(result: Any, expected: np.ndarray, tolerance: float = 1e-9) -> None:
    values = torch.as_tensor(result).detach().numpy().astype(np.float64).reshape(expected.shape)
    np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance / 1000)


def leaf(array: np.ndarray) -> Tensor:
    return torch.tensor(array, requires_grad=True)


def gradients(output: Tensor, upstream: np.ndarray, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output, inputs, torch.tensor(upstream))


@pytest.mark.parametrize("bits", [1, *BITS])
@pytest.mark.parametrize(
    ("name", "scale"), [("dorefa_paper", "unit"), ("dorefa_scaled_variant", "largest")]
)
def test_dorefa_weights(book: Arrays, name: str, scale: str, bits: int) -> None:
    w = leaf(book["in/w"])
    output = dorefa_weights(w, bits, scale)
    close(output, book[f"{name}/w{bits}/fwd"])
    close(gradients(output, book["in/gw"], w)[0], book[f"{name}/w{bits}/grad"])


@pytest.mark.parametrize("bits", [1, *BITS])
def test_dorefa_activations(book: Arrays, bits: int) -> None:
    a = leaf(book["in/a"])
    output = dorefa_activations(a, bits)
    close(output, book[f"dorefa/a{bits}/fwd"])
    close(gradients(output, book["in/ga"], a)[0], book[f"dorefa/a{bits}/grad"])


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_dorefa_gradients(book: Arrays, bits: int) -> None:
    noisy = torch.tensor(book["dorefa/g/in"]), torch.tensor(book["dorefa/g/u"])
    close(dorefa_gradients(noisy[0], bits, noisy[1]), book[f"dorefa/g/{bits}"])


def test_any_precision_weights_and_activations(golden: Callable[[str], Arrays]) -> None:
    arrays = golden("08-vertical-layering")
    for index, bits in enumerate(arrays["ap_bits"].tolist()):
        w = leaf(arrays["ap_w"])
        output = dorefa_weights(w, bits, "mean")
        close(output, arrays["ap_w_out"][index], 1e-5)
        gradient = gradients(output, arrays["ap_u"], w)[0].numpy()
        expected = arrays["ap_w_grad"][index]
        assert np.abs(gradient - expected).max() <= 1e-5 * np.abs(expected).max()
        close(
            dorefa_activations(torch.tensor(arrays["ap_x"]), bits), arrays["ap_a_out"][index], 1e-5
        )


@pytest.mark.parametrize("bits", [1, *BITS])
def test_pact(book: Arrays, bits: int) -> None:
    for index, level in enumerate(book["pact/alphas"].tolist()):
        a, alpha = leaf(book["in/a"]), torch.tensor(level, dtype=torch.float64, requires_grad=True)
        output = pact(a, alpha, bits)
        key = f"pact/a{bits}/alpha{index}"
        close(output, book[f"{key}/fwd"])
        to_a, to_alpha = gradients(output, book["in/ga"], a, alpha)
        close(to_a, book[f"{key}/grad_x"])
        close(to_alpha, book[f"{key}/grad_alpha"])


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", ["pt", "pc", "s_given"])
def test_lsq_weights(book: Arrays, bits: int, kind: str) -> None:
    low, high = integer_range(bits)
    w = leaf(book["in/w"])
    if kind == "s_given":
        start = torch.tensor(book["lsq/s_given"])
    else:
        start = lsq_start(w, high, per_channel=kind == "pc")
        close(start, book[f"lsq/w{bits}/{kind}/s_init"])
    step = start.clone().requires_grad_()
    output = lsq(w, step, low, high, lsq_gradient_factor(w.numel(), high))
    close(output, book[f"lsq/w{bits}/{kind}/fwd"])
    to_w, to_step = gradients(output, book["in/gw"], w, step)
    close(to_w, book[f"lsq/w{bits}/{kind}/grad_w"])
    close(to_step, book[f"lsq/w{bits}/{kind}/grad_s"])


@pytest.mark.parametrize("bits", BITS)
def test_lsq_activations(book: Arrays, bits: int) -> None:
    low, high = integer_range(bits, signed=False)
    a = leaf(book["in/a"])
    step = lsq_start(a, high)
    close(step, book[f"lsq/a{bits}/s_init"])
    step.requires_grad_()
    output = lsq(a, step, low, high, lsq_gradient_factor(a.numel(), high))
    close(output, book[f"lsq/a{bits}/fwd"])
    to_a, to_step = gradients(output, book["in/ga"], a, step)
    close(to_a, book[f"lsq/a{bits}/grad_x"])
    close(to_step, book[f"lsq/a{bits}/grad_s"])


@pytest.mark.parametrize("kind", ["tensor", "filter"])
def test_ternary_weights(book: Arrays, kind: str) -> None:
    w = leaf(book["in/w"])
    ternary = twn(w, per_filter=kind == "filter")
    close(ternary.threshold, book[f"twn/{kind}/delta"])
    close(ternary.scale, book[f"twn/{kind}/alpha"])
    close(ternary.values, book[f"twn/{kind}/fwd"])
    close(gradients(ternary.values, book["in/gw"], w)[0], book["in/gw"])


def test_the_rule_of_ternary_weights_is_nearly_the_best(book: Arrays) -> None:
    w = torch.tensor(book["in/w"])
    best = best_ternary(w)
    assert int((best.values != 0).sum()) == int(book["twn/optimal/n_nonzero"][0])
    close(best.scale, book["twn/optimal/alpha"])
    close((w - best.values).square().sum(), book["twn/optimal/sq_error"])
    close((w - twn(w).values).square().sum(), book["twn/tensor/sq_error"])


@pytest.mark.parametrize("case", [0, 1, 2])
def test_trained_ternary_quantisation(book: Arrays, case: int) -> None:
    ratio, plus, minus = book[f"ttq/{case}/settings_t_wp_wn"].tolist()
    w, wp, wn = leaf(book["in/w"]), leaf(np.array([plus])), leaf(np.array([minus]))
    output = ttq(w, wp, wn, ratio)
    close(output, book[f"ttq/{case}/fwd"], 1e-6)
    to_w, to_plus, to_minus = gradients(output, book["in/gw"], w, wp, wn)
    # The reference holds its two sizes in single precision.
    close(to_w, book[f"ttq/{case}/grad_latent"], 1e-6)
    close(to_plus, book[f"ttq/{case}/grad_wp"])
    close(to_minus, book[f"ttq/{case}/grad_wn_true_derivative"])
    published = ttq(w, wp, wn, ratio, published_sign=True)
    close(gradients(published, book["in/gw"], wn)[0], book[f"ttq/{case}/grad_wn_as_published"])


def test_signs(book: Arrays) -> None:
    for name, upstream in (("w", "in/gw"), ("a", "in/ga")):
        x = leaf(book[f"in/{name}"])
        output = sign(x)
        close(output, book[f"bnn/{name}_sign"])
        close(gradients(output, book[upstream], x)[0], book[f"bnn/{name}_ste_grad"])


def test_binary_weights_by_filter(book: Arrays) -> None:
    w = torch.tensor(book["in/w"])
    close(filter_scale(w), book["bwn/filter_alpha"])
    close(binary_weights(w), book["bwn/filter_fwd"])


def test_xnor_weights(book: Arrays) -> None:
    latent = xnor_latent(torch.tensor(book["in/w"]))
    close(latent, book["xnor/latent_after_center_clamp"])
    latent.requires_grad_()
    output = binary_weights(latent)
    close(output, book["xnor/weight_binarised"])
    (gradient,) = gradients(output, book["in/gw"], latent)
    close(gradient, book["xnor/latent_grad_without_extra_factor"])
    # The public implementation multiplies by one more factor, which is not a derivative.
    factor = (1 - 1 / latent.shape[1]) * latent[0].numel()
    close(gradient * factor, book["xnor/latent_grad_reimplementation"])


def test_products_of_signs_count_bits(book: Arrays) -> None:
    a, b = (torch.tensor(book[f"popcount/{name}"]) for name in "ab")
    product = binary_product(pack_signs(a), pack_signs(b), a.shape[1])
    np.testing.assert_array_equal(product, book["popcount/dot"])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["tensor", "channel"])
def test_affine_grids(book: Arrays, bits: int, kind: str) -> None:
    w = torch.tensor(book["in/w"])
    step, zero = affine_grid(w, bits, per_channel=kind == "channel")
    key = f"affine/{bits}/{kind}"
    close(1 / step, book[f"{key}/scale_multiplier"])
    close(-zero, book[f"{key}/zero_point_subtracted"])
    codes = nearest_codes(w, step, 0, 2**bits - 1, zero)
    np.testing.assert_array_equal(codes, book[f"{key}/q"])
    close(dequantize(codes, step, zero), book[f"{key}/dequant"])
    close(fake_quantize(w, step, 0, 2**bits - 1, zero), book[f"{key}/dequant"])


@pytest.mark.parametrize("bits", [4, 8])
def test_symmetric_grids(book: Arrays, bits: int) -> None:
    w = torch.tensor(book["in/w"])
    step = symmetric_grid(w, bits)
    close(1 / step, book[f"symmetric/{bits}/scale_multiplier"])
    _, high = integer_range(bits)
    codes = nearest_codes(w, step, -high, high)
    np.testing.assert_array_equal(codes, book[f"symmetric/{bits}/q"])
    close(dequantize(codes, step), book[f"symmetric/{bits}/dequant"])


@pytest.mark.parametrize("bits", [3, 4, 5])
def test_powers_of_two(book: Arrays, bits: int) -> None:
    w = leaf(book["in/w"])
    assert power_range(w, bits) == tuple(book[f"pow2/{bits}/n1_n2"].astype(int))
    output = power_of_two(w, bits)
    close(output, book[f"pow2/{bits}/fwd"])
    close(gradients(output, book["in/gw"], w)[0], book["in/gw"])


@pytest.mark.parametrize("bits", [2, 4])
def test_searched_grids_of_weights(genie: Arrays, bits: int) -> None:
    w = torch.tensor(genie["w"])
    step, zero = search_grid(w, bits)
    close(step, genie[f"w{bits}_scale"])
    np.testing.assert_array_equal(zero, genie[f"w{bits}_zero"])
    close(fake_quantize(w, step, 0, 2**bits - 1, zero), genie[f"w{bits}_nearest"])


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("kind", ["signed", "unsigned"])
def test_searched_grids_of_activations(genie: Arrays, bits: int, kind: str) -> None:
    x = torch.tensor(genie[f"act_{kind}"])
    step, _ = search_grid(x, bits, symmetric=True, signed=kind == "signed", per_channel=False)
    close(step, genie[f"a{bits}_{kind}_scale"])


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("kind", ["signed", "unsigned"])
def test_learned_steps_without_a_factor(genie: Arrays, bits: int, kind: str) -> None:
    x, step = leaf(genie[f"act_{kind}"]), leaf(genie[f"aq{bits}_{kind}_scale"])
    low, high = integer_range(bits, signed=kind == "signed")
    output = lsq(x, step, low, high)
    close(output, genie[f"aq{bits}_{kind}_out"])
    to_x, to_step = gradients(output, np.cos(3 * genie[f"act_{kind}"] + 0.5), x, step)
    close(to_step, genie[f"aq{bits}_{kind}_ds"])
    # On a limit (zeros after a ReLU) the reference passes nothing; here the limit is inside.
    free = (x != low * step).expand_as(x).detach().numpy()
    close(to_x[free], genie[f"aq{bits}_{kind}_dx"][free])
    assert free.all() == (kind == "signed")


def test_soft_bits(genie: Arrays) -> None:
    logit = leaf(genie["rs_logit"])
    value = rectified_sigmoid(logit)
    close(value, genie["rs_value"])
    close(gradients(value, np.ones(len(value)), logit)[0], genie["rs_grad"])
    close(rectified_sigmoid_inverse(torch.tensor(genie["rs_frac"])), genie["rs_inverse"])


def test_the_regulariser_of_soft_bits(genie: Arrays) -> None:
    for index, beta in enumerate(genie["reg_beta"].tolist()):
        logit = leaf(genie["reg_logit"])
        value = rounding_regulariser(rectified_sigmoid(logit), beta)
        close(value, genie["reg_value"][index])
        close(torch.autograd.grad(value, logit)[0], genie["reg_grad"][index], 1e-8)


def test_the_schedule_of_beta(genie: Arrays) -> None:
    total = int(genie["temp_max"])
    betas = [beta_schedule(iteration, total) for iteration in genie["temp_iter"].tolist()]
    close(torch.tensor(betas, dtype=torch.float64), genie["temp_value"])


@pytest.mark.parametrize("bits", [2, 4])
def test_soft_weights(genie: Arrays, bits: int) -> None:
    step, zero = (torch.tensor(genie[f"w{bits}_{name}"]) for name in ("scale", "zero"))
    base, logits = soft_start(torch.tensor(genie["w"]), step)
    np.testing.assert_array_equal(base, genie[f"wq{bits}_base"])
    close(logits, genie[f"wq{bits}_logit0"], 1e-8)
    high = 2**bits - 1
    close(soft_weights(base, logits, step, zero, high), genie[f"wq{bits}_soft0"])
    moved = (logits + torch.tensor(genie["wq_dlogit"])).requires_grad_()
    wider = (step * torch.tensor(genie["wq_scale_factor"])).requires_grad_()
    soft = soft_weights(base, moved, wider, zero, high)
    close(soft, genie[f"wq{bits}_soft"])
    to_step, to_logits = gradients(soft, genie["wq_upstream"], wider, moved)
    close(to_step, genie[f"wq{bits}_dscale"])
    close(to_logits, genie[f"wq{bits}_dlogit"])
    close(dequantize(hard_codes(base, moved, zero, high), wider, zero), genie[f"wq{bits}_hard"])
