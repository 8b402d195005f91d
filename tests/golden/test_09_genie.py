"""Chapter 09: Genie's quantisers, images and reconstruction, as the paper's own code has them."""

import re
from functools import cache, partial
from importlib import import_module
from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets.quantize.adaround import (
    beta_schedule,
    hard_codes,
    rectified_sigmoid,
    rectified_sigmoid_inverse,
    rounding_regulariser,
    soft_start,
    soft_weights,
)
from smallnets.quantize.genie.generator import DataGenerator
from smallnets.quantize.genie.network import BitPolicy, calibrate, quantize
from smallnets.quantize.genie.quantizers import ActivationQuantizer, QDrop, WeightQuantizer
from smallnets.quantize.genie.reconstruct import ReconstructionSettings, learn, reconstruction_loss
from smallnets.quantize.genie.statistics import BatchNormInputs, bn_statistics, bns_loss
from smallnets.quantize.genie.swing import SwingConv2d, swing
from smallnets.quantize.genie.synthesis import SynthesisSettings, Variables, optimise
from smallnets.quantize.lsq import lsq
from smallnets.quantize.rounding import integer_range
from smallnets.quantize.uniform import dequantize, fake_quantize, search_grid

STEPS = {"rtol": 1e-6, "atol": 1e-9}  # after a few of Adam's
NEAR_LOG_0 = {"rtol": 1e-8, "atol": 1e-11}


def gradient(output, upstream, x):
    return torch.autograd.grad(output, x, upstream)[0]


# Weights.


@pytest.mark.cases(r"w(?P<bits>\d+)_(?P<what>scale|zero|nearest)")
def test_searched_grids_of_weights(values, agrees, bits, what):
    w, bits, expected = values.tensor("w"), int(bits), values[f"w{bits}_{what}"]
    tolerance = {"rtol": 0, "atol": 0} if what == "zero" else {}

    def functions():
        step, zero = search_grid(w, bits)
        nearest = fake_quantize(w, step, 0, 2**bits - 1, zero)
        return {"scale": step, "zero": zero, "nearest": nearest}[what]

    def module():
        quantizer = WeightQuantizer(w, bits, "nearest")
        return {"scale": quantizer.step, "zero": quantizer.zero, "nearest": quantizer()}[what]

    agrees(functions, expected, **tolerance)
    agrees(module, expected, **tolerance)


@pytest.mark.cases(r"wq(?P<bits>\d+)_(?P<what>\w+)")
def test_soft_weights(values, agrees, bits, what):
    step, zero = values.tensor(f"w{bits}_scale"), values.tensor(f"w{bits}_zero")
    high = 2 ** int(bits) - 1

    def functions():
        base, logits = soft_start(values.tensor("w"), step)
        if what in ("base", "logit0"):
            return {"base": base, "logit0": logits}[what]
        if what == "soft0":
            return soft_weights(base, logits, step, zero, high)
        shifted = (logits + values.tensor("wq_dlogit")).requires_grad_()
        wider = (step * values.tensor("wq_scale_factor")).requires_grad_()
        if what == "hard":
            return dequantize(hard_codes(base, shifted, zero, high), wider, zero)
        soft = soft_weights(base, shifted, wider, zero, high)
        if what == "soft":
            return soft
        return gradient(
            soft, values.tensor("wq_upstream"), {"scale": wider, "logit": shifted}[what[1:]]
        )

    tolerance = {"logit0": NEAR_LOG_0, "base": {"rtol": 0, "atol": 0}}.get(what, {})
    agrees(functions, values[f"wq{bits}_{what}"], **tolerance)


def soft_quantizer(values, bits, mode="genie"):
    """A quantiser of `w` while it learns."""
    quantizer = WeightQuantizer(values.tensor("w"), int(bits), mode)
    quantizer.soft = True
    return quantizer


def moved(values, quantizer):
    """The quantiser with its logits and steps changed as the files say."""
    quantizer.logit.data += values.tensor("wq_dlogit")
    quantizer.step.data *= values.tensor("wq_scale_factor")
    return quantizer


@pytest.mark.cases(r"wq(?P<bits>\d+)_(?P<what>\w+)")
def test_genie_weights(values, agrees, bits, what):
    def module():
        quantizer = soft_quantizer(values, bits)
        if what in ("base", "logit0"):
            return {"base": quantizer.base, "logit0": quantizer.logit}[what]
        if what == "soft0":
            return quantizer()
        moved(values, quantizer)
        quantizer.soft = what != "hard"
        if what in ("soft", "hard"):
            return quantizer()
        learnt = {"dscale": quantizer.step, "dlogit": quantizer.logit}[what]
        return gradient(quantizer(), values.tensor("wq_upstream"), learnt)

    tolerance = {
        "base": {"rtol": 0, "atol": 0},
        "logit0": {"rtol": 1e-8, "atol": 1e-9},
        "dlogit": NEAR_LOG_0,
    }.get(what, {})
    agrees(module, values[f"wq{bits}_{what}"], **tolerance)


# Soft bits.


@pytest.mark.cases(r"rs_(?P<what>value|grad)")
def test_soft_bits(values, agrees, what):
    def soft():
        logit = values.leaf("rs_logit")
        bits = rectified_sigmoid(logit)
        return bits if what == "value" else gradient(bits, torch.ones_like(bits), logit)

    agrees(soft, values[f"rs_{what}"])


def test_soft_bits_invert(values, agrees):
    agrees(lambda: rectified_sigmoid_inverse(values.tensor("rs_frac")), values["rs_inverse"])


@pytest.mark.cases(r"reg_(?P<what>value|grad)")
def test_the_regulariser_of_soft_bits(values, agrees, what):
    def regulariser(beta):
        logit = values.leaf("reg_logit")
        term = rounding_regulariser(rectified_sigmoid(logit), beta)
        return term if what == "value" else gradient(term, None, logit)

    for beta, expected in zip(values["reg_beta"].tolist(), values[f"reg_{what}"], strict=True):
        agrees(partial(regulariser, beta), expected)


def test_the_schedule_of_beta(values, agrees):
    total = int(values["temp_max"])
    for at, expected in zip(values["temp_iter"].tolist(), values["temp_value"], strict=True):
        agrees(partial(beta_schedule, at, total), expected)


# Activations.


@pytest.mark.cases(r"a(?P<bits>\d+)_(?P<kind>\w+)_scale")
def test_searched_grids_of_activations(values, agrees, bits, kind):
    x, bits, expected = values.tensor(f"act_{kind}"), int(bits), values[f"a{bits}_{kind}_scale"]
    signed = bool((x < 0).any())

    def module():
        quantizer = ActivationQuantizer(bits).double()
        quantizer.initialise(x)
        assert quantizer.signed == signed
        return quantizer.step

    agrees(
        lambda: search_grid(x, bits, symmetric=True, signed=signed, per_channel=False)[0], expected
    )
    agrees(module, expected)


@pytest.mark.cases(r"aq(?P<bits>\d+)_(?P<kind>\w+)_(?P<what>out|dx|ds)")
def test_learned_steps_without_a_factor(values, agrees, bits, kind, what):
    x, step = values.leaf(f"act_{kind}"), values.leaf(f"aq{bits}_{kind}_scale")
    upstream = torch.cos(3 * x.detach() + 0.5)
    signed = bool((x < 0).any())

    def function():
        return lsq(x, step, *integer_range(int(bits), signed)), step

    def module():
        quantizer = ActivationQuantizer(int(bits)).double()
        quantizer.initialise(x)
        quantizer.step.data = step.detach().squeeze()
        return quantizer(x), quantizer.step

    def of(makes):
        output, learnt = makes()
        return (
            output if what == "out" else gradient(output, upstream, {"dx": x, "ds": learnt}[what])
        )

    expected = values[f"aq{bits}_{kind}_{what}"].copy()
    if what == "dx":  # on a limit (zeros after a ReLU) torch's own clamp has changed its mind
        low, high = integer_range(int(bits), signed)
        limit = ((x == low * step) | (x == high * step)).numpy()
        expected[limit] = upstream.numpy()[limit]
    agrees(partial(of, function), expected)
    agrees(partial(of, module), expected)


@pytest.mark.cases(r"qdrop_(?P<what>out|dx|ds)")
def test_qdrop(values, agrees, what):
    def mixed():
        x, step = values.leaf("act_signed"), values.leaf("qdrop_scale")
        mixer = QDrop(0.5, draws=iter([values.tensor("qdrop_uniform")]))
        output = mixer(lsq(x, step, *integer_range(4)), x)
        if what == "out":
            return output
        return gradient(output, torch.cos(3 * x.detach() + 0.5), {"dx": x, "ds": step}[what])

    agrees(mixed, values[f"qdrop_{what}"])


# Images.


def convolution(weight, **settings):
    """A convolution of this weight; its padding keeps the size at stride 1."""
    out, channels, *kernel = weight.shape
    made = nn.Conv2d(channels, out, kernel, padding=[k // 2 for k in kernel], **settings)
    made.weight.data = weight
    return made


@pytest.fixture
def strided(values):
    made = convolution(values.tensor("swing_w"), stride=2).double()
    made.bias.data = values.tensor("swing_b")
    return made


def test_a_plain_strided_convolution(values, agrees, strided):
    agrees(lambda: strided(values.tensor("swing_x")), values["swing_plain"])


def test_swing(values, agrees, strided):
    swung, x = SwingConv2d(strided), values.tensor("swing_x")
    offsets = values["swing_offset_w_h"].tolist()
    for offset, expected in zip(offsets, values["swing_out"], strict=True):
        agrees(partial(swung, x, tuple(offset)), expected)
    assert torch.equal(swung(x, (1, 1)), strided(x))


@pytest.mark.cases(r"rec_(?P<what>loss|grad)")
def test_reconstruction_loss(values, agrees, what):
    def loss():
        output = values.leaf("rec_pred")
        found = reconstruction_loss(output, values.tensor("rec_target"))
        return found if what == "loss" else gradient(found, None, output)

    agrees(loss, values[f"rec_{what}"])


def load(network, state):
    """Put a state into a network, which may count batches besides."""
    missing, unexpected = network.double().load_state_dict(state, strict=False)
    assert not unexpected
    assert all("num_batches" in name or "running" in name for name in missing)
    return network


@pytest.fixture
def network(values):
    """Convolutions c1, c2, ... with norms b1, b2, ... and ReLUs between; the last of them strided,
    as many as there are offsets for."""
    state = values.under("net.")
    depth = sum(re.fullmatch(r"c\d+\.weight", name) is not None for name in state)
    first = depth - values["dist_offsets_w_h"].shape[1]
    made = nn.Sequential()
    for i in range(depth):
        weight = state[f"c{i + 1}.weight"]
        stride = 2 if i >= first else 1
        made.add_module(f"c{i + 1}", convolution(weight, stride=stride, bias=False))
        made.add_module(f"b{i + 1}", nn.BatchNorm2d(len(weight)))
        if i < depth - 1:
            made.add_module(f"r{i + 1}", nn.ReLU())
    return load(made, state).eval().requires_grad_(False)


def swings(network, rounds):
    """A copy whose strided convolutions take offsets (rounds, convolutions, 2) in turn."""
    swung = swing(network)
    places = [tuple(offset) for offset in rounds.reshape(-1, 2).tolist()]
    draws = iter(places)
    convolutions = [one for one in swung.modules() if isinstance(one, SwingConv2d)]
    assert len(convolutions) == rounds.shape[1]
    for one in convolutions:
        one.draw = lambda: next(draws)
    return swung


def generator_of(values):
    """The generator of these weights, for images of the size of dist_x0."""
    state = {
        key.replace("conv_layers", "layers"): value for key, value in values.under("gen.").items()
    }
    _, channels, *size = values["dist_x0"].shape
    second, first = state["layers.2.weight"].shape[:2]
    latent = state["linear.weight"].shape[1]
    return load(DataGenerator(tuple(size), latent, channels, (first, second)), state)


@pytest.mark.parametrize("what", ["losses", "dx0"])
def test_the_first_loss_of_synthesis_and_its_gradient(values, agrees, network, what):
    images = values.leaf("dist_x0")

    def matched():
        swung = swings(network, values["dist_offsets_w_h"][:1])
        with BatchNormInputs(swung) as tap:
            swung(images)
            loss = bns_loss(tap.inputs, bn_statistics(network), images)
        if what == "dx0":
            return gradient(loss.total, None, images)
        return torch.stack([loss.total, loss.mean, loss.std])

    if what == "losses":
        agrees(matched, values["dist_loss_total_mean_std"][0])
    else:
        agrees(matched, values["dist_dx0"], rtol=1e-8, atol=1e-12)


@pytest.mark.cases(
    r"dist_(?P<what>x0|loss_total_mean_std|images|z_end|gen_last_conv_end)",
)
def test_steps_of_synthesis(values, agrees, network, monkeypatch, what):
    module = import_module("smallnets.quantize.genie.synthesis")
    first, losses = [], []

    def recorded(*args, **settings):
        loss = bns_loss(*args, **settings)
        losses.append(torch.stack([loss.total, loss.mean, loss.std]).detach())
        return loss

    monkeypatch.setattr(module, "bns_loss", recorded)

    def synthesis():
        offsets, latents = values["dist_offsets_w_h"], values.leaf("dist_z0")
        generator = generator_of(values)

        def draw():
            images = generator(latents)
            first.append(images.detach())
            return images

        images, totals = optimise(
            swings(network, offsets),
            bn_statistics(network),
            draw,
            Variables([latents], [*generator.parameters()]),
            SynthesisSettings(iterations=len(offsets), batch_size=len(latents)),
        )
        assert totals == [float(loss[0]) for loss in losses]
        return {
            "x0": first[0],
            "loss_total_mean_std": torch.stack(losses),
            "images": images,
            "z_end": latents,
            "gen_last_conv_end": generator.layers[6].weight,
        }[what]

    agrees(synthesis, values[f"dist_{what}"], **({} if what == "x0" else STEPS))


# Reconstruction.


class Block(nn.Module):
    """conv1, bn1, ReLU, conv2, bn2, ..., plus what came in, ReLU."""

    def __init__(self, state):
        super().__init__()
        self.depth = sum(re.fullmatch(r"conv\d+\.weight", name) is not None for name in state)
        for i in range(1, self.depth + 1):
            weight = state[f"conv{i}.weight"]
            self.add_module(f"conv{i}", convolution(weight, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(len(weight)))
        self.identity = nn.Identity()

    def forward(self, x):
        out = x
        for i in range(1, self.depth + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            if i < self.depth:
                out = out.relu()
        return (out + self.identity(x)).relu()


@pytest.fixture(scope="module")
def block(values):
    """block(learnt): the quantised block of the files, before or after it has learned."""
    state, uniforms = values.under("blk."), values.under("blk_uniform")

    @cache
    def made(learnt):
        bits = values["blk_settings_bw_ba_iters_batch"].tolist()
        weight_bits, activation_bits, iterations, batch = bits
        network = load(Block(state), state).eval()
        none = BitPolicy(first=None, second_input=None, last=None, images=activation_bits)
        quantised = quantize(network, weight_bits, activation_bits, policy=none)
        # The identity's input is conv1's, too.
        assert len(quantised.activations) == network.depth
        x, xq = values.tensor("blk_x"), values.tensor("blk_xq")
        (unit,) = quantised.units()
        _, student = quantised.pair(unit)
        calibrate(quantised, xq)
        if not learnt:
            return quantised, student, []
        each = values["blk_perm"].shape[1] // batch
        rows = [row for order in values.tensor("blk_perm") for row in order.view(batch, each)]
        draws = [uniforms[str(i)] for i in range(len(uniforms))]
        history = learn(
            student,
            quantised.original(x),
            [x],
            [xq],
            ReconstructionSettings(iterations=iterations, batch_size=each),
            mixer=QDrop(0.5, draws=chain.from_iterable(zip(*draws, strict=True))),
            rows=rows,
        )
        return quantised, student, history

    return made


def test_the_block_before_it_is_quantised(values, agrees, block):
    agrees(lambda: block(False)[0].original(values.tensor("blk_x")), values["blk_y"])


def test_the_block_before_it_learns(values, agrees, block):
    agrees(lambda: block(False)[1](values.tensor("blk_xq"))[-1], values["blk_y_nearest"])


def test_the_block_after_it_has_learned(values, agrees, block):
    agrees(lambda: block(True)[0](values.tensor("blk_xq")), values["blk_y_end"], **STEPS)


@pytest.mark.cases(r"blk_(?P<layer>conv\d+)_(?P<what>scale|zero|logit)(?P<when>0|_end|)")
def test_weights_of_the_block(values, agrees, block, layer, what, when):
    def weights():
        found = block(when == "_end")[0].weights[layer]
        return {"scale": found.step, "zero": found.zero, "logit": found.logit}[what]

    tolerance = STEPS if when == "_end" else {"rtol": 0, "atol": 0} if what == "zero" else {}
    agrees(weights, values[f"blk_{layer}_{what}{when}"], **tolerance)


@pytest.mark.cases(r"blk_act_(?P<name>in|mid)_scale(?P<when>0|_end)")
def test_activations_of_the_block(values, agrees, block, name, when):
    place = ["in", "mid"].index(name)
    agrees(
        lambda: block(when == "_end")[0].activations[place].step,
        values[f"blk_act_{name}_scale{when}"],
        **(STEPS if when == "_end" else {}),
    )


def test_losses_of_the_block(values, agrees, block):
    def losses():
        steps = block(True)[2]
        rows = [[one.reconstruction, one.rounding, one.beta, one.total] for one in steps]
        return torch.tensor(rows, dtype=torch.float64)

    agrees(losses, values["blk_history_rec_round_beta_total"], **STEPS)


# What is true of the committed numbers: wrong variants differ visibly.


@pytest.mark.sample
@pytest.mark.cases(r"w(?P<bits>\d+)_scale")
def test_another_power_finds_another_grid(values, bits):
    other = WeightQuantizer(values.tensor("w"), int(bits), "nearest", power=2.0)
    assert not np.allclose(other.step.detach(), values[f"w{bits}_scale"])


@pytest.mark.sample
@pytest.mark.cases(r"wq(?P<bits>\d+)_soft")
def test_the_naive_way_is_another_one(values, bits):
    naive = moved(values, soft_quantizer(values, bits, "naive"))
    soft = naive()
    slope = gradient(soft, values.tensor("wq_upstream"), naive.step)
    assert not np.allclose(soft.detach(), values[f"wq{bits}_soft"])
    assert not np.allclose(slope, values[f"wq{bits}_dscale"])


@pytest.mark.sample
@pytest.mark.cases(r"aq(?P<bits>\d+)_(?P<kind>\w+)_dx")
def test_kinds_of_activations(values, bits, kind):
    x, step = values[f"act_{kind}"], values[f"aq{bits}_{kind}_scale"]
    low, high = integer_range(int(bits), signed=kind == "signed")
    limit = (x == low * step) | (x == high * step)
    assert (x < 0).any() == (kind == "signed")
    assert limit.any() == (kind == "unsigned")
    assert limit.mean() < 0.8


@pytest.mark.sample
def test_width_and_height_are_not_the_same(values, strided):
    swung, x = SwingConv2d(strided), values.tensor("swing_x")
    offsets = [tuple(offset) for offset in values["swing_offset_w_h"].tolist()]
    assert offsets == [(across, down) for across in range(3) for down in range(3)]
    for (across, down), expected in zip(offsets, values["swing_out"], strict=True):
        same = np.allclose(swung(x, (down, across)).detach(), expected)
        assert same == (across == down)


@pytest.mark.sample
def test_the_reconstruction_loss_is_no_mean(values):
    mean = F.mse_loss(values.tensor("rec_pred"), values.tensor("rec_target"))
    assert not np.allclose(mean, values["rec_loss"])


@pytest.mark.sample
def test_a_sum_over_channels_is_another_loss(values, network):
    images = values.tensor("dist_x0")
    swung = swings(network, values["dist_offsets_w_h"][:1])
    with BatchNormInputs(swung) as tap:
        swung(images)
        loss = bns_loss(tap.inputs, bn_statistics(network), images, reduction="sum")
    assert loss.total > 2 * values["dist_loss_total_mean_std"][0, 0]
