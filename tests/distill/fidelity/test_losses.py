"""Targets and losses: the published code's numbers, limits, and what must not be mistaken."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from smallnets import measure
from smallnets.distill.classic import kd_loss
from smallnets.distill.fidelity import (
    LOSSES,
    annealed,
    distillation_loss,
    divergence,
    ensemble_log_probs,
    hard_cross_entropy,
    logit_loss,
    member_divergence,
    mixed_cross_entropy,
    soft_cross_entropy,
    tempered,
)
from smallnets.training import TrainSettings, learning_rate, new_optimizer

NAME = "03-does-kd-work"
PUBLISHED = {
    "soft": "fwdce", "kl": "kl", "symmetric": "symkl", "reverse": "revce", "hard": "hardce",
    "brier": "brier",
}  # fmt: skip
TIGHT = {"rtol": 1e-9, "atol": 1e-12}


def doubles(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual, expected, **tolerances):
    np.testing.assert_allclose(np.asarray(actual), expected, **{**TIGHT, **tolerances})


@pytest.fixture
def arrays(golden):
    return golden(NAME)


def tensors(arrays, *names):
    return [torch.from_numpy(arrays[name]) for name in names]


def test_golden_ensemble_averages_probabilities(arrays):
    (members,) = tensors(arrays, "A_member_logits_bmc")
    reduced = ensemble_log_probs(members)
    close(reduced, arrays["A_logmeanprob"])
    close(reduced.exp(), arrays["A_prob_mean"])
    close(ensemble_log_probs(list(members.unbind(1))), reduced)


def test_golden_temperature_comes_after_the_reduction_and_no_other_order_is_meant(arrays):
    (members,) = tensors(arrays, "A_member_logits_bmc")
    reduced = ensemble_log_probs(members)
    for i, tau in enumerate(arrays["A_taus"].tolist()):
        ours = tempered(reduced, tau).exp()
        close(ours, arrays["A_soft_official"][i])
        of_members = (members / tau).softmax(2).mean(1)
        close(of_members, arrays["A_soft_temper_members_then_mean"][i])
        of_mean_logits = (members.mean(1) / tau).softmax(1)
        close(of_mean_logits, arrays["A_soft_logitmean"][i])
        assert np.abs(ours.numpy() - arrays["A_soft_logitmean"][i]).max() > 1e-3
        if tau > 1:
            assert (ours - of_members).abs().max() > 1e-3
    close(members.mean(1).softmax(1), arrays["A_logit_mean_softmax"])


@pytest.mark.parametrize(("loss", "key"), PUBLISHED.items())
def test_golden_losses_and_gradients(arrays, loss, key):
    teacher, student = tensors(arrays, "B_zt", "B_zs")
    for i, tau in enumerate(arrays["B_taus"].tolist()):
        ours = student.clone().requires_grad_()
        value = LOSSES[loss](teacher, ours, tau)
        value.backward()
        close(value.item(), arrays[f"B_{key}"][i])
        close(ours.grad, arrays[f"B_{key}_grad"][i])


def test_golden_mixture_and_its_annealing(arrays):
    teacher, student = tensors(arrays, "B_zt", "B_zs")
    hard = annealed(0.5, epoch=2, epochs=10)
    assert hard == pytest.approx(float(arrays["B_cvx_beta"]))
    for i, tau in enumerate(arrays["B_taus"].tolist()):
        value = mixed_cross_entropy(teacher, student, tau, hard)
        close(value.item(), arrays["B_cvx_after2"][i])
    assert (annealed(0.5, 0, 10), annealed(0.5, 10, 10)) == (0.5, 0)


def test_golden_labels_and_teacher_together(arrays):
    teacher, student, labels = tensors(arrays, "B_zt", "B_zs", "B_y")
    for alpha, total in zip(arrays["B_total_alpha"], arrays["B_total_tau4"], strict=True):
        close(distillation_loss(student, teacher, labels, float(alpha), 4.0).item(), total)
    wrong = distillation_loss(student, teacher, labels, 1 - 0.9, 4.0).item()
    assert abs(wrong - arrays["B_total_tau4"][-1]) > 0.1  # alpha weighs the labels, not the teacher


def test_golden_a_temperature_a_row_and_rows_without_labels(arrays):
    teacher, student, labels, tau = tensors(arrays, "C_zt", "C_zs", "C_y", "C_temp")
    close(soft_cross_entropy(teacher, student, tau).item(), arrays["C_fwdce"])
    total = distillation_loss(student, teacher, labels, float(arrays["C_alpha"]), tau)
    close(total.item(), arrays["C_total"])
    assert torch.isfinite(hard_cross_entropy(teacher, student, tau))


def test_golden_high_temperature_limit_is_the_gradient_of_the_logit_loss(arrays):
    teacher, student = tensors(arrays, "D_zt", "D_zs")
    limit = student.clone().requires_grad_()
    logit_loss(teacher, limit).backward()
    close(limit.grad, arrays["D_limit"])
    gaps = []
    for tau, expected in zip(arrays["D_taus"], arrays["D_grad_meanreduced"], strict=True):
        ours = student.clone().requires_grad_()
        soft_cross_entropy(teacher, ours, float(tau)).backward()
        close(ours.grad, expected, rtol=1e-7, atol=1e-10)
        gaps.append((ours.grad - limit.grad).abs().max().item())
    for before, after in pairwise(gaps[1:]):
        assert before / after == pytest.approx(10, rel=0.1)
    assert (arrays["D_limit"] - (student - teacher).numpy() / 4).std() > 0.01  # the misprint


def test_golden_members_one_by_one(arrays):
    members, student = tensors(arrays, "Dm_members_bmc", "Dm_zs")
    close(member_divergence(members, student).item(), arrays["Dm_avg_symkl"])
    to_ensemble = divergence(ensemble_log_probs(members), student)
    close(to_ensemble.item(), arrays["Dm_kl_to_ensemble"])
    to_each = torch.stack([divergence(one, student) for one in members.unbind(1)])
    assert to_ensemble < to_each.mean()  # convexity


def layers(flat, sizes):
    inputs, hidden, classes = sizes
    network = nn.Sequential(
        nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, classes)
    ).double()
    nn.utils.vector_to_parameters(torch.from_numpy(flat), network.parameters())
    return network


def test_golden_twelve_steps_of_ensemble_distillation(arrays):
    """With the optimiser and the schedule that `TrainSettings` builds."""
    sizes = arrays["K_dims_in_hidden_classes"].tolist()
    members = [layers(flat, sizes) for flat in arrays["K_members_flat"]]
    student = layers(arrays["K_student_flat"], sizes)
    tau, alpha, lr, decay = arrays["K_tau_alpha_lr_wd"].tolist()
    settings = TrainSettings(
        epochs=4, lr=lr, weight_decay=decay, final_lr=1e-6, whole_epochs=True, device="cpu"
    )
    optimiser = new_optimizer(student, settings)
    batches, labels = tensors(arrays, "K_X", "K_Y")
    log = []
    for step in range(settings.epochs * len(batches)):
        epoch, i = divmod(step, len(batches))
        optimiser.param_groups[0]["lr"] = learning_rate(settings, epoch + i / len(batches))
        with torch.no_grad():
            teacher = ensemble_log_probs([member(batches[i]) for member in members])
        logits = student(batches[i])
        loss = distillation_loss(logits, teacher, labels[i], alpha, tau)
        agree, kl = measure.agreement(teacher, logits), measure.predictive_kl(teacher, logits)
        log.append([loss.item(), agree, kl])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    close(log, arrays["K_loss_agree_kl_per_step"], rtol=1e-8, atol=1e-9)
    end = nn.utils.parameters_to_vector(student.parameters()).detach()
    close(end, arrays["K_student_end"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("case", ["lr0.05_eta1e-06_T300", "lr0.1_eta0.0_T200"])
def test_golden_schedule_a_step_an_epoch(arrays, case):
    lr, end, epochs = (float(part.lstrip("lretaT")) for part in case.split("_"))
    settings = TrainSettings(epochs=int(epochs), lr=lr, final_lr=end, whole_epochs=True)
    rates = [learning_rate(settings, e) for e in range(int(epochs) + 1)]
    close(rates, arrays[f"I_cos_{case}"])


@given(st.integers(0, 10_000), st.floats(0.5, 20))
def test_cross_entropy_less_its_smallest_value_is_the_divergence_times_tau_squared(seed, tau):
    teacher, student = doubles(seed, 4, 5), doubles(seed + 1, 4, 5)
    least = soft_cross_entropy(teacher, teacher, tau)
    gap = (soft_cross_entropy(teacher, student, tau) - least).item()
    assert gap == pytest.approx(tau**2 * divergence(teacher, student, tau).item(), rel=1e-9)
    assert gap == pytest.approx(kd_loss(student, teacher, tau).item(), rel=1e-9)
    assert gap >= 0
    rows = torch.full((4, 1), tau, dtype=torch.float64)
    assert soft_cross_entropy(teacher, student, rows).item() == pytest.approx(gap + least.item())


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_do_not_see_a_constant_added_to_a_row_and_have_gradients(loss):
    teacher, student = doubles(0, 5, 4), doubles(1, 5, 4).requires_grad_()
    shifted = student + doubles(2, 5, 1)
    assert LOSSES[loss](teacher, student, 2.0).item() == pytest.approx(
        LOSSES[loss](teacher, shifted, 2.0).item()
    )
    assert torch.autograd.gradcheck(lambda x: LOSSES[loss](teacher, x, 2.0), student)
    LOSSES[loss](teacher, student, 2.0).backward()
    assert student.grad.sum(dim=1).abs().max() < 1e-12


@pytest.mark.parametrize("loss", ["soft", "kl", "symmetric", "brier", "logit"])
def test_a_copy_has_no_gradient(loss):
    teacher = doubles(0, 5, 4)
    student = (teacher + doubles(1, 5, 1)).requires_grad_()
    LOSSES[loss](teacher, student, 3.0).backward()
    assert student.grad.abs().max() < 1e-12


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_an_ensemble_lies_between_its_members_in_any_order(seed, count):
    members = doubles(seed, 3, count, 5)
    probabilities = ensemble_log_probs(members).exp()
    assert torch.allclose(probabilities.sum(1), torch.ones(3, dtype=torch.float64))
    each = members.softmax(2)
    assert bool((probabilities <= each.max(1).values + 1e-12).all())
    assert bool((probabilities >= each.min(1).values - 1e-12).all())
    assert torch.allclose(ensemble_log_probs(members.flip(1)).exp(), probabilities)
    repeated = members[:, :1].expand(-1, 3, -1)
    assert torch.allclose(ensemble_log_probs(repeated).exp(), each[:, 0])


def test_half_precision_is_widened():
    teacher, student = doubles(0, 3, 4).bfloat16(), doubles(1, 3, 4).bfloat16()
    assert soft_cross_entropy(teacher, student).dtype == torch.float32
    assert ensemble_log_probs([teacher, student]).dtype == torch.float32


Z = torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: soft_cross_entropy(Z, Z[:2]), r"must both be \(batch, classes\).*\(3, 4\) and \("),
        (lambda: soft_cross_entropy(Z[:0], Z[:0]), "not empty"),
        (lambda: soft_cross_entropy(Z, Z, 0.0), "temperature must be greater than 0; got 0.0"),
        (lambda: soft_cross_entropy(Z, Z, torch.ones(3)), r"a number or \(3, 1\).*got \(3,\)"),
        (lambda: soft_cross_entropy(Z, Z, -torch.ones(3, 1)), "greater than 0; got -1.0"),
        (lambda: ensemble_log_probs([]), "one or more; got"),
        (lambda: ensemble_log_probs([Z, Z[:, :3]]), r"one shape .*\(3, 3\), \(3, 4\)"),
        (lambda: ensemble_log_probs(Z), r"must be \(batch, members, classes\); got \(3, 4\)"),
        (lambda: distillation_loss(Z, Z, alpha=0.5), "needs labels .* 3 rows; got none"),
        (lambda: distillation_loss(Z, Z, alpha=1.0), "less than 1; got 1.0"),
        (lambda: distillation_loss(Z, Z, loss="l2"), "loss must be one of soft, .*; got 'l2'"),
        (
            lambda: distillation_loss(Z, Z, torch.tensor([0, 4]), 0.5),
            "labels must be between 0 and 3; got 0 to 4",
        ),
        (
            lambda: distillation_loss(Z, Z, torch.zeros(4, dtype=torch.int64), 0.5),
            r"labels for the first of the 3 rows; got \(4,\)",
        ),
        (lambda: mixed_cross_entropy(Z, Z, 1.0, 1.5), "hard must be between 0 and 1; got 1.5"),
        (lambda: annealed(0.5, 11, 10), "epoch must be between 0 and 10; got 11"),
        (lambda: soft_cross_entropy(Z * torch.nan, Z), "must be finite"),
    ],
)
def test_wrong_inputs_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
