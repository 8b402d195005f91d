"""Laws of the quantisers: starts, gradients, scaling, QDrop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.quantize.adaround import rectified_sigmoid, rectified_sigmoid_inverse
from smallnets.quantize.genie.quantizers import (
    MODES,
    ActivationQuantizer,
    QDrop,
    WeightQuantizer,
    bernoulli_mask,
)


def weights(seed=0, shape=(5, 3, 3, 3)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@given(st.integers(2, 8), st.integers(0, 20))
def test_soft_start_is_the_weight_itself_where_it_is_not_clipped(bits, seed):
    w = weights(seed)
    quantizer = WeightQuantizer(w, bits)
    quantizer.soft = True
    codes = w / quantizer.step + quantizer.zero
    inside = (codes >= 0) & (codes <= quantizer.high)
    torch.testing.assert_close(quantizer()[inside], w[inside], rtol=1e-9, atol=1e-12)
    quantizer.soft = False
    error = (quantizer() - w).abs()
    assert bool((error <= quantizer.step / 2 + 1e-9)[inside].all())
    nearest = WeightQuantizer(w, bits, "nearest")()
    torch.testing.assert_close(quantizer(), nearest)


@given(st.floats(0, 0.999))
def test_inverse(y):
    y = torch.tensor(y, dtype=torch.float64)
    torch.testing.assert_close(rectified_sigmoid(rectified_sigmoid_inverse(y)), y)


@pytest.mark.parametrize("mode", ["genie", "adaround"])
def test_gradients_by_finite_differences(mode):
    quantizer = WeightQuantizer(weights(), 3, mode)
    quantizer.soft = True
    quantizer.logit.data += 0.3 * weights(1)
    quantizer.step.data *= 1.05
    upstream = weights(2)
    (quantizer() * upstream).sum().backward()
    parameters = [quantizer.logit] + ([quantizer.step] if mode == "genie" else [])
    assert quantizer.step.requires_grad == (mode == "genie")
    for parameter in parameters:
        flat = parameter.data.view(-1)
        for place in range(0, flat.numel(), max(1, flat.numel() // 12)):
            at = float(flat[place])
            values = []
            for shift in (1e-6, -1e-6):
                flat[place] = at + shift
                values.append(float((quantizer() * upstream).sum().detach()))
            flat[place] = at
            slope = (values[0] - values[1]) / 2e-6
            assert float(parameter.grad.view(-1)[place]) == pytest.approx(slope, abs=1e-5)


def test_the_naive_gradient_is_not_the_slope():
    quantizer = WeightQuantizer(weights(), 3, "naive")
    quantizer.soft = True
    upstream = weights(2)
    (quantizer() * upstream).sum().backward()
    found = float(quantizer.step.grad[0])
    with torch.no_grad():
        values = []
        for shift in (1e-7, -1e-7):
            quantizer.step[0] += shift
            values.append(float((quantizer() * upstream).sum()))
            quantizer.step[0] -= shift
    assert abs(found - (values[0] - values[1]) / 2e-7) > 0.1


def test_scaling_the_step():
    genie, naive = (WeightQuantizer(weights(), 4, mode) for mode in ("genie", "naive"))
    before, codes = genie(), naive.codes
    for quantizer in (genie, naive):
        quantizer.step.data *= 2
    torch.testing.assert_close(genie(), 2 * before)
    assert not torch.equal(naive.codes, codes)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode):
    quantizer = WeightQuantizer(weights(), 4, mode)
    quantizer.soft = True
    out = quantizer()
    learned = [p for p in (quantizer.step, quantizer.logit) if p.requires_grad]
    count = {"nearest": 0, "adaround": 1, "lsq": 1}.get(mode, 2)
    assert len(learned) == count
    if learned:
        (out * weights(3)).sum().backward()
        assert all(bool((p.grad != 0).any()) for p in learned)
    assert (quantizer.regulariser(2.0).item() > 0) == (mode in ("adaround", "naive", "genie"))
    quantizer.soft = False
    assert float(quantizer.codes.min()) >= 0
    assert float(quantizer.codes.max()) <= 15
    assert torch.equal(quantizer.codes, quantizer.codes.round())


def test_zero_points():
    positive = weights().abs() + 0.5
    assert bool((WeightQuantizer(positive, 4).zero < 0).any())
    inside = WeightQuantizer(positive, 4, zero_in_range=True).zero
    assert bool(((inside >= 0) & (inside <= 15)).all())
    symmetric = WeightQuantizer(weights(), 4, symmetric=True)
    assert bool((symmetric.zero == 8).all())


def test_channels_with_a_single_value_are_exact():
    w = weights(shape=(4, 1, 1, 1))  # one weight a channel, as of a 1x1 depthwise convolution
    w[2] = 0
    with pytest.warns(UserWarning, match=r"channels \[0, 1, 2, 3\]"):
        quantizer = WeightQuantizer(w, 4)
    torch.testing.assert_close(quantizer(), w)


@given(st.integers(2, 8), st.booleans(), st.integers(0, 9))
def test_activations_are_idempotent_and_odd(bits, positive, seed):
    x = weights(seed)
    x = x.abs() if positive else x
    quantizer = ActivationQuantizer(bits).double()
    out = quantizer(x)
    assert quantizer.signed != positive
    torch.testing.assert_close(quantizer(out), out)
    if not positive:
        away = x.abs() < quantizer.limits[1] * quantizer.step  # of the extra negative level
        torch.testing.assert_close(quantizer(-x)[away], -out[away])


def test_activation_options():
    x = weights().abs()
    plain, scaled = (ActivationQuantizer(4, gradient=g).double() for g in ("plain", "lsq"))
    for quantizer in (plain, scaled):
        quantizer(x).square().sum().backward()
    factor = (x.numel() * 15) ** -0.5
    torch.testing.assert_close(scaled.step.grad, plain.step.grad * factor)
    part = ActivationQuantizer(4, sample=20).double()
    part(x)
    assert part.step.detach() == pytest.approx(float(plain.step), rel=0.3)
    state = ActivationQuantizer(4).double()
    state.load_state_dict(plain.state_dict())
    assert state.ready
    assert torch.equal(state(x), plain(x))
    empty = ActivationQuantizer(4)
    with pytest.warns(UserWarning, match="zero throughout its first batch"):
        assert not empty(torch.zeros(3, 4)).any()


def test_a_sample_does_not_stay_in_one_column():
    x = torch.rand(32, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    x[..., 0] *= 0.1  # what padding does to borders
    steps = []
    for sample in (None, 2**14):
        one = ActivationQuantizer(4, sample=sample)
        one(x)
        steps.append(one.step.item())
    assert steps[1] == pytest.approx(steps[0], rel=0.03)


def test_qdrop():
    quantised, exact = torch.ones(64, 100), torch.zeros(64, 100)
    assert QDrop(1.0)(quantised, exact) is quantised
    assert QDrop(0.0)(quantised, exact) is exact
    mixed = QDrop(0.25, torch.Generator().manual_seed(0))(quantised, exact)
    assert float(mixed.mean()) == pytest.approx(0.25, abs=0.02)
    with pytest.raises(ValueError, match="probability must be between 0 and 1; got 2"):
        QDrop(2.0)


def test_coins_are_fair_and_new():
    generator = torch.Generator().manual_seed(0)
    one, two = (bernoulli_mask((7, 1001), 0.5, generator) for _ in range(2))
    assert one.shape == (7, 1001)
    assert not torch.equal(one, two)
    assert float(one.double().mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(bernoulli_mask((7, 1001), 0.5, torch.Generator().manual_seed(0)), one)
    neighbours = (one[:, 1:] == one[:, :-1]).double().mean()
    assert float(neighbours) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("bits", [1, 17])
def test_bits_are_checked(bits):
    limit = "at least 2" if bits == 1 else "between 2 and 16"
    with pytest.raises(ValueError, match=f"bits must be {limit}; got {bits}"):
        WeightQuantizer(weights(), bits)
    with pytest.raises(ValueError, match=f"bits must be {limit}; got {bits}"):
        ActivationQuantizer(bits)


def test_names_are_checked():
    with pytest.raises(ValueError, match=r"mode must be one of nearest.*got 'up'"):
        WeightQuantizer(weights(), 4, "up")
    with pytest.raises(ValueError, match="gradient must be one of plain, lsq"):
        ActivationQuantizer(4, gradient="other")
