"""The layered quantiser: laws, starts, options."""

import pytest
import torch

from smallnets.quantize.layered import (
    CascadeQuantizer,
    LsqActivation,
    WeightRule,
    layered_value,
    search_start,
)
from smallnets.quantize.lsq import lsq, lsq_gradient_factor, lsq_start
from smallnets.quantize.rounding import floor_through, integer_range, round_through


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_activations_are_those_of_the_base_library(signed, bits):
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, 5, 5, generator=draw).mul(2)
    x = (x if signed else x.relu()).contiguous(memory_format=torch.channels_last).requires_grad_()
    u = torch.randn(4, 3, 5, 5, generator=draw)
    one = LsqActivation((bits,), count="sample")
    one.start(x)
    assert one.signed is signed
    step = one.steps[str(bits)]
    low, high = integer_range(bits, signed)
    mine = torch.autograd.grad((u * one(x, bits)).sum(), (x, step))
    theirs = lsq(x, step, low, high, lsq_gradient_factor(75, high))
    assert torch.equal(one(x, bits), theirs)
    for a, b in zip(mine, torch.autograd.grad((u * theirs).sum(), (x, step)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["mid", "plain"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bits", [8, 5, 2])
def test_closed_gradients_are_those_of_autograd(rule, per_channel, bits):
    draw = torch.Generator().manual_seed(5)
    w = torch.randn(4, 3, 2, generator=draw, dtype=torch.float64).requires_grad_()
    shape = (4, 1, 1) if per_channel else ()
    top = torch.full(shape, 0.011, dtype=torch.float64, requires_grad=True)
    step = torch.full(shape, 0.013 * 2 ** (8 - bits), dtype=torch.float64, requires_grad=True)
    step = top if bits == 8 else step
    shift = 8 - bits
    ratio = w / top
    inside = (ratio >= -128) & (ratio <= 127)
    clipped = torch.where(inside, ratio, ratio.detach().clamp(-128, 127))
    chain = floor_through(round_through(clipped) / 2**shift)
    add = (1 - 2.0**-shift) / 2 if rule == "mid" else 0.0
    expected = step * (chain + add)
    value = layered_value(w, top, step, 8, bits, rule)
    torch.testing.assert_close(value, expected)
    u = torch.randn(w.shape, generator=draw, dtype=torch.float64)
    given = {w, top, step}
    for one in given:
        (a,) = torch.autograd.grad((u * value).sum(), one, retain_graph=True)
        (b,) = torch.autograd.grad((u * expected).sum(), one, retain_graph=True)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_all_rules_agree_at_the_highest_width():
    w = torch.randn(50, generator=torch.Generator().manual_seed(1))
    step = torch.tensor(0.02)
    outs = [layered_value(w, step, step, 8, 8, r) for r in ("mid", "plain", "round", "direct")]
    for out in outs:
        assert torch.equal(out, lsq(w, step, -128, 127))


def test_errors_stay_within_their_bounds():
    w = torch.linspace(-1, 1, 999, dtype=torch.float64)
    top = torch.tensor(1 / 127, dtype=torch.float64)
    finest = layered_value(w, top, top, 8, 8)
    for bits in range(2, 8):
        shift = 8 - bits
        step = top * 2.0**shift
        mid = layered_value(w, top, step, 8, bits)
        assert (mid - w).abs().max() <= top * (2**shift - 1) / 2 + top / 2 + 1e-12
        assert (layered_value(w, top, step, 8, bits, "plain") <= finest + 1e-12).all()


def test_scaling_laws():
    w = torch.randn(30, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    top, step = torch.tensor(0.03, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    once = layered_value(w, top, top * 16, 8, 4)
    torch.testing.assert_close(layered_value(2 * w, 2 * top, 2 * top * 16, 8, 4), 2 * once)
    free = layered_value(w, top, step, 8, 4)
    torch.testing.assert_close(layered_value(w, top, 2 * step, 8, 4), 2 * free)


@pytest.mark.parametrize("steps", ["free", "tied"])
@pytest.mark.parametrize("gradient", ["own", "scaled", "raw"])
def test_what_the_highest_step_learns_from_lower_widths(steps, gradient):
    w = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    one = CascadeQuantizer(w, (8, 4, 2), WeightRule(steps=steps, gradient=gradient))
    loss = (one(w, 2) * torch.arange(30.0).view(6, 5)).sum()
    (found,) = torch.autograd.grad(loss, one.step, allow_unused=True)
    if gradient == "own":
        assert found is None or float(found) == 0
        return
    top = one.step.detach().clone().requires_grad_()
    step = top * 64.0 if steps == "tied" else one.steps["2"].detach()
    value = layered_value(w, top, step, 8, 2)
    (unscaled,) = torch.autograd.grad((value * torch.arange(30.0).view(6, 5)).sum(), top)
    factor = 4.0**-6 / 30**0.5 if gradient == "scaled" else 1 / (30 * 127) ** 0.5
    assert float(found) == pytest.approx(float(unscaled) * factor, rel=1e-4)


def test_a_width_teaches_its_own_step():
    w = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    one = CascadeQuantizer(w, (8, 4, 2))
    one(w, 4).square().sum().backward()
    assert float(one.steps["4"].grad) != 0
    assert one.steps["2"].grad is None
    assert one.step.grad is None


@pytest.mark.parametrize("rule", ["mid", "plain", "round", "direct"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_every_rule_runs_and_shares_codes(rule, per_channel):
    w = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    one = CascadeQuantizer(w, (6, 3), WeightRule(rule=rule, per_channel=per_channel))
    assert one.step.shape == ((6, 1, 1, 1) if per_channel else ())
    apart = [one(w, bits) for bits in (6, 5, 3)]
    with one.same_codes():
        together = [one(w, bits) for bits in (6, 5, 3)]
    for a, b in zip(apart, together, strict=True):
        assert torch.equal(a, b)
        assert a.unique().numel() <= 64 * (6 if per_channel else 1)
    sum(t.sum() for t in together).backward()
    assert w.grad.abs().sum() > 0
    with torch.no_grad():
        w.mul_(-1)
    assert not torch.equal(one(w, 3), together[-1]), "codes must not outlive the block"


def test_search_finds_a_start_that_survives_cutting():
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(8, 4, 3, 3, generator=draw, dtype=torch.float64).pow(3)  # heavy tails
    start, classic = search_start(w, 8, 2), lsq_start(w, 127)

    def error(step):
        return float((layered_value(w, step, step * 64, 8, 2) - w).square().mean())

    assert error(start) < error(classic) / 4
    rows = search_start(w, 8, 2, per_channel=True)
    assert rows.shape == (8, 1, 1, 1)
    torch.testing.assert_close(rows[3], search_start(w[3:4], 8, 2).reshape(1, 1, 1))


def test_search_looks_at_all_places_of_a_kernel():
    """Centre taps of many channels that are four times as large must be seen."""
    w = torch.randn(256, 256, 3, 3, generator=torch.Generator().manual_seed(0))
    w[:, :, 1, 1] *= 4
    step = search_start(w, 8, 4)

    def error(step):
        value = layered_value(w, step, step * 16, 8, 4)
        return float((value - w).square().mean())

    largest = w.abs().max() / 128
    best = min(error(r * largest) for r in torch.linspace(0.2, 1.2, 40))
    assert error(step) < 1.03 * best


def test_search_minds_the_lowest_width_and_four_bits():
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(4000, generator=draw) * torch.rand(4000, generator=draw).pow(2)
    steps = torch.linspace(0.2, 1.2, 40) * w.abs().max() / 128

    def best(*widths):
        errors = [
            sum(
                (layered_value(w, one, one * 2.0 ** (8 - b), 8, b) - w).square().sum()
                for b in widths
            )
            for one in steps
        ]
        return steps[int(torch.stack(errors).argmin())]

    assert search_start(w, 8, 3).item() == pytest.approx(best(3, 4).item())
    assert best(3, 4) != best(3)


@pytest.mark.parametrize(("high", "low"), [(8, 8), (8, 6), (12, 10)])
def test_search_for_many_bits_does_not_mind_few(high, low):
    w = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    step = search_start(w, high, low)

    def error(step):
        value = layered_value(w, step, step * 2.0 ** (high - low), high, low)
        return float((value - w).square().mean())

    steps = torch.linspace(0.2, 1.2, 40) * w.abs().max() / 2 ** (high - 1)
    assert error(step) <= 1.001 * min(error(one) for one in steps)


def test_untrained_widths_double_the_step_of_the_next_higher_one():
    w = torch.randn(40, generator=torch.Generator().manual_seed(0))
    one = CascadeQuantizer(w, (8, 6, 2))
    with torch.no_grad():
        one.steps["6"].mul_(1.5)
    assert one.step_of(7).item() == pytest.approx(2 * one.step.item())
    assert one.step_of(4).item() == pytest.approx(4 * one.steps["6"].item())


def test_untrained_activations_have_the_range_of_the_next_higher_width():
    one = LsqActivation((8, 4))
    one.start(torch.rand(20, generator=torch.Generator().manual_seed(0)))
    assert one.step_of(6).item() == pytest.approx(4 * one.steps["8"].item())
    assert one.step_of(4).item() == one.steps["4"].item()


def test_steps_stay_positive_and_can_recover():
    w = torch.randn(40, generator=torch.Generator().manual_seed(0))
    one = CascadeQuantizer(w, (4, 2))
    with torch.no_grad():
        one.steps["2"].fill_(-1.0)
    value = one(w, 2)
    assert value.isfinite().all()
    value.sum().backward()
    assert one.steps["2"].grad is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WeightRule(rule="up"), "rule must be one of"),
        (lambda: WeightRule(steps="loose"), "steps must be one of"),
        (lambda: WeightRule(gradient="all"), "gradient must be one of"),
        (lambda: WeightRule(start="zero"), "start must be one of"),
        (lambda: WeightRule(rule="direct", steps="tied"), "direct has free steps"),
        (lambda: CascadeQuantizer(torch.zeros(4), (4, 2)), "zero throughout"),
        (lambda: CascadeQuantizer(torch.zeros(4), (4,), WeightRule(start="lsq")), "zero"),
        (lambda: CascadeQuantizer(torch.ones(4), (1,), WeightRule(start="lsq")), "2 bits or more"),
        (lambda: CascadeQuantizer(torch.ones(4), (4, 2))(torch.ones(4), 5), "between 2 and 4"),
        (
            lambda: layered_value(torch.ones(3), torch.tensor(-1.0), torch.tensor(1.0), 8, 4),
            "finite and above 0; got -1",
        ),
        (
            lambda: layered_value(torch.ones(3), torch.tensor(1.0), torch.ones(2, 1), 8, 4),
            r"broadcastable to a weight of shape \(3,\); got the shape \(2, 1\)",
        ),
        (lambda: LsqActivation((4,))(torch.ones(2, 2), 4), "have no start"),
        (lambda: LsqActivation((4,), count="all"), "count must be one of"),
        (
            lambda: LsqActivation((4,), signed=False).start(torch.tensor([-1.0])),
            "must not be negative; got -1",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
