"""Does knowledge distillation work: ensembles, losses, measures, interpolation, CKA, training.

The student's logits are `zs`, the teacher's `zt`; ensembles are (batch, member, class).
"""

import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from smallnets import measure
from smallnets.data import blend
from smallnets.distill.fidelity import (
    LOSSES,
    FidelityMeter,
    annealed,
    distillation_loss,
    divergence,
    ensemble_log_probs,
    hard_cross_entropy,
    interpolate_state,
    logit_loss,
    member_divergence,
    mixed_cross_entropy,
    plane_basis,
    real_and_synthetic,
    soft_cross_entropy,
    tempered,
)
from smallnets.measure import calibration_bins, cka
from smallnets.measure.alignment import hsic, kernel_matrix
from smallnets.models import named
from smallnets.surgery import recalibrate
from smallnets.training import TrainSettings, learning_rate, new_optimizer

OUR_NAME = {
    "fwdce": "soft", "kl": "kl", "symkl": "symmetric", "revce": "reverse", "hardce": "hard",
    "brier": "brier",
}  # fmt: skip
SINGLE = {"rtol": 1e-9, "atol": 1e-6}  # where the published code counts in single precision


def pair(values, case):
    """The teacher's logits, and the student's, which take a gradient."""
    return values.tensor(f"{case}_zt"), values.leaf(f"{case}_zs")


def slope(loss, leaf):
    """Gradient of a loss with respect to one of its inputs."""
    return torch.autograd.grad(loss, leaf)[0]


def asked(loss, student, teacher, temperature=1.0, **rest):
    """A loss that takes its logits by name."""
    return loss(student_logits=student, teacher_logits=teacher, temperature=temperature, **rest)


@pytest.mark.cases(r"(?P<case>\w+)_member_logits_bmc")
def test_an_ensemble_averages_probabilities(values, agrees, case):
    members = values.tensor(f"{case}_member_logits_bmc")
    agrees(lambda: ensemble_log_probs(members), values[f"{case}_logmeanprob"])
    agrees(lambda: ensemble_log_probs(list(members.unbind(1))), values[f"{case}_logmeanprob"])
    agrees(lambda: ensemble_log_probs(members).exp(), values[f"{case}_prob_mean"])


@pytest.mark.cases(r"(?P<case>\w+)_soft_official")
def test_temperature_comes_after_the_reduction(values, agrees, case):
    members = values.tensor(f"{case}_member_logits_bmc")
    for tau, expected in zip(
        values[f"{case}_taus"].tolist(), values[f"{case}_soft_official"], strict=True
    ):
        agrees(lambda t=tau: tempered(ensemble_log_probs(members), t).exp(), expected)


@pytest.mark.cases(r"(?P<case>\w+)_soft_(?P<order>temper_members_then_mean|logitmean)")
def test_other_orders_of_averaging_and_tempering(values, agrees, case, order):
    members = values.tensor(f"{case}_member_logits_bmc")
    orders = {
        "temper_members_then_mean": lambda t: tempered(members.mT, t).exp().mean(2),
        "logitmean": lambda t: tempered(members.mean(1), t).exp(),
    }
    for tau, expected in zip(
        values[f"{case}_taus"].tolist(), values[f"{case}_soft_{order}"], strict=True
    ):
        agrees(lambda t=tau: orders[order](t), expected)


@pytest.mark.cases(r"(?P<case>\w+)_logit_mean_softmax")
def test_mean_of_logits(values, agrees, case):
    members = values.tensor(f"{case}_member_logits_bmc")
    agrees(lambda: members.mean(1).softmax(1), values[f"{case}_logit_mean_softmax"])


@pytest.mark.sample
@pytest.mark.cases(r"(?P<case>\w+)_soft_official")
def test_the_orders_differ(values, case):
    ours = values[f"{case}_soft_official"]
    hot = values[f"{case}_taus"] > 1
    for order, which in (("logitmean", hot | True), ("temper_members_then_mean", hot)):
        gaps = np.abs(ours - values[f"{case}_soft_{order}"]).max((1, 2))
        assert (gaps[which] > 1e-3).all()


@pytest.mark.cases(rf"(?P<case>\w+)_(?P<loss>{'|'.join(OUR_NAME)})_grad")
def test_losses_and_gradients(values, agrees, case, loss):
    teacher, student = pair(values, case)
    ours = LOSSES[OUR_NAME[loss]]
    taus = values[f"{case}_taus"].tolist()
    for tau, expected in zip(taus, values[f"{case}_{loss}"], strict=True):
        agrees(lambda t=tau: asked(ours, student, teacher, t), expected)
    for tau, expected in zip(taus, values[f"{case}_{loss}_grad"], strict=True):
        agrees(lambda t=tau: slope(asked(ours, student, teacher, t), student), expected)


@pytest.mark.cases(r"(?P<case>\w+)_cvx_after(?P<epochs>\d+)")
def test_mixture_of_hard_and_soft(values, agrees, case, epochs):
    teacher, student = pair(values, case)
    hard = float(values[f"{case}_cvx_beta"])
    for tau, expected in zip(
        values[f"{case}_taus"].tolist(), values[f"{case}_cvx_after{epochs}"], strict=True
    ):
        agrees(lambda t=tau: asked(mixed_cross_entropy, student, teacher, t, hard=hard), expected)


@pytest.mark.sample
@pytest.mark.cases(r"(?P<case>\w+)_cvx_after(?P<epochs>\d+)")
def test_the_mixture_was_annealed_from_a_half_over_ten_epochs(values, case, epochs):
    assert annealed(0.5, int(epochs), 10) == pytest.approx(float(values[f"{case}_cvx_beta"]))


@pytest.mark.cases(r"(?P<case>\w+)_total_tau(?P<tau>[\d.]+)")
def test_labels_and_teacher_together(values, agrees, case, tau):
    teacher, student = pair(values, case)
    labels = values.tensor(f"{case}_y")
    for alpha, expected in zip(
        values[f"{case}_total_alpha"].tolist(), values[f"{case}_total_tau{tau}"], strict=True
    ):
        agrees(lambda a=alpha: distillation_loss(student, teacher, labels, a, float(tau)), expected)


@pytest.mark.sample
@pytest.mark.cases(r"(?P<case>\w+)_total_tau(?P<tau>[\d.]+)")
def test_alpha_weighs_the_labels_and_not_the_teacher(values, case, tau):
    teacher, student = pair(values, case)
    alpha, expected = values[f"{case}_total_alpha"][-1], values[f"{case}_total_tau{tau}"][-1]
    labels = values.tensor(f"{case}_y")
    wrong = distillation_loss(student, teacher, labels, 1 - float(alpha), float(tau)).item()
    assert abs(wrong - expected) > 0.1


@pytest.mark.cases(r"(?P<case>\w+)_temp")
def test_a_temperature_a_row_and_rows_without_labels(values, agrees, case):
    teacher, student = pair(values, case)
    labels, tau = values.tensor(f"{case}_y"), values.tensor(f"{case}_temp")
    agrees(lambda: asked(soft_cross_entropy, student, teacher, tau), values[f"{case}_fwdce"])
    alpha = float(values[f"{case}_alpha"])
    expected = values[f"{case}_total"]
    agrees(lambda: distillation_loss(student, teacher, labels, alpha, tau), expected)
    if not np.isnan(expected):
        assert torch.isfinite(asked(hard_cross_entropy, student, teacher, tau))


@pytest.mark.cases(r"(?P<case>\w+)_grad_meanreduced")
def test_gradients_up_to_high_temperatures(values, agrees, case):
    teacher, student = pair(values, case)
    for tau, expected in zip(
        values[f"{case}_taus"].tolist(), values[f"{case}_grad_meanreduced"], strict=True
    ):
        agrees(
            lambda t=tau: slope(asked(soft_cross_entropy, student, teacher, t), student),
            expected,
            rtol=1e-7,
            atol=1e-10,
        )


@pytest.mark.cases(r"(?P<case>\w+)_limit")
def test_their_limit_is_the_gradient_of_the_logit_loss(values, agrees, case):
    teacher, student = pair(values, case)
    agrees(lambda: slope(asked(logit_loss, student, teacher), student), values[f"{case}_limit"])


@pytest.mark.sample
@pytest.mark.cases(r"(?P<case>\w+)_limit")
def test_ten_times_the_temperature_is_ten_times_as_near_the_limit(values, case):
    limit = values[f"{case}_limit"]
    gaps = np.abs(values[f"{case}_grad_meanreduced"] - limit).max((1, 2))
    np.testing.assert_allclose(values[f"{case}_taus"][1:] / values[f"{case}_taus"][:-1], 10)
    np.testing.assert_allclose(gaps[1:-1] / gaps[2:], 10, rtol=0.1)
    misprint = (values[f"{case}_zs"] - values[f"{case}_zt"]) / len(limit)
    assert (limit - misprint).std() > 0.01


@pytest.mark.cases(r"(?P<case>\w+)_members_bmc")
def test_members_one_by_one_and_as_an_ensemble(values, agrees, case):
    members, student = values.tensor(f"{case}_members_bmc"), values.tensor(f"{case}_zs")
    agrees(
        lambda: member_divergence(student_logits=student, member_logits=members),
        values[f"{case}_avg_symkl"],
    )
    expected = values[f"{case}_kl_to_ensemble"]
    agrees(lambda: asked(divergence, student, ensemble_log_probs(members)), expected)
    if not np.isnan(expected):
        to_each = torch.stack([asked(divergence, student, one) for one in members.unbind(1)])
        assert expected <= to_each.mean().item() + 1e-12  # convexity


def measured(values, case, batch=None, bins=10, swap=False):
    """All measures of the student, in batches of a size; `swap` exchanges the two networks."""
    sides = [values.tensor(f"{case}_{key}") for key in ("zt", "zs")]
    labels = values.tensor(f"{case}_y")
    meter = FidelityMeter(bins)
    parts = (x.split(batch or len(x)) for x in (*(sides[::-1] if swap else sides), labels))
    for part in zip(*parts, strict=True):
        meter.update(**dict(zip(("teacher_logits", "student_logits", "labels"), part, strict=True)))
    return meter.compute()


@pytest.mark.parametrize("batch", [None, 64, 7])
@pytest.mark.parametrize(
    ("name", "key", "tolerance"),
    [
        ("agreement", "agree", SINGLE),
        ("accuracy", "acc_s", SINGLE),
        ("teacher accuracy", "acc_t", SINGLE),
        ("kl", "kl_ts", {}),
        ("nll", "nll", {}),
        ("brier", "brier_sum", {}),
    ],
)
@pytest.mark.cases(r"(?P<case>\w+)_nll")
def test_measures_in_batches_of_any_size(values, agrees, case, batch, name, key, tolerance):
    agrees(lambda: measured(values, case, batch)[name], values[f"{case}_{key}"], **tolerance)


@pytest.mark.cases(r"(?P<case>\w+)_kl_st")
def test_divergence_in_the_other_direction(values, agrees, case):
    agrees(lambda: measured(values, case, swap=True)["kl"], values[f"{case}_kl_st"])


@pytest.mark.cases(r"(?P<case>\w+)_kl_(?P<way>ts|st)_official_finite")
def test_divergences_are_finite_at_least_where_the_published_ones_are(values, case, way):
    finite = values[f"{case}_kl_{way}_official_finite"]
    assert finite.dtype == bool
    if finite:
        assert math.isfinite(measured(values, case, swap=way == "st")["kl"])


@pytest.mark.sample
@pytest.mark.cases(r"(?P<case>\w+)_kl_ts")
def test_both_directions_are_finite_and_differ(values, case):
    assert values[f"{case}_kl_ts_official_finite"]
    assert values[f"{case}_kl_st_official_finite"]
    assert abs(values[f"{case}_kl_ts"] - values[f"{case}_kl_st"]) > 1e-3


@pytest.mark.cases(r"(?P<case>\w+)_nll_official_buggy")
def test_the_printed_likelihood_pairs_every_image_with_every_label(values, agrees, case):
    """It is no likelihood, and not ours."""
    student, labels = values.tensor(f"{case}_zs"), values.tensor(f"{case}_y")
    printed = values[f"{case}_nll_official_buggy"]
    agrees(lambda: -tempered(student, 1.0)[:, labels].mean(), printed)
    assert len(labels) == 1 or measured(values, case)["nll"] != pytest.approx(float(printed))


@pytest.mark.sample
@pytest.mark.cases(r"(?P<case>\w+)_nll_official_buggy")
def test_which_is_far_from_the_truth_here(values, case):
    assert abs(values[f"{case}_nll"] - values[f"{case}_nll_official_buggy"]) > 1


@pytest.mark.cases(r"(?P<case>\w+)_ece(?P<bins>\d+)")
def test_calibration_error(values, agrees, case, bins):
    student, labels = values.tensor(f"{case}_zs"), values.tensor(f"{case}_y")
    expected = values[f"{case}_ece{bins}"]
    agrees(lambda: measured(values, case, 64, int(bins))["ece"], expected, **SINGLE)
    if not np.isnan(expected):
        agrees(lambda: calibration_bins(student, labels, int(bins)).error(), expected, **SINGLE)
        again = measure.calibration_error(student, labels, int(bins))
        assert again == pytest.approx(calibration_bins(student, labels, int(bins)).error())


@pytest.mark.cases(r"(?P<case>\w+)_ece(?P<bins>\d+)_(?P<what>count|correct|prob)")
def test_calibration_bins_are_closed_on_the_right(values, agrees, case, bins, what):
    expected = values[f"{case}_ece{bins}_{what}"]
    assert len(expected) == int(bins)
    student, labels = values.tensor(f"{case}_zs"), values.tensor(f"{case}_y")
    name, rtol = ("confidence", 1e-5) if what == "prob" else (what, 0)
    agrees(lambda: getattr(calibration_bins(student, labels, int(bins)), name), expected, rtol, 0)


def rebuilt(values, case):
    """A network from the names and sizes of its state: convolutions, norms, then linear layers.

    Numbers that the state leaves out belong to ReLUs, the last one before the linear layers to a
    flattening.
    """
    sizes = dict(
        zip(values[f"{case}_keys"].tolist(), values[f"{case}_shapes_numel"].tolist(), strict=True)
    )
    channels, places = values[f"{case}_x0"].shape[1], sorted({int(k.split(".")[0]) for k in sizes})
    layers = {}
    for i in places:
        weight, bias = sizes[f"{i}.weight"], sizes.get(f"{i}.bias")
        if f"{i}.running_mean" in sizes:
            layers[i] = nn.BatchNorm2d(weight)
        elif bias is None:  # a convolution, whose outputs the norm that follows it counts
            outputs = sizes[f"{i + 1}.weight"]
            side = math.isqrt(weight // (channels * outputs))
            layers[i] = nn.Conv2d(channels, outputs, side, padding=side // 2, bias=False)
            channels = outputs
        else:
            if not any(isinstance(layer, nn.Linear) for layer in layers.values()):
                layers[i - 1] = nn.Flatten()
            layers[i] = nn.Linear(weight // bias, bias)
    network = nn.Sequential(*(layers.get(i, nn.ReLU()) for i in range(max(places) + 1))).double()
    state = network.state_dict()
    assert {name: value.numel() for name, value in state.items()} == sizes
    return network


def state(values, case, which, like):
    """One of the two flattened states, by the names of a network's."""
    parts = values.tensor(f"{case}_{which}").split([value.numel() for value in like.values()])
    return {
        name: part.reshape(value.shape).to(value.dtype)
        for (name, value), part in zip(like.items(), parts, strict=True)
    }


def flattened(state):
    """A state dictionary as one vector."""
    return torch.cat([value.double().reshape(-1) for value in state.values()])


@pytest.mark.cases(r"(?P<case>\w+)_interp_freeze")
def test_interpolated_states(values, agrees, case):
    like = rebuilt(values, case).state_dict()
    teacher, random = (state(values, case, which, like) for which in ("teacher", "random"))
    shares = values[f"{case}_lambda"].tolist()
    for share, expected in zip(shares, values[f"{case}_interp_freeze"], strict=True):
        agrees(lambda s=share: flattened(interpolate_state(teacher, random, s)), expected, atol=0)


@pytest.mark.cases(r"(?P<case>\w+)_interp_bn_updated")
def test_refreshed_statistics_and_what_the_network_then_says(values, agrees, case):
    network = rebuilt(values, case)
    like = network.state_dict()
    teacher, random = (
        {name: value.clone() for name, value in state(values, case, which, like).items()}
        for which in ("teacher", "random")
    )
    keys = [key for key in values if re.fullmatch(rf"{case}_x\d+", key)]
    batches = [values.tensor(f"{case}_x{i}") for i in range(len(keys))]

    def refreshed(share):
        network.load_state_dict(interpolate_state(teacher, random, share))
        recalibrate(network.eval(), batches, reset=False)
        assert not network.training
        return network

    shares = values[f"{case}_lambda"].tolist()
    for share, expected in zip(shares, values[f"{case}_interp_bn_updated"], strict=True):
        agrees(lambda s=share: flattened(refreshed(s).state_dict()), expected)
    for share, expected in zip(shares, values[f"{case}_out_bn_updated_on_x0"], strict=True):
        agrees(lambda s=share: refreshed(s)(batches[0]), expected)


@pytest.mark.sample
@pytest.mark.cases(r"(?P<case>\w+)_interp_freeze")
def test_the_published_parameter_counts_from_the_other_end(values, case):
    like = rebuilt(values, case).state_dict()
    teacher, random = (state(values, case, which, like) for which in ("teacher", "random"))
    index = values[f"{case}_lambda"].tolist().index(0.375)
    swapped = flattened(interpolate_state(teacher, random, 1 - 0.375)).numpy()
    assert np.abs(swapped - values[f"{case}_interp_freeze"][index]).max() > 1e-3


def rows(values, case):
    """Two representations of the same examples."""
    return values.tensor(f"{case}_X"), values.tensor(f"{case}_Y")


@pytest.mark.cases(r"(?P<case>\w+)_linear_cka")
def test_linear_cka(values, agrees, case):
    agrees(lambda: cka(*rows(values, case), "linear"), values[f"{case}_linear_cka"])


@pytest.mark.cases(r"(?P<case>\w+)_linear_hsic")
def test_hsic_is_a_sum(values, agrees, case):
    kernels = [kernel_matrix(side, "linear") for side in rows(values, case)]
    agrees(lambda: hsic(*kernels), values[f"{case}_linear_hsic"])


@pytest.mark.cases(r"(?P<case>\w+)_rbf_cka_(?P<width>median|sigma[\d.]+)")
def test_rbf_cka(values, agrees, case, width):
    sigma = None if width == "median" else float(width.removeprefix("sigma"))
    agrees(lambda: cka(*rows(values, case), sigma=sigma), values[f"{case}_rbf_cka_{width}"])


def maps(values, case):
    """Feature maps of two networks on the same images."""
    return [values.tensor(f"{case}_{side}_preact") for side in ("teacher", "student")]


@pytest.mark.cases(r"(?P<case>\w+)_(?P<kernel>\w+)_examples_as_rows_gap")
def test_cka_compares_examples(values, agrees, case, kernel):
    expected = values[f"{case}_{kernel}_examples_as_rows_gap"]
    agrees(lambda: cka(*maps(values, case), kernel), expected, rtol=1e-5)


@pytest.mark.cases(r"(?P<case>\w+)_teacher_preact")
def test_the_published_cka_compares_columns_of_the_image(values, agrees, case):
    """After averaging over channels and rows; examples are its features."""
    columns = [side.double().mean((1, 2)).T for side in maps(values, case)]
    agrees(lambda: cka(*columns), values[f"{case}_official"], rtol=1e-5)


@pytest.mark.sample
@pytest.mark.cases(r"(?P<case>\w+)_teacher_preact")
def test_which_is_another_number(values, case):
    assert abs(cka(*maps(values, case)) - values[f"{case}_official"].item()) > 0.1


@pytest.mark.cases(r"(?P<case>\w+)_w_teacher_init_final")
def test_plane_through_three_networks(values, agrees, case):
    points = values.tensor(f"{case}_w_teacher_init_final")
    for name, key in (("e1", "e1"), ("e2", "e2"), ("coordinates", "coords")):
        expected = values[f"{case}_{key}"]
        agrees(lambda n=name: getattr(plane_basis(*points), n), expected)
    if not np.isnan(expected).any():
        plane = plane_basis(*points)
        axes = torch.stack([plane.e1, plane.e2])
        np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
        np.testing.assert_allclose(points[0] + plane.coordinates @ axes, points, atol=1e-12)


@pytest.mark.cases(r"(?P<group>\w+)_cos_lr(?P<lr>[\de.+-]+)_eta(?P<end>[\de.+-]+)_T(?P<epochs>\d+)")
def test_schedule_of_a_step_an_epoch(values, agrees, group, lr, end, epochs):
    expected = values[f"{group}_cos_lr{lr}_eta{end}_T{epochs}"]

    def rates():
        settings = TrainSettings(
            epochs=int(epochs), lr=float(lr), final_lr=float(end), whole_epochs=True
        )
        return [learning_rate(settings, epoch) for epoch in range(len(expected))]

    agrees(rates, expected)


@pytest.mark.cases(r"(?P<case>\w+)_num_real_ratio_batch__numtotal_real_synth")
def test_rows_of_batches_with_synthetic_images(values, agrees, case):
    for row in values[f"{case}_num_real_ratio_batch__numtotal_real_synth"]:
        agrees(lambda r=row: real_and_synthetic(int(r[0]), float(r[1]), int(r[2])), row[3:], 0, 0)


@pytest.mark.cases(r"(?P<case>\w+)_mix_out")
def test_a_blend_has_one_share_for_all(values, agrees, case):
    images, share, partner = (values.tensor(f"{case}_mix_{key}") for key in ("x", "lam", "perm"))
    agrees(lambda: blend(images, images[partner], share), values[f"{case}_mix_out"], 1e-12, 0)


def perceptron(flat, sizes):
    """Linear layers of these sizes, with LayerNorm and ReLU between, from a flat vector."""
    layers = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU()]
    network = nn.Sequential(*layers[:-2]).double()
    assert sum(parameter.numel() for parameter in network.parameters()) == len(flat)
    nn.utils.vector_to_parameters(flat, network.parameters())
    return network


@pytest.mark.cases(r"(?P<case>\w+)_loss_agree_kl_per_step")
def test_steps_of_ensemble_distillation(values, agrees, case):
    """With the optimiser and the schedule that `TrainSettings` builds."""
    sizes = values[f"{case}_dims_in_hidden_classes"].tolist()
    members = [perceptron(flat, sizes) for flat in values.tensor(f"{case}_members_flat")]
    student = perceptron(values.tensor(f"{case}_student_flat"), sizes)
    tau, alpha, lr, decay = values[f"{case}_tau_alpha_lr_wd"].tolist()
    batches, labels = values.tensor(f"{case}_X"), values.tensor(f"{case}_Y")
    expected = values[f"{case}_loss_agree_kl_per_step"]
    settings = TrainSettings(
        epochs=-(-len(expected) // len(batches)), lr=lr, weight_decay=decay, final_lr=1e-6,
        whole_epochs=True, device="cpu",
    )  # fmt: skip
    optimizer = new_optimizer(student, settings)

    def step(number):
        i = number % len(batches)
        optimizer.param_groups[0]["lr"] = learning_rate(settings, number / len(batches))
        with torch.no_grad():
            teacher = ensemble_log_probs([member(batches[i]) for member in members])
        logits = student(batches[i])
        loss = distillation_loss(logits, teacher, labels[i], alpha, tau)
        agree, kl = (
            measure.agreement(teacher, logits),
            measure.predictive_kl(student_logits=logits, teacher_logits=teacher),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return [loss.item(), agree, kl]

    agrees(lambda: [step(i) for i in range(len(expected))], expected, 1e-8, 1e-9)
    end = nn.utils.parameters_to_vector(student.parameters())
    agrees(lambda: end, values[f"{case}_student_end"], 1e-8, 1e-10)


def network_of(name):
    """A network by its name in the table, such as "PreResNet-20 CIFAR-100", and its images."""
    network, *_, data = name.split(" ")
    grey = "MNIST" in data
    classes = 10 if grey else int(data.removeprefix("CIFAR-"))
    return named(network.lower(), classes, 1 if grey else 3), (1, 28, 28) if grey else (3, 32, 32)


def test_sizes_of_networks(values):
    table = values["N_params_convmacs_fcmacs"].tolist()
    assert len(table) > 0
    for name, sizes in zip(values["N_names"].tolist(), table, strict=True):
        with torch.device("meta"):
            network, shape = network_of(name)
            parameters, convolutions, linear = sizes
            assert measure.parameters(network) == parameters, name
            assert measure.macs(network, shape) == convolutions + linear, name


@pytest.mark.sample
def test_names_of_networks(values):
    assert set(values["N_names"].tolist()) == {
        "LeNet-5 (MNIST)",
        "PreResNet-20 CIFAR-100",
        "PreResNet-56 CIFAR-100",
        "PreResNet-110 CIFAR-100",
        "VGG-16 (no BN) CIFAR-100",
    }
