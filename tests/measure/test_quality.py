import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from smallnets.measure import (
    accuracy,
    agreement,
    calibration_error,
    negative_log_likelihood,
    predictive_kl,
)


def random_logits(seed, n, classes=4, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, classes, generator=generator)


def with_confidence(confidence, classes=2):
    """Logits (1, classes) that predict class 0 with the given probability."""
    rest = torch.full((classes - 1,), (1 - confidence) / (classes - 1), dtype=torch.float64)
    return torch.cat([torch.tensor([confidence], dtype=torch.float64), rest]).log()[None]


sizes = st.integers(1, 40)
seeds = st.integers(0, 10_000)


def test_accuracy_counts():
    logits = torch.tensor([[2.0, 1, 0], [0, 3, 1], [0, 3, 1], [1, 0, 5]])
    labels = torch.tensor([0, 1, 2, 2])
    assert accuracy(logits, labels) == 0.75
    assert accuracy(logits, labels.to(torch.uint8)) == 0.75
    assert accuracy(logits, logits.argmax(1)) == 1
    assert accuracy(logits, logits.argmin(1)) == 0


@given(seeds, sizes)
def test_agreement_is_symmetric_and_bounded_by_the_accuracies(seed, n):
    a, b = random_logits(seed, n), random_logits(seed + 1, n)
    labels = random_logits(seed + 2, n).argmax(1)
    agree = agreement(a, b)
    assert agree == agreement(b, a)
    assert agreement(a, a) == 1
    first, second = accuracy(a, labels), accuracy(b, labels)
    assert max(0, first + second - 1) - 1e-12 <= agree <= 1 - abs(first - second) + 1e-12


def kl(student, teacher):
    return predictive_kl(student_logits=student, teacher_logits=teacher)


def test_agreement_counts():
    a = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert agreement(a, torch.tensor([[9.0, 0], [0, 9], [0, 9], [0, 9]])) == 0.75


@given(seeds, sizes)
def test_kl_is_zero_for_equal_predictions_and_else_positive(seed, n):
    teacher = random_logits(seed, n)
    assert kl(teacher + 5, teacher) == pytest.approx(0, abs=1e-6)
    assert kl(teacher.double(), teacher.double()) == 0
    assert kl(random_logits(seed + 1, n), teacher) > 0


def test_kl_is_from_teacher_to_student_and_a_batch_mean():
    teacher, student = with_confidence(0.9), with_confidence(0.5)
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert kl(student, teacher) == pytest.approx(expected, rel=1e-12)
    assert kl(student.repeat(6, 1), teacher.repeat(6, 1)) == pytest.approx(expected)
    reverse = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert kl(teacher, student) == pytest.approx(reverse, rel=1e-12)


def test_likelihood_of_known_probabilities():
    logits = torch.cat([with_confidence(0.8), with_confidence(0.8)])
    expected = -(math.log(0.8) + math.log(0.2)) / 2
    assert negative_log_likelihood(logits, torch.tensor([0, 1])) == pytest.approx(
        expected, rel=1e-12
    )
    even = torch.zeros(3, 7)
    assert negative_log_likelihood(even, torch.tensor([0, 3, 6])) == pytest.approx(math.log(7))


def test_a_calibrated_network_has_no_calibration_error():
    """Confidence 0.8 and right 4 times of 5; confidence 0.6 and right 3 times of 5."""
    logits = torch.cat([with_confidence(0.8, 3).repeat(5, 1), with_confidence(0.6, 3).repeat(5, 1)])
    labels = torch.tensor([0, 0, 0, 0, 1, 0, 0, 0, 2, 1])
    assert calibration_error(logits, labels) == pytest.approx(0, abs=1e-12)


def test_calibration_error_weighs_bins_by_their_examples():
    logits = torch.cat([with_confidence(0.95).repeat(3, 1), with_confidence(0.65)])
    labels = torch.tensor([1, 1, 1, 0])
    expected = (3 * 0.95 + 1 * 0.35) / 4
    assert calibration_error(logits, labels) == pytest.approx(expected, rel=1e-9)
    together = abs((3 * 0.95 + 0.65) / 4 - 1 / 4)
    assert calibration_error(logits, labels, bins=1) == pytest.approx(together, rel=1e-9)


def test_bins_are_closed_on_the_right():
    """Full confidence shares the last bin: over- and under-confidence there cancel."""
    logits = torch.cat([torch.tensor([[1000.0, 0]]), with_confidence(0.92)])
    labels = torch.tensor([1, 0])
    assert calibration_error(logits, labels) == pytest.approx(1.92 / 2 - 1 / 2, rel=1e-9)
    even = torch.tensor([[0.0, 0.0], [1e-3, 0.0]])  # confidence 1/2 ends the first of two bins
    confidence = even[1].double().softmax(0)[0].item()
    expected = (0.5 + (1 - confidence)) / 2
    assert calibration_error(even, torch.tensor([1, 0]), bins=2) == pytest.approx(expected)


@given(seeds, st.integers(1, 20))
def test_calibration_error_agrees_with_torchmetrics(seed, bins):
    logits, labels = random_logits(seed, 200), random_logits(seed + 1, 200).argmax(1)
    expected = multiclass_calibration_error(logits.softmax(1), labels, 4, n_bins=bins, norm="l1")
    assert calibration_error(logits, labels, bins) == pytest.approx(expected.item(), abs=1e-6)


@given(seeds, sizes, st.integers(1, 20))
def test_calibration_error_agrees_with_its_definition(seed, n, bins):
    logits, labels = random_logits(seed, n), random_logits(seed + 1, n).argmax(1)
    confidence, predicted = logits.double().softmax(1).max(1)
    expected = 0.0
    for i in range(bins):
        inside = (confidence > i / bins) & (confidence <= (i + 1) / bins)
        if inside.any():
            right = (predicted == labels)[inside].double().mean()
            expected += (inside.double().mean() * (right - confidence[inside].mean()).abs()).item()
    assert calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("measure", [accuracy, negative_log_likelihood, calibration_error])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ((4, 3), (5,), r"logits and labels must have shapes .*; got \(4, 3\) and \(5,\)"),
        ((4, 3), (4, 1), r"logits and labels must have shapes .*; got \(4, 3\) and \(4, 1\)"),
        ((4,), (4,), r"logits and labels must have shapes .*; got \(4,\) and \(4,\)"),
        ((0, 3), (0,), r"logits and labels must have .* n at least 1; got \(0, 3\) and \(0,\)"),
    ],
)
def test_shapes_of_logits_and_labels(measure, logits, labels, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        measure(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64))


@pytest.mark.parametrize("measure", [accuracy, negative_log_likelihood, calibration_error])
def test_labels_outside_the_classes(measure):
    with pytest.raises(ValueError, match=r"^labels must be between 0 and 2; got 0 to 3$"):
        measure(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"^labels must be between 0 and 2; got -1 to 2$"):
        measure(torch.zeros(2, 3), torch.tensor([-1, 2]))
    with pytest.raises(ValueError, match=r"^labels must be whole numbers; got torch\.float32$"):
        measure(torch.zeros(2, 3), torch.zeros(2))


@pytest.mark.parametrize(
    ("measure", "names"),
    [(agreement, "a and b"), (kl, "student_logits and teacher_logits")],
)
@pytest.mark.parametrize(
    ("a", "b"), [((4, 3), (5, 3)), ((4, 3), (4, 2)), ((0, 3), (0, 3)), ((3,), (3,))]
)
def test_shapes_of_two_sets_of_logits(measure, names, a, b):
    with pytest.raises(ValueError, match=rf"^{names} must have one shape \(n, classes\)") as error:
        measure(torch.zeros(a), torch.zeros(b))
    assert str(error.value).endswith(f"got {a} and {b}")


def test_calibration_needs_bins_and_classes():
    with pytest.raises(ValueError, match=r"^bins must be at least 1; got 0$"):
        calibration_error(torch.zeros(2, 3), torch.tensor([0, 1]), bins=0)
    with pytest.raises(ValueError, match=r"^number of classes must be at least 2; got 1$"):
        calibration_error(torch.zeros(2, 1), torch.tensor([0, 0]))
