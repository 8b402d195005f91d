"""Laws of the quantisers, their limits, and what they refuse."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smallnets.quantize.adaround import (
    LIMIT,
    beta_schedule,
    hard_codes,
    rectified_sigmoid,
    rectified_sigmoid_inverse,
    rounding_regulariser,
    soft_start,
    soft_weights,
)
from smallnets.quantize.binary import binary_product, binary_weights, pack_signs, sign, xnor_latent
from smallnets.quantize.dorefa import dorefa_activations, dorefa_gradients, dorefa_weights
from smallnets.quantize.lsq import lsq, lsq_gradient_factor, lsq_start
from smallnets.quantize.pact import pact
from smallnets.quantize.power_of_two import power_of_two, power_range
from smallnets.quantize.rounding import (
    floor_through,
    integer_range,
    round_stochastically,
    round_through,
    scale_gradient,
)
from smallnets.quantize.ternary import best_ternary, ttq, twn
from smallnets.quantize.uniform import (
    affine_grid,
    dequantize,
    fake_quantize,
    nearest_codes,
    search_grid,
    symmetric_grid,
)

bits_ = st.integers(2, 8)
seeds = st.integers(0, 10_000)


def weights(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (4, 3, 3, 3), generator=generator, dtype=dtype)


def test_ranges_of_codes() -> None:
    assert integer_range(8) == (-128, 127)
    assert integer_range(2, signed=False) == (0, 3)
    assert integer_range(1) == (-1, 0)


def test_rounding_goes_to_the_even_half_and_passes_gradients() -> None:
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5, 0.3], requires_grad=True)
    rounded, floored = round_through(x), floor_through(x)
    assert rounded.tolist() == [-2, 0, 0, 2, 2, 0]
    assert floored.tolist() == [-2, -1, 0, 1, 2, 0]
    for output in (rounded, floored):
        (gradient,) = torch.autograd.grad(output, x, torch.arange(6.0))
        assert gradient.tolist() == [0, 1, 2, 3, 4, 5]


def test_stochastic_rounding_is_right_on_average() -> None:
    x = torch.tensor([-1.25, 0.0, 0.3, 2.75]).repeat(20_000, 1)
    rounded = round_stochastically(x, torch.Generator().manual_seed(0))
    assert (rounded - x).abs().max() < 1
    torch.testing.assert_close(rounded.mean(0), x[0], atol=0.015, rtol=0)


def test_a_scaled_gradient_leaves_the_value() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    output = scale_gradient(x, 0.25)
    assert torch.equal(output, x)
    output.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.25, 0.25]


@given(seeds, bits_, st.booleans())
def test_affine_grids_hold_the_range(seed: int, bits: int, per_channel: bool) -> None:
    w = weights(seed) + seed % 3 - 1
    step, zero = affine_grid(w, bits, per_channel)
    quantised = fake_quantize(w, step, 0, 2**bits - 1, zero)
    assert bool(((w - quantised).abs() <= step * (0.5 + 1e-9)).all())
    assert torch.equal(fake_quantize(torch.zeros_like(w), step, 0, 2**bits - 1, zero), w * 0)
    assert len(quantised[0].unique()) <= 2**bits
    torch.testing.assert_close(fake_quantize(quantised, step, 0, 2**bits - 1, zero), quantised)


@given(seeds, bits_, st.booleans())
def test_symmetric_grids_are_odd(seed: int, bits: int, per_channel: bool) -> None:
    w = weights(seed)
    step = symmetric_grid(w, bits, per_channel)
    low, high = integer_range(bits)
    quantised = fake_quantize(w, step, low, high)
    assert bool(((w - quantised).abs() <= step * (0.5 + 1e-9)).all())
    assert torch.equal(fake_quantize(-w, step, low, high), -quantised)


@given(seeds, bits_)
def test_codes_and_values_belong_together(seed: int, bits: int) -> None:
    w = weights(seed)
    step, zero = affine_grid(w, bits, per_channel=True)
    codes = nearest_codes(w, step, 0, 2**bits - 1, zero)
    assert bool((codes == codes.round()).all())
    assert 0 <= codes.min() <= codes.max() < 2**bits
    values = fake_quantize(w, step, 0, 2**bits - 1, zero)
    torch.testing.assert_close(dequantize(codes, step, zero), values)


@given(seeds, bits_)
def test_searching_never_does_worse_than_the_whole_range(seed: int, bits: int) -> None:
    w = weights(seed, 5, 40) ** 3
    found, whole = (search_grid(w, bits, ratios=ratios) for ratios in (50, 1))

    def error(grid: tuple[Tensor, Tensor]) -> Tensor:
        values = fake_quantize(w, grid[0], 0, 2**bits - 1, grid[1])
        return (w - values).abs().pow(2.4).mean(1)

    assert bool((error(found) <= error(whole) * (1 + 1e-9)).all())


def test_searched_zero_points_can_be_kept_in_range() -> None:
    positive = weights(0).abs() + 1
    _, outside = search_grid(positive, 4)
    _, inside = search_grid(positive, 4, zero_in_range=True)
    assert bool((outside < 0).all())
    assert bool((inside == 0).all())


def test_constant_channels_are_stored_exactly_and_named() -> None:
    w = weights(0, 4, 6)
    w[1], w[3] = 0.7, 0.0
    with pytest.warns(UserWarning, match=r"channels \[1, 3\]"):
        step, zero = search_grid(w, 4)
    quantised = fake_quantize(w, step, 0, 15, zero)
    torch.testing.assert_close(quantised[[1, 3]], w[[1, 3]])
    assert bool(torch.isfinite(step).all())
    step, zero = affine_grid(w, 4, per_channel=True)
    torch.testing.assert_close(fake_quantize(w, step, 0, 15, zero)[[1, 3]], w[[1, 3]])


@given(seeds, bits_)
def test_gradients_of_a_step_are_those_of_the_surrogate(seed: int, bits: int) -> None:
    """With rounding errors held constant the quantiser is smooth: compare by differences."""
    w, (low, high) = weights(seed), integer_range(bits)
    step = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(fake_quantize(w, step, low, high).sum(), step)
    scaled = w / step.detach()
    inside = (scaled >= low) & (scaled <= high)
    offset = scaled.clamp(low, high).round() - torch.where(inside, scaled, 0)

    def surrogate(s: float) -> Tensor:
        return (s * (torch.where(inside, w / s, 0) + offset)).sum()

    difference = (surrogate(0.3 + 1e-5) - surrogate(0.3 - 1e-5)) / 2e-5
    torch.testing.assert_close(gradient, difference, rtol=1e-6, atol=1e-6)


def test_a_step_means_its_size() -> None:
    w = weights(0)
    outputs, slopes = [], []
    for value in (0.3, -0.3):
        step = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        outputs.append(fake_quantize(w, step, -8, 7))
        slopes.append(torch.autograd.grad(outputs[-1].square().sum(), step)[0])
    assert torch.equal(*outputs)
    assert slopes[0] == -slopes[1] != 0
    assert bool(torch.isfinite(fake_quantize(w, 0.0, -8, 7)).all())


def test_values_outside_the_grid_pass_no_gradient() -> None:
    x = torch.tensor([-3.0, -1.0, 0.2, 0.75, 0.8], requires_grad=True)
    output = fake_quantize(x, 0.25, -4, 3)
    assert output.tolist() == [-1, -1, 0.25, 0.75, 0.75]
    output.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_lsq_steps_per_channel_and_factor() -> None:
    w = weights(0)
    start = lsq_start(w, 7, per_channel=True)
    assert start.shape == (4, 1, 1, 1)
    torch.testing.assert_close(start[1].squeeze(), lsq_start(w[1], 7))
    assert lsq_gradient_factor(100, 4) == pytest.approx(0.05)
    plain, scaled = (
        torch.autograd.grad(lsq(w, step, -8, 7, factor).sum(), step)[0]
        for factor in (1.0, 0.05)
        for step in [start.clone().requires_grad_()]
    )
    torch.testing.assert_close(scaled, plain * 0.05)


@given(seeds, st.floats(0.2, 4))
def test_pact_is_a_clipped_relu_of_few_levels(seed: int, level: float) -> None:
    x, alpha = weights(seed), torch.tensor(level, dtype=torch.float64)
    output = pact(x, alpha, 3)
    assert float(output.min()) >= 0
    assert float(output.max()) <= level * (1 + 1e-12)
    assert bool(((output - x.clamp(0, level)).abs() <= level / 14 + 1e-12).all())
    torch.testing.assert_close(pact(x, alpha, 24), x.clamp(0, level), atol=1e-6, rtol=0)


def test_dorefa_at_32_bits_only_squashes() -> None:
    w = weights(0)
    squashed = w.tanh()
    torch.testing.assert_close(dorefa_weights(w, 32), squashed / squashed.abs().max())
    torch.testing.assert_close(dorefa_weights(w, 32, "largest"), squashed)
    assert torch.equal(dorefa_activations(w, 32), w.clamp(0, 1))


def test_dorefa_gradients_are_right_on_average() -> None:
    gradient = weights(3, 2, 5)
    generator = torch.Generator().manual_seed(0)
    draws = [
        dorefa_gradients(
            gradient, 2, torch.rand(2, 5, generator=generator, dtype=torch.float64) - 0.5
        )
        for _ in range(20_000)
    ]
    inside = gradient.abs() < 0.6 * gradient.abs().amax(1, keepdim=True)
    mean = torch.stack(draws).mean(0)
    torch.testing.assert_close(mean[inside], gradient[inside], atol=0.03, rtol=0)
    zeros = torch.zeros(2, 5)
    assert torch.equal(dorefa_gradients(zeros, 2, zeros), zeros)


def test_zero_counts_as_positive() -> None:
    x = torch.tensor([0.0, -0.0, -1e-9, 2.0], requires_grad=True)
    output = sign(x)
    assert output.tolist() == [1, 1, -1, 1]
    output.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1, 0]


def test_binary_weights_are_the_least_squares_fit() -> None:
    w = weights(0)
    best = (w - binary_weights(w)).square().sum()
    for factor in (0.9, 1.1):
        assert best < (w - factor * binary_weights(w)).square().sum()


def test_depthwise_filters_are_not_centred_away() -> None:
    w = weights(0, 4, 1, 3, 3) / 4
    assert torch.equal(xnor_latent(w), w.clamp(-1, 1))


@given(st.integers(1, 40), seeds)
def test_bit_counting_is_a_dot_product(length: int, seed: int) -> None:
    a, b = (sign(weights(seed + part, 3, length)) for part in (0, 1))
    product = binary_product(pack_signs(a), pack_signs(b), length)
    assert torch.equal(torch.as_tensor(product), (a @ b.T).long())


@given(seeds)
def test_no_threshold_beats_the_best_one(seed: int) -> None:
    w = weights(seed)
    best = (w - best_ternary(w).values).square().sum()
    for per_filter in (False, True):
        values = twn(w, per_filter).values
        assert set(values[0].sign().unique().tolist()) <= {-1.0, 0.0, 1.0}
        if not per_filter:
            assert best <= (w - values).square().sum() + 1e-12


def test_powers_of_two_are_the_nearest_levels() -> None:
    w = weights(0)
    top, bottom = power_range(w, 4)
    levels = torch.tensor([0.0] + [s * 2.0**e for e in range(bottom, top + 1) for s in (1, -1)])
    nearest = (w[..., None] - levels).abs().amin(-1)
    torch.testing.assert_close((w - power_of_two(w, 4)).abs(), nearest)
    assert torch.equal(power_of_two(torch.tensor([1.0, 0.0]), 3), torch.tensor([1.0, 0.0]))


@given(seeds, bits_)
def test_soft_weights_start_at_the_weights(seed: int, bits: int) -> None:
    w, high = weights(seed), 2**bits - 1
    step, zero = affine_grid(w, bits, per_channel=True)
    base, logits = soft_start(w, step)
    soft = soft_weights(base, logits, step, zero, high)
    inside = (w / step + zero >= 0) & (w / step + zero <= high)
    torch.testing.assert_close(soft[inside], w[inside])
    torch.testing.assert_close(
        soft_weights(base, logits, 2 * step, zero, high), 2 * soft, rtol=1e-12, atol=1e-12
    )
    hard = dequantize(hard_codes(base, logits, zero, high), step, zero)
    assert bool(((hard - w).abs() <= step * (0.5 + 1e-6))[inside].all())


@given(st.floats(0, 0.999))
def test_soft_bits_invert(y: float) -> None:
    value = torch.tensor(y, dtype=torch.float64)
    torch.testing.assert_close(rectified_sigmoid(rectified_sigmoid_inverse(value)), value)


def test_a_soft_bit_saturates_at_its_limit() -> None:
    beyond = torch.tensor([-LIMIT - 0.01, LIMIT + 0.01], requires_grad=True)
    bits = rectified_sigmoid(beyond)
    assert bits.tolist() == [0, 1]
    bits.sum().backward()
    assert beyond.grad is not None
    assert beyond.grad.tolist() == [0, 0]


def test_the_regulariser_wants_decided_bits() -> None:
    assert rounding_regulariser(torch.tensor([0.0, 1.0, 1.0]), 2.0) == 0
    assert rounding_regulariser(torch.full((5,), 0.5), 2.0) == 5
    values = [float(rounding_regulariser(torch.tensor([h]), 3.0)) for h in (0.5, 0.7, 0.9, 1.0)]
    assert values == sorted(values, reverse=True)


def test_beta_waits_then_falls_to_its_end() -> None:
    betas = [beta_schedule(t, 100) for t in (0, 19, 20, 60, 100)]
    assert betas == pytest.approx([20, 20, 20, 11, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: integer_range(0), "bits must be at least 1; got 0"),
        (lambda: integer_range(33), "bits must be between 1 and 32; got 33"),
        (lambda: integer_range(2.5), "bits must be a whole number"),  # type: ignore[arg-type]
        (lambda: symmetric_grid(torch.ones(2), 1), "between 2 and 32; got 1"),
        (lambda: affine_grid(torch.tensor([1.0, torch.nan]), 4), "1 that are not finite"),
        (lambda: affine_grid(torch.ones(0), 4), r"at least one value .* got shape \(0,\)"),
        (lambda: search_grid(torch.ones(2, 2), 4, power=0), "power must be greater than 0"),
        (lambda: search_grid(torch.ones(2, 2), 4, ratios=0), "ratios must be at least 1"),
        (lambda: lsq(torch.ones(2), torch.ones(()), -1, 0), "high must be at least 1; got 0"),
        (lambda: lsq_start(torch.ones(2), 0), "high must be at least 1; got 0"),
        (lambda: lsq_start(torch.zeros(3), 7), r"from zeros; got shape \(3,\)"),
        (lambda: lsq_gradient_factor(0, 7), "elements must be at least 1"),
        (lambda: pact(torch.ones(2), torch.tensor(0.0), 4), "alpha must be one number above 0"),
        (lambda: pact(torch.ones(2), torch.tensor(torch.nan), 4), "alpha must be one number"),
        (lambda: dorefa_weights(torch.ones(2), 4, "max"), "scale must be one of unit, largest"),
        (lambda: dorefa_weights(torch.zeros(2), 4), "one that is not 0"),
        (lambda: pack_signs(torch.tensor([[0.0, 1.0]])), "rows of \\+1 and -1"),
        (
            lambda: binary_product(pack_signs(torch.ones(1, 9)), pack_signs(torch.ones(1, 9)), 20),
            "3 bytes for 20 signs; got 2 and 2",
        ),
        (lambda: twn(torch.zeros(3)), "some that are not 0"),
        (
            lambda: ttq(torch.ones(2), torch.ones(()), torch.ones(()), 2.0),
            "ratio must be between 0 and 1; got 2.0",
        ),
        (lambda: power_range(torch.zeros(2), 4), "one that is not 0"),
        (lambda: power_range(torch.ones(2), 1), "bits must be at least 2; got 1"),
        (lambda: beta_schedule(0, 0), "total must be at least 1"),
        (lambda: beta_schedule(0, 10, warmup=1.0), "warmup must be below 1"),
        (lambda: beta_schedule(0, 10, end=0.0), "end must be greater than 0"),
        (lambda: rounding_regulariser(torch.ones(1), 0.0), "beta must be greater than 0"),
        (lambda: rectified_sigmoid_inverse(torch.tensor([0.5, 1.5])), "got 0.5 to 1.5"),
        (lambda: rectified_sigmoid_inverse(torch.tensor([torch.nan])), "between 0 and 1; got nan"),
    ],
)
def test_wrong_inputs_get_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


TINY = torch.tensor([[1e-44, 0.0, 1e-44], [-1e-42, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, -3.0]])
GRIDS = {
    "affine": lambda w, one: affine_grid(w, 8, one),
    "symmetric": lambda w, one: (symmetric_grid(w, 8, one), 128),
    "searched": lambda w, one: search_grid(w, 8, per_channel=one, ratios=20),
    "searched, symmetric": lambda w, one: search_grid(w, 8, symmetric=True, per_channel=one),
    "searched, 16 bits": lambda w, one: search_grid(w, 16, per_channel=one, zero_in_range=True),
}


@pytest.mark.filterwarnings("ignore:channels")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for kind in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
        for name in GRIDS
        if kind is not torch.float16 or "16 bits" not in name  # which it cannot count
    ],
)
def test_steps_are_above_zero_and_what_is_read_back_is_finite(name: str, kind: torch.dtype) -> None:
    for rows in (TINY, TINY[:1], TINY[1:2], TINY[:2]):
        for one in (True, False):
            w = rows.to(kind)
            high = 2**16 - 1 if "16" in name else 255
            if high > torch.finfo(kind).max:
                with pytest.raises(ValueError, match="codes must be at most 65504 in"):
                    GRIDS[name](w, one)
                continue
            step, zero = GRIDS[name](w, one)
            back = dequantize(nearest_codes(w, step, 0, high, zero), step, zero)
            assert bool((step > 0).all())
            assert bool(step.isfinite().all())
            assert bool(back.isfinite().all())
            assert float((back - w).abs().max()) <= 0.05, "next to nothing is stored as zeros"


def test_codes_that_half_precision_cannot_count_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 65504 in torch\.float16; got 65535"):
        search_grid(TINY.half(), 16, zero_in_range=True)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_grids_of_values_that_are_not_finite_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="only finite ones"):
        GRIDS[name](torch.tensor([[1.0, value]]), True)


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "symmetric"])
def test_ranges_that_are_not_finite_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^the range of a grid must be a finite torch.float32; g"):
        GRIDS[name](torch.tensor([[3e38, -3e38]]), True)


def test_a_search_whose_errors_overflow_keeps_the_whole_range() -> None:
    step, zero = search_grid(torch.tensor([[1e20, -3e20]]), 8)
    assert float(step) == pytest.approx(4e20 / 255)
    assert float(zero) == 191


INFINITE = torch.tensor([[1.0, torch.inf]])
DENORMAL = torch.full((1, 3), 1e-45)
REFUSED = {
    "LSQ, infinite": (lambda: lsq_start(INFINITE, 7), "LSQ starts a step from finite values"),
    "LSQ, denormal": (lambda: lsq_start(DENORMAL, 127, True), "LSQ cannot start a step from zero"),
    "PACT, infinite": (lambda: pact(INFINITE, torch.tensor(torch.inf), 4), "alpha must be one num"),
    "PACT, denormal": (lambda: pact(INFINITE, torch.tensor(1e-44), 4), "alpha must be one number"),
    "DoReFa": (lambda: dorefa_weights(INFINITE, 4), "DoReFa needs finite weights"),
    "DoReFa, gradients": (
        lambda: dorefa_gradients(INFINITE, 4, torch.zeros(1, 2)),
        "DoReFa needs finite gradients",
    ),
    "powers of two": (lambda: power_of_two(INFINITE, 4), "powers of two need finite weights"),
    "powers of two, bits": (lambda: power_of_two(torch.ones(2), 33), "bits must be between 2 and"),
    "ternary": (lambda: twn(INFINITE), "ternary weights need finite ones"),
    "ternary, denormal": (lambda: twn(DENORMAL, per_filter=True), "ternary weights need finite on"),
    "best ternary": (lambda: best_ternary(INFINITE), "ternary weights need finite ones"),
    "binary": (lambda: binary_weights(INFINITE), "binary weights need finite ones"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_finite_grid_is_refused(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
