"""Targets and losses: limits, laws, and what must not be mistaken."""

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.distill.classic import kd_loss
from smallnets.distill.fidelity import (
    LOSSES,
    annealed,
    distillation_loss,
    divergence,
    ensemble_log_probs,
    member_divergence,
    mixed_cross_entropy,
    soft_cross_entropy,
)


def doubles(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def asked(loss, student, teacher, temperature=1.0, **rest):
    """A loss that takes its logits by name."""
    return loss(student_logits=student, teacher_logits=teacher, temperature=temperature, **rest)


def test_the_hard_share_falls_from_its_start_to_nothing():
    assert [annealed(0.5, epoch, 10) for epoch in (0, 5, 10)] == [0.5, 0.25, 0]


@given(st.integers(0, 10_000), st.floats(0.5, 20))
def test_cross_entropy_less_its_smallest_value_is_the_divergence_times_tau_squared(seed, tau):
    teacher, student = doubles(seed, 4, 5), doubles(seed + 1, 4, 5)
    least = asked(soft_cross_entropy, teacher, teacher, tau)
    gap = (asked(soft_cross_entropy, student, teacher, tau) - least).item()
    assert gap == pytest.approx(tau**2 * asked(divergence, student, teacher, tau).item(), rel=1e-9)
    assert gap == pytest.approx(kd_loss(student, teacher, tau).item(), rel=1e-9)
    assert gap >= 0
    rows = torch.full((4, 1), tau, dtype=torch.float64)
    assert asked(soft_cross_entropy, student, teacher, rows).item() == pytest.approx(
        gap + least.item()
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_do_not_see_a_constant_added_to_a_row_and_have_gradients(loss):
    teacher, student = doubles(0, 5, 4), doubles(1, 5, 4).requires_grad_()
    shifted = student + doubles(2, 5, 1)
    assert asked(LOSSES[loss], student, teacher, 2.0).item() == pytest.approx(
        asked(LOSSES[loss], shifted, teacher, 2.0).item()
    )
    assert torch.autograd.gradcheck(lambda x: asked(LOSSES[loss], x, teacher, 2.0), student)
    asked(LOSSES[loss], student, teacher, 2.0).backward()
    assert student.grad.sum(dim=1).abs().max() < 1e-12


@pytest.mark.parametrize("loss", ["soft", "kl", "symmetric", "brier", "logit"])
def test_a_copy_has_no_gradient(loss):
    teacher = doubles(0, 5, 4)
    student = (teacher + doubles(1, 5, 1)).requires_grad_()
    asked(LOSSES[loss], student, teacher, 3.0).backward()
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


@pytest.mark.parametrize("loss", [*LOSSES.values(), member_divergence])
def test_logits_are_given_by_name_so_that_nobody_swaps_them(loss):
    with pytest.raises(TypeError, match="positional"):
        loss(doubles(0, 3, 4), doubles(1, 3, 4))
    others = [name for name in inspect.signature(loss).parameters if name.endswith("_logits")]
    assert others[0] == "student_logits"


def test_half_precision_is_widened():
    teacher, student = doubles(0, 3, 4).bfloat16(), doubles(1, 3, 4).bfloat16()
    assert asked(soft_cross_entropy, student, teacher).dtype == torch.float32
    assert ensemble_log_probs([teacher, student]).dtype == torch.float32


Z = torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: asked(soft_cross_entropy, Z[:2], Z), r"must both be \(batch.*\(2, 4\) and \(3"),
        (lambda: asked(soft_cross_entropy, Z[:0], Z[:0]), "not empty"),
        (
            lambda: asked(soft_cross_entropy, Z, Z, 0.0),
            "temperature must be greater than 0; got 0.0",
        ),
        (
            lambda: asked(soft_cross_entropy, Z, Z, torch.ones(3)),
            r"a number or \(3, 1\).*got \(3,\)",
        ),
        (lambda: asked(soft_cross_entropy, Z, Z, -torch.ones(3, 1)), "greater than 0; got -1.0"),
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
        (
            lambda: asked(mixed_cross_entropy, Z, Z, hard=1.5),
            "hard must be between 0 and 1; got 1.5",
        ),
        (lambda: annealed(0.5, 11, 10), "epoch must be between 0 and 10; got 11"),
        (lambda: asked(soft_cross_entropy, Z, Z * torch.nan), "must be finite"),
    ],
)
def test_wrong_inputs_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
