"""Layered weights and their neighbours: codes, gradients, losses, and the combination of widths."""

from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.quantize.dorefa import dorefa_activations, dorefa_weights
from smallnets.quantize.layered import (
    CascadeQuantizer,
    LsqActivation,
    SwitchBatchNorm,
    WeightRule,
    adabits_unit,
    adabits_weights,
    bit_planes,
    cascade,
    gram_matrix,
    layered_value,
    min_norm,
    multi_width_loss,
    pack_layered,
    rebuild,
)
from smallnets.quantize.layered.baselines import AdaBitsInputs, DorefaInputs, DorefaWeights
from smallnets.quantize.layered.codes import rounded
from smallnets.quantize.layered.network import QuantizedLayer
from smallnets.quantize.lsq import lsq_gradient_factor, lsq_start
from smallnets.quantize.rounding import integer_range
from smallnets.quantize.uniform import nearest_codes

FLOAT = 32  # "bits" of what is not quantised


@pytest.fixture(scope="module")
def by_width(agrees):
    """by_width(function, widths, expected, rtol, atol): a row of numbers for every width.

    A row that is not of finite numbers must be refused. Without tolerances, numbers agree to 1e-5
    of the largest in their row, or of all rows.
    """

    def check(function, widths, expected, rtol=0, atol=None, of_all=False):
        finite = np.where(np.isfinite(expected), expected, 0)
        for bits, row, numbers in zip(widths, expected, finite, strict=True):
            largest = np.abs(finite if of_all else numbers).max()
            lost = np.full_like(row, np.nan) if (row != numbers).any() else np.asarray(row)
            near = 1e-5 * max(largest, 1e-12) if atol is None else atol
            agrees(partial(function, bits), lost, rtol, near)

    return check


# ---------------------------------------------------------------- the layered quantiser


class Layers(NamedTuple):
    """Weights, the step of the highest width, and the widths."""

    w: Tensor
    top: Tensor
    high: int
    low: int
    widths: list[int]

    @property
    def codes(self) -> Tensor:
        """Those of the highest width, in float."""
        return nearest_codes(self.w, self.top, *integer_range(self.high)).detach()

    @property
    def integers(self) -> Tensor:
        return self.codes.to(torch.int16)


@pytest.fixture(scope="module")
def layers(values):
    """layers(name) -> that case, with leaves that take gradients."""

    def get(name):
        w, top = (values.leaf(f"{name}_{key}") for key in ("w", "sH"))
        high, low = (int(values[f"{name}_{key}"]) for key in ("H", "low"))
        return Layers(w, top, high, low, values[f"{name}_bits"].tolist())

    return get


@pytest.mark.cases(r"(?P<name>\w+)_sH")
def test_widths_run_down_from_the_highest(layers, name):
    one = layers(name)
    assert list(cascade(one.integers, one.high, one.low)) == one.widths


@pytest.mark.cases(r"(?P<name>\w+(?<!_round)(?<!_direct))_codes")
def test_codes_are_cut(values, layers, name):
    expected, one = values[f"{name}_codes"], layers(name)
    found = cascade(one.integers, one.high, one.low)
    np.testing.assert_array_equal(torch.stack(list(found.values())), expected)
    base, planes = bit_planes(one.integers, one.high, one.low)
    packed = pack_layered(one.integers, one.high, one.low)
    for bits, row in zip(one.widths, expected, strict=True):
        np.testing.assert_array_equal(rebuild(base, planes, one.low, bits), row)
        np.testing.assert_array_equal(packed.codes(bits), row)


@pytest.mark.cases(r"(?P<name>\w+)_planes")
def test_planes(values, layers, name):
    expected, one = values[f"{name}_planes"], layers(name)
    _, planes = bit_planes(one.integers, one.high, one.low)
    assert list(planes) == list(range(one.low + 1, one.high + 1))
    assert len(planes) == len(expected)
    for plane, row in zip(planes.values(), expected, strict=True):
        np.testing.assert_array_equal(plane, row)


@pytest.mark.cases(r"(?P<name>\w+)_planes_packed")
def test_bytes_of_planes(values, layers, name):
    expected, one = values[f"{name}_planes_packed"], layers(name)
    planes = pack_layered(one.integers, one.high, one.low).planes
    assert list(planes.values()) == [row.tobytes() for row in expected]


@pytest.mark.cases(r"(?P<name>\w+)_base_packed")
def test_bytes_of_the_basic_layer(values, layers, name):
    expected, one = values[f"{name}_base_packed"], layers(name)
    assert pack_layered(one.integers, one.high, one.low).base == expected.tobytes()


@pytest.mark.cases(r"(?P<name>\w+)_round_codes")
def test_rounded_codes(values, layers, by_width, name):
    expected, one = values[f"{name}_round_codes"], layers(name)
    by_width(lambda bits: rounded(one.codes, one.high - bits, bits), one.widths, expected, 0, 0)


@pytest.mark.cases(r"(?P<name>\w+)_direct_codes")
def test_direct_codes(values, layers, by_width, name):
    expected, one = values[f"{name}_direct_codes"], layers(name)

    def codes(bits):
        return nearest_codes(one.w, one.top * 2 ** (one.high - bits), *integer_range(bits))

    by_width(codes, one.widths, expected, 0, 0)


@pytest.fixture(scope="module")
def slopes(values, layers):
    """slopes(name, rule, free) -> width -> the value and the gradients of w, s_H and s_b."""

    def make(name, rule, free):
        one = layers(name)
        upstream = dict(zip(one.widths, values.tensor(f"{name}_u"), strict=True))
        own = dict(zip(one.widths, values.tensor(f"{name}_sb"), strict=True)) if free else {}

        @cache
        def at(bits):
            if bits == one.high:
                step = one.top
            else:
                step = own[bits].requires_grad_() if free else one.top * 2.0 ** (one.high - bits)
            value = layered_value(one.w, one.top, step, one.high, bits, rule)
            wanted = (one.w, one.top, *((step,) if free and bits < one.high else ()))
            return value, *torch.autograd.grad((upstream[bits] * value).sum(), wanted)

        return one, at

    return make


@pytest.mark.cases(r"(?P<name>\w+)_(?P<rule>plain|mid|round|direct)_tied")
def test_values_with_tied_steps(values, slopes, by_width, name, rule):
    expected = values[f"{name}_{rule}_tied"]
    one, at = slopes(name, rule, free=False)
    by_width(lambda bits: at(bits)[0], one.widths, expected, 0, 1e-10)


@pytest.mark.cases(r"(?P<name>\w+)_(?P<rule>plain|mid|round|direct)_tied_mse")
def test_errors_with_tied_steps(values, layers, by_width, name, rule):
    expected, one = values[f"{name}_{rule}_tied_mse"], layers(name)

    def error(bits):
        value = layered_value(
            one.w, one.top, one.top * 2.0 ** (one.high - bits), one.high, bits, rule
        )
        return (value - one.w).square().mean()

    by_width(error, one.widths, expected, 1e-9, 0)


STEPS = r"(?P<name>\w+)_(?P<rule>plain|mid)_(?P<steps>tied|free)"


@pytest.mark.cases(STEPS + "_gw")
def test_gradients_of_weights(values, slopes, by_width, name, rule, steps):
    expected = values[f"{name}_{rule}_{steps}_gw"]
    one, at = slopes(name, rule, free=steps == "free")
    by_width(lambda bits: at(bits)[1], one.widths, expected, 0, 1e-9)


@pytest.mark.cases(STEPS + "_gsH")
def test_gradients_of_the_highest_step(values, slopes, by_width, name, rule, steps):
    expected = values[f"{name}_{rule}_{steps}_gsH"]
    one, at = slopes(name, rule, free=steps == "free")
    by_width(lambda bits: at(bits)[2], one.widths, expected, 1e-9, 1e-9)


@pytest.mark.cases(r"(?P<name>\w+)_(?P<rule>plain|mid)_free_gsb")
def test_gradients_of_own_steps(values, slopes, by_width, name, rule):
    """The highest width has no other step than the highest."""
    expected = values[f"{name}_{rule}_free_gsb"]
    one, at = slopes(name, rule, free=True)
    lower = [bits for bits in one.widths if bits < one.high]
    assert np.isnan(expected[: len(one.widths) - len(lower)]).all()
    by_width(lambda bits: at(bits)[3], lower, expected[len(expected) - len(lower) :], 1e-9, 1e-9)


@pytest.mark.cases(r"(?P<name>\w+)_lsq_init")
def test_starts_of_lsq(values, layers, by_width, name):
    expected, one = values[f"{name}_lsq_init"], layers(name)
    by_width(lambda bits: lsq_start(one.w, integer_range(bits)[1]), one.widths, expected, 1e-9, 0)


@pytest.mark.cases(r"(?P<name>\w+)_lsq_gscale")
def test_factors_of_lsq(values, layers, by_width, name):
    expected, one = values[f"{name}_lsq_gscale"], layers(name)

    def factor(bits):
        return np.float64(lsq_gradient_factor(one.w.numel(), integer_range(bits)[1]))

    by_width(factor, one.widths, expected, 1e-9, 0)


@pytest.mark.sample
@pytest.mark.parametrize(("name", "clipped"), [("vl", 0.014), ("vl4", 0.05)])
def test_some_weights_are_clipped_at_the_highest_width(layers, name, clipped):
    one = layers(name)
    ratio = one.w / one.top
    low, high = integer_range(one.high)
    share = ((ratio < low) | (ratio > high)).double().mean().item()
    assert share == pytest.approx(clipped, abs=1e-3)


@pytest.mark.sample
def test_rounding_differs_from_cutting(values):
    shares = (values["vl_round_codes"] != values["vl_codes"]).reshape(7, -1).mean(1)
    assert np.round(100 * shares).tolist() == [0, 23, 38, 51, 44, 44, 50]


@pytest.mark.sample
@pytest.mark.parametrize("name", ["vl", "vl4"])
def test_rounded_codes_do_not_nest(values, name):
    codes = values[f"{name}_round_codes"]
    broken = (codes[1:] != codes[:-1] >> 1).reshape(len(codes) - 1, -1).mean(1)
    assert (broken > 0.05).all()
    assert (broken < 0.5).all()
    if name == "vl":
        assert (np.round(100 * broken) >= 15).all()
        assert (np.round(100 * broken) <= 23).all()


# ---------------------------------------------------------------- LSQ


@pytest.fixture(scope="module")
def lsq_weights(values):
    """lsq_weights(name, kind) -> width -> quantiser's step, value, gradients of weight and step."""

    def make(name, kind):
        w, upstream = values.leaf(f"{name}_w"), values.tensor(f"{name}_uw")
        how = WeightRule(start="lsq", per_channel=kind == "pc")

        def at(bits):
            one = CascadeQuantizer(w, (bits,), how)
            value = one(w, bits)
            return one.step, value, *torch.autograd.grad((upstream * value).sum(), (w, one.step))

        return at

    return make


@pytest.fixture(scope="module")
def lsq_activations(values):
    """lsq_activations(name) -> width -> step, value, gradients of the input and the step."""

    def make(name):
        x, upstream = values.leaf(f"{name}_x"), values.tensor(f"{name}_ux")

        def at(bits):
            one = LsqActivation((bits,), count="batch")
            one.start(x)
            value, step = one(x, bits), one.steps[str(bits)]
            return step, value, *torch.autograd.grad((upstream * value).sum(), (x, step))

        return at

    return make


PLACES = {"s0": 0, "out": 1, "gw": 2, "gx": 2, "gs": 3}


@pytest.mark.cases(r"(?P<name>lsq[^_]*)_(?P<kind>w|pc)_(?P<key>s0|out|gw|gs)")
def test_lsq_weights_through_the_quantiser(values, lsq_weights, by_width, name, kind, key):
    expected, at = values[f"{name}_{kind}_{key}"], lsq_weights(name, kind)
    widths = values[f"{name}_bits"].tolist()
    by_width(lambda bits: at(bits)[PLACES[key]], widths, expected, of_all=key == "gs")


@pytest.mark.sample
@pytest.mark.parametrize("kind", ["w", "pc"])
def test_gradients_of_steps_are_as_exact_at_every_width(values, lsq_weights, by_width, kind):
    at = lsq_weights("lsq", kind)
    by_width(lambda bits: at(bits)[3], values["lsq_bits"].tolist(), values[f"lsq_{kind}_gs"])


@pytest.mark.cases(r"(?P<name>lsq[^_]*)_x_(?P<key>s0|out|gx|gs)")
def test_lsq_activations(values, lsq_activations, by_width, name, key):
    expected, at = values[f"{name}_x_{key}"], lsq_activations(name)
    widths = values[f"{name}_bits"].tolist()
    inside = values.tensor(f"{name}_x") > 0  # on the limit implementations differ

    def found(bits):
        return at(bits)[PLACES[key]] * (inside if key == "gx" else 1)

    if key == "gx":
        expected = expected * inside.numpy()
    by_width(found, widths, expected, of_all=key == "gs")


# ---------------------------------------------------------------- Any-Precision networks


class AnyPrecision(NamedTuple):
    """Weights, upstream gradients, activations and widths."""

    w: Tensor
    upstream: Tensor
    x: Tensor
    widths: list[int]


@pytest.fixture(scope="module")
def any_precision(values):
    """any_precision(name), all of whose inputs are read at once."""
    return lambda name: AnyPrecision(
        values.leaf(f"{name}_w"), values.tensor(f"{name}_u"), values.tensor(f"{name}_x"),
        values[f"{name}_bits"].tolist(),
    )  # fmt: skip


@pytest.mark.cases(r"(?P<name>ap\d*)_w_out")
def test_any_precision_weights(values, any_precision, by_width, name):
    expected, one = values[f"{name}_w_out"], any_precision(name)
    by_width(lambda bits: dorefa_weights(one.w, bits, "mean"), one.widths, expected, 1e-5, 1e-8)
    by_width(lambda bits: DorefaWeights()(one.w, bits), one.widths, expected, 1e-5, 1e-8)


@pytest.mark.cases(r"(?P<name>ap\d*)_w_grad")
def test_gradients_of_any_precision_weights(values, any_precision, by_width, name):
    expected, one = values[f"{name}_w_grad"], any_precision(name)

    def gradient(bits):
        value = DorefaWeights()(one.w, bits)
        return torch.autograd.grad((one.upstream * value).sum(), one.w)[0]

    by_width(gradient, one.widths, expected)


@pytest.mark.cases(r"(?P<name>ap\d*)_a_out")
def test_any_precision_activations(values, any_precision, by_width, name):
    expected, one = values[f"{name}_a_out"], any_precision(name)
    by_width(lambda bits: dorefa_activations(one.x, bits), one.widths, expected, 1e-5, 1e-8)
    unit = one.x.clamp(0, 1)  # without bits, inputs are not clipped from above
    by_width(lambda bits: DorefaInputs()(unit, bits), one.widths, expected, 1e-5, 1e-8)


@pytest.mark.cases(r"(?P<name>ap\d*)_direct_vs_truncated_disagree")
def test_any_precision_codes_do_not_nest(values, any_precision, name):
    """The share of weights whose code of few bits is not that of the most bits, cut."""
    expected, one = values[f"{name}_direct_vs_truncated_disagree"], any_precision(name)
    top, *lower = sorted((bits for bits in one.widths if bits < FLOAT), reverse=True)

    def codes(bits):
        unit = dorefa_weights(one.w, bits, "mean") / one.w.abs().mean()
        return ((unit / 2 + 0.5) * (2**bits - 1)).round().long()

    shares = {
        bits: (codes(bits) != codes(top) >> (top - bits)).double().mean().item() for bits in lower
    }
    wanted = [shares[bits] for bits in one.widths if bits in shares]
    np.testing.assert_allclose(wanted, expected, rtol=0, atol=1e-6)


@pytest.mark.sample
def test_a_tenth_of_any_precision_codes_does_not_nest(values):
    assert values["ap_direct_vs_truncated_disagree"][1] > 0.1


def of_size(weight: Tensor, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias for a weight, padded by half its kernel."""
    c_out, c_in, *kernel = weight.shape
    padding = [side // 2 for side in kernel]
    return nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)


class Block(nn.Module):
    """The pre-activation block of Any-Precision networks, of the library's parts."""

    def __init__(self, state: dict[str, Tensor], widths: list[int], stride: int) -> None:
        super().__init__()
        self.act = DorefaInputs()
        conv0, conv1 = of_size(state["conv0.weight"], stride), of_size(state["conv1.weight"])
        self.bn0, self.bn1 = (
            SwitchBatchNorm(nn.BatchNorm2d(c.in_channels), widths) for c in (conv0, conv1)
        )
        self.conv0, self.conv1 = (QuantizedLayer(c, DorefaWeights(), None) for c in (conv0, conv1))
        self.skip_conv = self.skip_bn = None
        if "skip_conv.weight" in state:
            self.skip_conv = of_size(state["skip_conv.weight"], stride)
            self.skip_bn = nn.BatchNorm2d(len(state["skip_bn.weight"]))
        missing, unexpected = self.load_state_dict(
            {
                name.replace(".bn_dict.", ".norms.")
                .replace("conv0.w", "conv0.layer.w")
                .replace("conv1.w", "conv1.layer.w"): value
                for name, value in state.items()
            },
            strict=False,
        )
        assert not unexpected
        assert all("num_batches" in name for name in missing)

    def forward(self, x: Tensor, bits: int) -> Tensor:
        for part in (self.bn0, self.bn1, self.conv0, self.conv1):
            part.bits = bits
        a = self.act(self.bn0(x), bits)
        skip = x if self.skip_conv is None else self.skip_bn(self.skip_conv(a))
        return skip + self.conv1(self.act(self.bn1(self.conv0(a)), bits))


@pytest.mark.cases(r"(?P<name>apnet\d*)_(?P<key>out|gradx)_(?P<mode>eval|train)")
def test_any_precision_blocks(values, by_width, name, key, mode):
    expected, state = values[f"{name}_{key}_{mode}"], values.under(f"{name}_sd_")
    widths, x = values[f"{name}_bits"].tolist(), values.leaf(f"{name}_x")
    outputs = [values[one].shape for one in values if one.startswith(f"{name}_out_")]
    stride = -(-x.shape[-1] // outputs[0][-1])

    def found(bits):
        block = Block(state, widths, stride).train(mode == "train")
        out = block(x, bits)
        return out if key == "out" else torch.autograd.grad(out.square().mean(), x)[0]

    by_width(found, widths, expected)


# ---------------------------------------------------------------- losses of the widths


@pytest.fixture(scope="module")
def width_losses(values):
    """width_losses(name, mode) -> widths, losses by width, and the logits."""

    def make(name, mode):
        logits, labels = values.leaf(f"{name}_logits"), values.tensor(f"{name}_y")
        widths = values[f"{name}_bits"].tolist()
        return multi_width_loss(dict(zip(widths, logits, strict=True)), labels, mode), logits

    return make


@pytest.mark.cases(r"(?P<name>aploss\d*)_(?P<mode>hard|soft|recursive)")
def test_losses_of_widths(values, width_losses, agrees, name, mode):
    expected = values[f"{name}_{mode}"]
    widths = values[f"{name}_bits"].tolist()

    def found():
        losses, _ = width_losses(name, mode)
        assert list(losses) == sorted(widths, reverse=True)
        return torch.stack([losses[bits] for bits in widths])

    agrees(found, expected, 0, 1e-9)


@pytest.mark.cases(r"(?P<name>aploss\d*)_(?P<mode>hard|soft|recursive)_grad")
def test_gradients_of_widths(values, width_losses, agrees, name, mode):
    expected = values[f"{name}_{mode}_grad"]

    def found():
        losses, logits = width_losses(name, mode)
        return torch.autograd.grad(sum(losses.values()), logits)[0]

    agrees(found, expected, 0, 1e-9)


# ---------------------------------------------------------------- AdaBits

SCHEMES = "original|modified|centered"


@pytest.mark.cases(rf"(?P<name>ab\d*)_qk_(?P<scheme>{SCHEMES})")
def test_adabits_units(values, by_width, name, scheme):
    expected, v = values[f"{name}_qk_{scheme}"], values.tensor(f"{name}_v")
    widths = values[f"{name}_bits"].tolist()
    by_width(lambda bits: adabits_unit(v, bits, scheme), widths, expected)


@pytest.mark.cases(rf"(?P<name>ab\d*)_(?P<key>conv|convg[wa])_(?P<scheme>{SCHEMES})_rs(?P<rs>[01])")
def test_adabits_convolutions(values, by_width, name, key, scheme, rs):
    expected, widths = values[f"{name}_{key}_{scheme}_rs{rs}"], values[f"{name}_bits"].tolist()
    w, x, alphas = values.leaf(f"{name}_w"), values.tensor(f"{name}_x"), values[f"{name}_alpha"]
    inputs = AdaBitsInputs(widths)
    levels = [inputs.levels[str(width)] for width in widths]
    for level, alpha in zip(levels, alphas.tolist(), strict=True):
        level.data.fill_(alpha)

    def found(bits):
        weight = adabits_weights(w, bits, scheme, rs == "1")
        out = F.conv2d(inputs(x, bits), weight, padding=[side // 2 for side in w.shape[2:]])
        loss = out.square().mean()
        if key == "conv":
            return out
        if key == "convgw":
            return torch.autograd.grad(loss, w)[0]
        slopes = torch.autograd.grad(loss, levels, allow_unused=True)
        return torch.stack([torch.zeros(()) if one is None else one for one in slopes])

    by_width(found, widths, expected)


# ---------------------------------------------------------------- combination of gradients


@pytest.mark.cases(r"(?P<name>moo\d+)_G")
def test_weights_of_the_smallest_norm(values, agrees, name):
    """Where gradients depend on each other affinely there are several; all must be smallest."""
    gradients, expected = values.tensor(f"{name}_G"), values[f"{name}_alpha"]

    def weights():
        alpha = min_norm(gram_matrix([[one] for one in gradients]))
        assert alpha.min() >= 0
        assert alpha.sum().item() == pytest.approx(1)
        return alpha

    with_ones = torch.cat([gradients, torch.ones_like(gradients[:, :1])], 1)
    if gradients.isnan().any() or torch.linalg.matrix_rank(with_ones) == len(gradients):
        agrees(weights, expected, 0, 1e-9)
    else:
        norms = [(one @ gradients).square().sum() for one in (weights(), torch.tensor(expected))]
        assert norms[0].item() == pytest.approx(norms[1].item(), abs=1e-9)


@pytest.mark.cases(r"(?P<name>moo\d+)_norm2")
def test_smallest_norms(values, agrees, name):
    expected, gradients = values[f"{name}_norm2"], values.tensor(f"{name}_G")

    def norm():
        alpha = min_norm(gram_matrix([[one] for one in gradients]))
        return (alpha @ gradients).square().sum()

    agrees(norm, expected, 0, 1e-9)
