import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets import measure
from smallnets.distill.matching import (
    agreement,
    ensemble_distance,
    ensemble_log_probs,
    entropy,
    kl_distance,
    logit_distance,
)


def gradient_of_mean(distance, student):
    (gradient,) = torch.autograd.grad(distance.mean(), student)
    return gradient


def doubles(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 4.0]), st.floats(-50, 50))
def test_a_divergence_blind_to_constants_and_to_the_order_of_classes(seed, temperature, shift):
    student, teacher = doubles(seed, 4, 6), 3 * doubles(seed + 1, 4, 6)
    distance = kl_distance(student, teacher, temperature)
    assert distance.min() >= 0
    order = torch.randperm(6)
    same = kl_distance((student + shift)[:, order], (teacher - shift)[:, order], temperature)
    torch.testing.assert_close(same, distance)
    assert kl_distance(teacher + shift, teacher, temperature).abs().max() < 1e-12


def test_gradient_is_the_difference_of_probabilities():
    student, teacher = doubles(0, 5, 7).requires_grad_(), doubles(1, 5, 7)
    gradient = gradient_of_mean(kl_distance(student, teacher, 3.0), student)
    expected = 3 / 5 * ((student / 3).softmax(1) - (teacher / 3).softmax(1))
    torch.testing.assert_close(gradient, expected)
    assert gradient.sum(dim=1).abs().max() < 1e-12


def test_hot_limit_is_the_squared_distance_of_centred_logits():
    student, teacher = doubles(0, 5, 7), doubles(1, 5, 7)
    difference = student - teacher
    centred = difference - difference.mean(dim=1, keepdim=True)
    limit = centred.square().sum(dim=1) / (2 * 7)
    torch.testing.assert_close(kl_distance(student, teacher, 1e3), limit, rtol=3e-3, atol=0)


def test_the_sum_over_identical_teachers():
    student, teacher = doubles(0, 5, 7), doubles(1, 5, 7)
    three = ensemble_distance(student, [teacher] * 3)
    torch.testing.assert_close(three, 3 * kl_distance(student, teacher))
    same = ensemble_log_probs([teacher] * 3)
    torch.testing.assert_close(same, teacher.log_softmax(1))


def test_large_logits_stay_finite_and_half_precision_is_widened():
    student = torch.tensor([[1e3, -1e3, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e3, 1e3, 0.0]])
    distance = kl_distance(student, teacher)
    assert distance.item() == pytest.approx(2000)
    assert gradient_of_mean(distance, student).isfinite().all()
    assert kl_distance(student.detach().half(), teacher.half()).dtype == torch.float32


def test_mean_is_that_of_the_whole_set_measure():
    student, teacher = doubles(0, 50, 7), doubles(1, 50, 7)
    mean = kl_distance(student, teacher).mean().item()
    whole = measure.predictive_kl(student_logits=student, teacher_logits=teacher)
    assert mean == pytest.approx(whole)
    assert agreement(student, teacher).double().mean() == measure.agreement(student, teacher)
    assert agreement(student, teacher, 7).all()
    assert entropy(torch.zeros(1, 7)).item() == pytest.approx(math.log(7))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: kl_distance(z, z, 0), "temperature must be greater than 0; got 0"),
        (lambda z: kl_distance(z, z, math.inf), "temperature must be finite; got inf"),
        (lambda z: kl_distance(z, z[:, :2]), r"must both be .* got \(2, 3\) and \(2, 2\)"),
        (lambda z: kl_distance(z[0], z[0]), r"must both be .* got \(3,\) and \(3,\)"),
        (lambda z: kl_distance(z[:0], z[:0]), r"not empty; got \(0, 3\)"),
        (lambda z: kl_distance(z.long(), z.long()), "floating-point numbers; got torch.int64"),
        (lambda z: logit_distance(z, z, "cosine"), "kind must be one of kl, .*; got 'cosine'"),
        (lambda z: logit_distance(z, z, "hard", smoothing=2), "smoothing must be between 0 and 1"),
        (lambda z: ensemble_distance(z, []), "number of teachers must be at least 1; got 0"),
        (lambda z: ensemble_log_probs([]), r"there must be one or more; got \[\]"),
        (lambda z: agreement(z, z, 4), "k must be between 1 and 3; got 4"),
    ],
)
def test_bad_inputs_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 3))


def test_of_equal_logits_the_first_class_counts():
    level = torch.zeros(2, 5)
    assert agreement(level, level).all()
    assert not agreement(level, torch.eye(5)[3:], 3).any()
    assert agreement(level, torch.eye(5)[3:], 4).tolist() == [True, False]
