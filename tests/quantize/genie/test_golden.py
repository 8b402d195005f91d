"""Numbers that the paper's own code gives."""

from itertools import chain as joined

import pytest
import torch
from torch.nn import functional as F

from smallnets.quantize.adaround import (
    beta_schedule,
    rectified_sigmoid,
    rectified_sigmoid_inverse,
    rounding_regulariser,
)
from smallnets.quantize.genie.generator import DataGenerator
from smallnets.quantize.genie.network import BitPolicy, calibrate, quantize
from smallnets.quantize.genie.quantizers import ActivationQuantizer, Mixer, WeightQuantizer
from smallnets.quantize.genie.reconstruct import (
    ReconstructionSettings,
    learn,
    reconstruction_loss,
)
from smallnets.quantize.genie.statistics import BatchNormInputs, bn_statistics, bns_loss
from smallnets.quantize.genie.swing import SwingConv2d, swing
from smallnets.quantize.genie.synthesis import SynthesisSettings, Variables, optimise
from smallnets.quantize.lsq import lsq
from smallnets.quantize.rounding import integer_range

EXACT = {"rtol": 1e-9, "atol": 1e-12}
STEPS = {"rtol": 1e-6, "atol": 1e-9}


def same(got, expected, **tolerance):
    torch.testing.assert_close(got.detach(), expected, **(tolerance or EXACT))


@pytest.mark.parametrize("bits", [2, 4])
def test_grid_and_round_to_nearest(values, bits):
    quantizer = WeightQuantizer(values["w"], bits, "nearest")
    same(quantizer.step, values[f"w{bits}_scale"])
    assert torch.equal(quantizer.zero, values[f"w{bits}_zero"])
    same(quantizer(), values[f"w{bits}_nearest"])
    other = WeightQuantizer(values["w"], bits, "nearest", power=2.0)
    assert not torch.allclose(other.step, values[f"w{bits}_scale"])


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("kind", ["signed", "unsigned"])
def test_activation_grid_and_lsq(values, bits, kind):
    x = values[f"act_{kind}"].clone().requires_grad_(True)
    quantizer = ActivationQuantizer(bits).double()
    quantizer.initialise(x)
    assert quantizer.signed == (kind == "signed")
    same(quantizer.step, values[f"a{bits}_{kind}_scale"].squeeze())
    quantizer.step.data = values[f"aq{bits}_{kind}_scale"].squeeze()
    out = quantizer(x)
    (out * torch.cos(3 * x.detach() + 0.5)).sum().backward()
    same(out, values[f"aq{bits}_{kind}_out"])
    same(quantizer.step.grad, values[f"aq{bits}_{kind}_ds"].squeeze())
    low, high = quantizer.limits
    inside = x.detach() / quantizer.step.detach()
    away = (inside != low) & (inside != high)  # on a limit, torch's own clamp has changed its mind
    assert away.double().mean() > 0.2
    same(x.grad[away], values[f"aq{bits}_{kind}_dx"][away])


def test_soft_bits(values):
    logit = values["rs_logit"].clone().requires_grad_(True)
    h = rectified_sigmoid(logit)
    h.sum().backward()
    same(h, values["rs_value"])
    same(logit.grad, values["rs_grad"])
    same(rectified_sigmoid_inverse(values["rs_frac"]), values["rs_inverse"])


def test_regulariser_and_its_exponent(values):
    for beta, value, grad in zip(
        values["reg_beta"], values["reg_value"], values["reg_grad"], strict=True
    ):
        logit = values["reg_logit"].clone().requires_grad_(True)
        found = rounding_regulariser(rectified_sigmoid(logit), float(beta))
        found.backward()
        same(found, value)
        same(logit.grad, grad)
    total = int(values["temp_max"])
    got = [beta_schedule(float(t), total) for t in values["temp_iter"]]
    same(torch.tensor(got, dtype=torch.float64), values["temp_value"])


@pytest.mark.parametrize("bits", [2, 4])
def test_genie_weights(values, bits):
    quantizer = WeightQuantizer(values["w"], bits, "genie")
    quantizer.soft = True
    assert torch.equal(quantizer.base, values[f"wq{bits}_base"])
    same(quantizer.logit, values[f"wq{bits}_logit0"], rtol=1e-8, atol=1e-9)
    same(quantizer(), values[f"wq{bits}_soft0"])
    quantizer.logit.data += values["wq_dlogit"]
    quantizer.step.data *= values["wq_scale_factor"]
    soft = quantizer()
    (soft * values["wq_upstream"]).sum().backward()
    same(soft, values[f"wq{bits}_soft"])
    same(quantizer.step.grad, values[f"wq{bits}_dscale"])
    same(quantizer.logit.grad, values[f"wq{bits}_dlogit"], rtol=1e-8, atol=1e-11)
    quantizer.soft = False
    same(quantizer(), values[f"wq{bits}_hard"])
    naive = WeightQuantizer(values["w"], bits, "naive")
    naive.soft = True
    naive.logit.data += values["wq_dlogit"]
    naive.step.data *= values["wq_scale_factor"]
    moved = naive()
    (moved * values["wq_upstream"]).sum().backward()
    assert not torch.allclose(moved, values[f"wq{bits}_soft"])
    assert not torch.allclose(naive.step.grad, values[f"wq{bits}_dscale"])


def test_qdrop(values):
    x = values["act_signed"].clone().requires_grad_(True)
    step = values["qdrop_scale"].clone().requires_grad_(True)
    mixer = Mixer(0.5, draws=iter([values["qdrop_uniform"]]))
    out = mixer(lsq(x, step, *integer_range(4)), x)
    (out * torch.cos(3 * x.detach() + 0.5)).sum().backward()
    same(out, values["qdrop_out"])
    same(x.grad, values["qdrop_dx"])
    same(step.grad, values["qdrop_ds"])


def test_swing(values):
    weight = values["swing_w"]
    conv = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, 2, 1).double()
    conv.weight.data, conv.bias.data = weight, values["swing_b"]
    swung = SwingConv2d(conv)
    for offset, expected in zip(values["swing_offset_w_h"], values["swing_out"], strict=True):
        across, down = offset.tolist()
        same(swung(values["swing_x"], (across, down)), expected)
        if across != down:
            assert not torch.allclose(swung(values["swing_x"], (down, across)), expected)
    assert torch.equal(swung(values["swing_x"], (1, 1)), conv(values["swing_x"]))
    same(conv(values["swing_x"]), values["swing_plain"])


def test_reconstruction_loss(values):
    prediction = values["rec_pred"].clone().requires_grad_(True)
    loss = reconstruction_loss(prediction, values["rec_target"])
    loss.backward()
    same(loss, values["rec_loss"])
    same(prediction.grad, values["rec_grad"])
    assert not torch.allclose(F.mse_loss(prediction, values["rec_target"]), values["rec_loss"])


def new_generator(values):
    weights = values["gen.conv_layers.2.weight"]
    side = values["dist_x0"].shape[-1]
    latent = values["dist_z0"].shape[1]
    generator = DataGenerator(side, latent, widths=(weights.shape[1], weights.shape[0])).double()
    state = {
        key.removeprefix("gen.").replace("conv_layers", "layers"): value
        for key, value in values.items()
        if key.startswith("gen.")
    }
    missing, unexpected = generator.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("running" in name or "num_batches" in name for name in missing)
    return generator


def test_synthesis_loss_and_gradient(values, chain):
    swung = swing(chain)
    offsets = values["dist_offsets_w_h"][0].tolist()
    swung.c2.draw = lambda: tuple(offsets[0])
    swung.c3.draw = lambda: tuple(offsets[1])
    images = values["dist_x0"].clone().requires_grad_(True)
    stats = bn_statistics(chain)
    with BatchNormInputs(swung) as tap:
        swung(images)
        loss = bns_loss(tap.inputs, stats, images)
        other = bns_loss(tap.inputs, stats, images, reduction="sum")
    loss.total.backward()
    same(torch.stack([loss.total, loss.mean, loss.std]), values["dist_loss_total_mean_std"][0])
    same(images.grad, values["dist_dx0"], rtol=1e-8, atol=1e-12)
    assert other.total.item() > 2 * loss.total.item()


def test_five_steps_of_synthesis(values, chain):
    generator = new_generator(values)
    swung = swing(chain.requires_grad_(False))
    offsets = values["dist_offsets_w_h"].tolist()
    rounds = iter(joined.from_iterable(offsets))
    swung.c2.draw = swung.c3.draw = lambda: tuple(next(rounds))
    latents = values["dist_z0"].clone().requires_grad_(True)
    first = []

    def draw():
        images = generator(latents)
        first.append(images.detach())
        return images

    settings = SynthesisSettings(iterations=len(offsets), batch_size=len(latents))
    images, losses = optimise(
        swung, bn_statistics(chain), draw, Variables([latents], [*generator.parameters()]), settings
    )
    same(first[0], values["dist_x0"])
    same(torch.tensor(losses).double(), values["dist_loss_total_mean_std"][:, 0], **STEPS)
    same(images, values["dist_images"], **STEPS)
    same(latents, values["dist_z_end"], **STEPS)
    same(generator.layers[6].weight, values["dist_gen_last_conv_end"], **STEPS)


def test_block_reconstruction(values, block):
    weight_bits, activation_bits, iterations, batch = values[
        "blk_settings_bw_ba_iters_batch"
    ].tolist()
    none = BitPolicy(first=None, second_input=None, last=None, images=activation_bits)
    network = quantize(block, weight_bits, activation_bits, policy=none)
    x, xq = values["blk_x"], values["blk_xq"]
    same(network.original(x), values["blk_y"])
    assert len(network.activations) == 2  # conv1's input is the shortcut's, too
    (unit,) = network.units()
    _, student = network.pair(unit)
    calibrate(network, xq)
    same(student(xq)[-1], values["blk_y_nearest"])
    ends = [("in", network.activations[0]), ("mid", network.activations[1])]
    for name, quantizer in ends:
        same(quantizer.step, values[f"blk_act_{name}_scale0"].squeeze())
    for name, weights in network.weights.items():
        same(weights.step, values[f"blk_{name}_scale0"])
        assert torch.equal(weights.zero, values[f"blk_{name}_zero"])
    uniforms = [values[f"blk_uniform{i}"] for i in range(4)]
    draws = iter([u[t] for t in range(iterations) for u in uniforms])
    each = values["blk_perm"].shape[1] // batch
    rows = [part for perm in values["blk_perm"] for part in perm.view(batch, each)]
    history = learn(
        student,
        values["blk_y"],
        [x],
        [xq],
        ReconstructionSettings(iterations=iterations, batch_size=each),
        mixer=Mixer(0.5, draws=draws),
        rows=rows,
    )
    got = [[one.reconstruction, one.rounding, one.beta, one.total] for one in history]
    same(
        torch.tensor(got, dtype=torch.float64),
        values["blk_history_rec_round_beta_total"],
        **STEPS,
    )
    for name, weights in network.weights.items():
        same(weights.step, values[f"blk_{name}_scale_end"], **STEPS)
        same(weights.logit, values[f"blk_{name}_logit_end"], **STEPS)
    for name, quantizer in ends:
        same(quantizer.step, values[f"blk_act_{name}_scale_end"].squeeze(), **STEPS)
    same(network(xq), values["blk_y_end"], **STEPS)
