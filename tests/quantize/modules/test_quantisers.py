"""Quantiser modules: their levels, their start, what they store, and what they refuse."""

import copy

import pytest
import torch
from torch import nn

from smallnets.quantize import modules as q
from smallnets.quantize.modules.weights import power_codes

WEIGHTS = [(name, bits) for name in q.WEIGHTS for bits in {
    "binary": (1,), "bwn": (1,), "xnor": (1,), "twn": (2,), "ttq": (2,), "incremental": (4,),
    "power_of_two": (2, 4), "dorefa": (1, 3), "dorefa_scaled": (2,),
}.get(name, (2, 4, 8))]  # fmt: skip
ACTS = [(name, bits) for name in q.ACTIVATIONS for bits in {
    "sign": (1,), "xnor": (1,), "dorefa": (1, 4), "pact": (1, 4),
}.get(name, (1, 4, 8))]  # fmt: skip


def weight(seed=0, *shape):
    drawn = torch.randn(shape or (4, 3, 3, 3), generator=torch.Generator().manual_seed(seed))
    return (drawn / 3).requires_grad_()


def started(name, bits, x):
    made = q.WEIGHTS[name](bits)
    if made.needs_start:
        made.start(x)
    if name == "incremental":
        made.fix(x, 1.0)
    return made.eval()


@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
def test_codes_of_weights_stand_for_what_is_computed_with(name, bits):
    w = weight()
    made = started(name, bits, w)
    found, codes = made(w), made.codes(w)
    assert found.shape == codes.codes.shape == w.shape
    torch.testing.assert_close(codes.values, found.detach(), rtol=1e-6, atol=1e-7)
    per_filter = max(len(row.unique()) for row in codes.codes.flatten(1))
    assert 1 < per_filter <= max(2**bits, 3)
    assert codes.bits == bits
    assert bits * w.numel() < codes.stored_bits <= bits * w.numel() + 32 * 17
    assert not codes.codes.requires_grad


@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
def test_gradients_reach_weights_and_what_is_learned(name, bits):
    w = weight()
    made = q.WEIGHTS[name](bits)
    made(w).square().sum().backward()
    assert bool(made.started)
    assert float(w.grad.abs().sum()) > 0
    learned = list(made.parameters())
    assert len(learned) == {"lsq": 1, "ttq": 2}.get(name, 0)
    for one in learned:
        assert float(one.grad.abs().sum()) > 0


@pytest.mark.parametrize(("name", "bits"), ACTS)
def test_codes_of_activations_stand_for_what_is_passed_on(name, bits):
    x = weight(1, 6, 2, 4, 4).detach().abs() + 0.01
    x[0, 0, 0] = 0
    made = q.ACTIVATIONS[name](bits)
    passed, codes = made(x), None
    made.eval()
    codes = made.codes(x)
    torch.testing.assert_close(codes.values, made(x).detach(), rtol=1e-6, atol=1e-7)
    assert len(codes.codes.unique()) <= 2**bits
    assert passed.shape == x.shape


@pytest.mark.parametrize("name", ["affine", "search", "lsq"])
def test_activations_of_both_signs(name):
    x = weight(1, 8, 20).detach()
    made = q.ACTIVATIONS[name](6)
    found = made(x).detach()
    assert float((found - x).abs().max()) < 0.5
    assert float(found.min()) < 0 < float(found.max())
    assert float((made.codes(x).values == 0).sum()) > 0  # 0 is a level
    torch.testing.assert_close(made.eval()(found).detach(), found)


@pytest.mark.parametrize("name", ["affine", "search", "lsq", "pact"])
def test_what_is_learned_starts_once_and_never_in_evaluation(name):
    make = {"pact": lambda bits: q.PACT(bits, alpha=None)}.get(name, q.ACTIVATIONS[name])
    made = make(4).eval()
    x = weight(1, 6, 8).detach().abs()
    with pytest.raises(ValueError, match=r"has no start yet: calibrate the network") as error:
        made(x)
    assert "\n" not in str(error.value)
    made.train()(x)
    state = copy.deepcopy(made.state_dict())
    assert bool(state["started"])
    other = make(4)
    other.load_state_dict(state)
    other.eval()(10 * x)
    other.train()
    if name == "affine":
        other.momentum = 0.0  # whose range would follow
    other(10 * x)
    for key, value in other.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_a_step_a_filter_is_loaded_into_a_fresh_quantiser():
    w = weight()
    made = q.LSQWeight(3, per_channel=True)
    made(w)
    fresh = q.LSQWeight(3, per_channel=True).eval()
    fresh.load_state_dict(made.state_dict())
    assert fresh.step.shape == (4, 1, 1, 1)
    assert torch.equal(fresh(w), made(w))


def test_frozen_quantisers_learn_nothing_also_after_loading():
    x = weight(1, 6, 8)
    made = q.LSQAct(4)
    made(x)
    made.freeze()
    fresh = q.LSQAct(4)
    fresh.load_state_dict(made.state_dict())
    for one in (made, fresh):
        assert bool(one.frozen)
        assert not one.step.requires_grad
        one(x).sum().backward()
        assert one.step.grad is None
        with pytest.raises(ValueError, match="a frozen LSQAct keeps its start"):
            one.start(x)
    with pytest.raises(ValueError, match="LSQAct has no start yet: nothing to freeze"):
        q.LSQAct(4).freeze()
    moving = q.AffineAct(4)
    moving(x)
    moving.freeze()
    before = moving.most.clone()
    moving(10 * x)
    assert torch.equal(moving.most, before)


def test_ranges_follow_batches_in_training_alone():
    made = q.AffineAct(8, momentum=0.5)
    made(torch.tensor([-1.0, 1.0]))
    made(torch.tensor([-1.0, 3.0]))
    assert float(made.most) == 2
    made.eval()(torch.tensor([-1.0, 9.0]))
    assert float(made.most) == 2
    assert float(made.least) == -1


def test_32_bits_are_the_identity():
    w = weight()
    for make in (q.AffineWeight, q.LSQWeight, q.DoReFaWeight, q.PowerOfTwo, q.LSQAct, q.PACT,
                 q.DoReFaAct, q.AffineAct):  # fmt: skip
        assert make(32).eval()(w) is w
        with pytest.raises(ValueError, match=r"bits must be below 32 for codes; got 32"):
            make(32).codes(w)


@pytest.mark.parametrize("name", ["affine", "symmetric", "lsq", "power_of_two", "incremental"])
def test_quantising_twice_is_quantising_once(name):
    w = weight().detach()
    made = started(name, 4, w)
    once = made(w)
    torch.testing.assert_close(made(once), once)


@pytest.mark.parametrize("name", ["symmetric", "lsq", "dorefa", "twn", "power_of_two"])
def test_odd_symmetry(name):
    w = weight().detach().clamp(-0.5, 0.5)
    bits = {"twn": 2}.get(name, 4)
    torch.testing.assert_close(started(name, bits, w)(-w), -started(name, bits, w)(w))


@pytest.mark.parametrize(
    ("name", "bits"), [("symmetric", 4), ("affine", 3), ("lsq", 3), ("dorefa", 3), ("pact", 4)]
)
def test_quantisers_are_monotone_and_near(name, bits):
    x = torch.linspace(0, 1, 101)
    make = q.ACTIVATIONS.get(name, q.WEIGHTS.get(name))
    made = make(bits) if name != "pact" else q.PACT(bits, alpha=1.0)
    found = made(x if name != "symmetric" else x[None]).detach().flatten()
    assert bool((found.diff() >= 0).all())
    if name in ("affine", "dorefa", "pact"):
        assert float((found - x).abs().max()) <= 0.5 / (2**bits - 1) + 1e-6


def test_stochastic_rounding_is_right_on_average_and_absent_in_evaluation():
    w = weight(2, 3, 5).detach()
    draws = torch.Generator().manual_seed(0)
    made = q.AffineWeight(3, symmetric=True, stochastic=True, generator=draws)
    many = torch.stack([made(w) for _ in range(4000)])
    step = made.grid(w).scale
    assert len(many[:, 0, 0].unique()) == 2
    assert float(((many.mean(0) - w) / step).abs().max()) < 0.05
    nearest = q.AffineWeight(3, symmetric=True)(w)
    assert torch.equal(made.eval()(w), nearest)
    made.train().freeze()
    assert torch.equal(made(w), nearest)


def test_pact_and_lsq_gradients_are_those_of_the_surrogate():
    """With rounding errors held constant both are smooth: compare by differences."""
    x = weight(3, 40).detach().double()
    made = q.PACT(3, alpha=0.4).double()
    made(x).sum().backward()
    difference = (x.clamp(0, 0.4 + 1e-6) - x.clamp(0, 0.4 - 1e-6)).sum() / 2e-6
    assert float(made.alpha.grad) == pytest.approx(float(difference), rel=1e-6)
    step = q.LSQWeight(3).double()
    step.start(x)
    step(x).sum().backward()
    s = step.step.detach()
    v = (x / s).clamp(-4, 3)
    inside = (x / s >= -4) & (x / s <= 3)
    slope = torch.where(inside, v.round() - v, v).sum() / (40 * 3) ** 0.5
    assert float(step.step.grad) == pytest.approx(float(slope), rel=1e-6)


def test_steps_count_one_example_or_all():
    x = weight(3, 5, 8).detach()
    slopes = []
    for count in ("example", "all"):
        made = q.LSQAct(3, signed=True, count=count)
        made(x).sum().backward()
        slopes.append(float(made.step.grad))
    assert slopes[0] == pytest.approx(slopes[1] * 5**0.5)


def test_binary_weights_are_clipped_after_a_step():
    w = nn.Parameter(torch.tensor([[3.0, -2.0, 0.5], [1.0, 0.0, -0.3]]))
    q.BinaryWeight("none").after_step(w)
    assert w.tolist() == [[1, -1, 0.5], [1, 0, pytest.approx(-0.3)]]
    w.data /= 4  # so that centring clips nothing
    q.BinaryWeight(centred=True).after_step(w)
    torch.testing.assert_close(w.mean(1), torch.zeros(2))
    made = q.PACT(4)
    made.alpha.data.fill_(-1)
    made.after_step(w)
    assert float(made.alpha) > 0


def test_shares_of_powers_of_two_grow_and_stay():
    w = weight().detach()
    made = q.IncrementalPowerOfTwo(4)
    made.start(w)
    assert torch.equal(made(w), w)
    before = held = None
    for share in (0.25, 0.5, 1.0):
        made.fix(w, share)
        assert int(made.fixed.sum()) == round(share * w.numel())
        largest = w.abs()[made.fixed].min()
        assert share == 1 or float(largest) >= float(w.abs()[~made.fixed].max())
        if before is not None:
            moved = torch.where(before, made.levels, 0) - held
            assert float(moved.abs().max()) == 0
        before, held = made.fixed.clone(), torch.where(made.fixed, made.levels, 0)
        leaf = (w + 0.01).requires_grad_()
        made(leaf).sum().backward()
        assert torch.equal(leaf.grad == 0, made.fixed)
        w = torch.where(made.fixed, w, 1.1 * w)  # trained on
    fresh = q.IncrementalPowerOfTwo(4)
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh(w), made(w))
    values = torch.tensor([-2.0, 0.0, 0.5, 1.0])
    codes = power_codes(values, 1, -1, 3)
    assert codes.codes.tolist() == [0, 3, 4, 5]
    assert torch.equal(codes.values, values)
    half = q.IncrementalPowerOfTwo(4)
    half.start(w)
    half.fix(w, 0.5)
    with pytest.raises(ValueError, match=r"all weights must be fixed to have codes; 50.0% are"):
        half.codes(w)


def test_rounded_gradients_are_right_on_average():
    x = torch.zeros(1, 3, requires_grad=True)
    slope = torch.tensor([[1.0, -0.3, 0.2]])
    rounds = q.GradientQuantizer(2, torch.Generator().manual_seed(0))
    found = torch.stack([torch.autograd.grad(rounds(x), x, slope)[0] for _ in range(2000)])
    torch.testing.assert_close(found.mean(0), slope, atol=0.05, rtol=0)
    assert len(found.unique()) <= 4
    assert torch.equal(torch.autograd.grad(q.GradientQuantizer(32)(x * 1), x, slope)[0], slope)
    assert torch.equal(rounds(x.detach()), x)


def test_half_precision_is_computed_in_single():
    w = weight().detach().bfloat16()
    for make in (q.LSQWeight, q.AffineWeight, q.AffineAct, q.LSQAct):
        made = make(8).bfloat16()
        if make is q.LSQWeight:
            made.start(w)
        found = made(w)
        assert found.dtype == torch.bfloat16
        assert float((found.float() - w.float()).abs().max()) < 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: q.AffineWeight(0), r"bits must be at least 1; got 0"),
        (lambda: q.AffineWeight(33), r"bits must be between 1 and 32; got 33"),
        (lambda: q.AffineWeight(2.5), r"bits must be a whole number of at least 1; got 2.5"),
        (lambda: q.AffineWeight(True), r"bits must be a whole number of at least 1; got True"),
        (lambda: q.AffineWeight(1, symmetric=True), r"AffineWeight must be between 2 and 32; got"),
        (lambda: q.LSQWeight(1), r"bits of LSQWeight must be between 2 and 32; got 1"),
        (lambda: q.LSQAct(1, signed=True), r"bits of LSQAct must be between 2 and 32; got 1"),
        (lambda: q.LSQAct(1)(torch.tensor([-1.0, 1.0])), r"signed activations must be at least 2"),
        (lambda: q.PACT(4, alpha=0.0), r"alpha must be greater than 0; got 0.0"),
        (lambda: q.PACT(4, alpha=float("nan")), r"alpha must be greater than 0; got nan"),
        (lambda: q.PACT(4, None)(torch.zeros(3)), r"PACT needs a value above 0; got 0"),
        (lambda: q.LSQWeight(4)(torch.zeros(3, 3)), r"LSQ cannot start a step from zeros"),
        (lambda: q.TWN()(torch.zeros(3, 3)), r"ternary weights need finite ones"),
        (lambda: q.TTQ()(torch.zeros(3, 3)), r"TTQ needs a weight that is not 0"),
        (lambda: q.TTQ(1.5), r"ratio must be between 0 and 1; got 1.5"),
        (lambda: q.DoReFaWeight(2)(torch.zeros(3)), r"DoReFa needs finite weights"),
        (lambda: q.PowerOfTwo(9), r"between 2 and 8, or 32; got 9"),
        (lambda: q.IncrementalPowerOfTwo(9), r"between 2 and 8; got 9"),
        (lambda: q.BinaryWeight("layer"), r"scale must be one of none, filter; got 'layer'"),
        (lambda: q.AffineAct(8, "widest"), r"span must be one of extremes, search; got 'widest'"),
        (lambda: q.AffineAct(8)(torch.tensor([0, torch.inf])), r"AffineAct starts from finite"),
        (lambda: q.AffineAct(8)(torch.zeros(0)), r"starts from finite values; got shape \(0,\)"),
    ],
)  # fmt: skip
def test_bad_inputs(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
