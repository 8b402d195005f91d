"""Fidelity, calibration and CKA at their limits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets import measure
from smallnets.distill.fidelity import FidelityMeter, agreement_bounds, brier_score, overlap
from smallnets.measure import calibration_bins, cka


def doubles(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_calibration_at_its_extremes_and_a_bin_edge():
    labels = torch.tensor([0, 1])
    certain = torch.tensor([[1000.0, 0], [0, 1000]])
    assert calibration_bins(certain, labels).error() == 0
    assert calibration_bins(certain, 1 - labels).error() == 1
    edge = torch.tensor([[0.0, 0.0]])  # confidence exactly 1/2
    assert calibration_bins(edge, labels[:1]).count.nonzero().item() == 4
    confidence, right = calibration_bins(certain, labels).diagram()
    assert (confidence.tolist(), right.tolist()) == ([1.0], [1.0])


@given(st.integers(0, 1000))
def test_one_bin_is_never_worse_than_ten(seed):
    logits, labels = doubles(seed, 30, 4), torch.arange(30) % 4
    ten, one = (calibration_bins(logits, labels, bins).error() for bins in (10, 1))
    assert 0 <= one <= ten + 1e-12 <= 1 + 1e-12
    swapped = calibration_bins(logits.flip(1), 3 - labels).error()
    assert swapped == pytest.approx(ten)


@given(st.integers(0, 1000), st.integers(2, 30))
def test_agreement_stays_inside_its_bounds(seed, count):
    a, b, labels = doubles(seed, count, 3), doubles(seed + 1, count, 3), torch.arange(count) % 3
    low, high = agreement_bounds(measure.accuracy(a, labels), measure.accuracy(b, labels))
    assert low - 1e-12 <= measure.agreement(a, b) <= high + 1e-12
    assert measure.agreement(a, b) == measure.agreement(b, a)
    assert measure.agreement(a, 3 * a + doubles(seed, count, 1)) == 1


def test_the_papers_examples_of_bounds():
    assert agreement_bounds(0.55, 0.95)[1] == pytest.approx(0.6)
    assert agreement_bounds(0.75, 0.95)[0] == pytest.approx(0.7)


@given(st.integers(0, 1000))
def test_where_two_networks_meet(seed):
    a, b, labels = doubles(seed, 20, 3), doubles(seed + 1, 20, 3), torch.arange(20) % 3
    shares = overlap(student_logits=b, teacher_logits=a, labels=labels)
    assert sum(shares.values()) == pytest.approx(1)
    meeting = shares["both right"] + shares["the same mistake"]
    assert meeting == pytest.approx(measure.agreement(a, b))
    taught = shares["both right"] + shares["only the teacher right"]
    assert taught == pytest.approx(measure.accuracy(a, labels))
    learnt = shares["both right"] + shares["only the student right"]
    assert learnt == pytest.approx(measure.accuracy(b, labels))


def test_brier_score_of_certainty():
    right = torch.tensor([[1000.0, 0, 0]])
    assert brier_score(right, torch.tensor([0])) == 0
    assert brier_score(right, torch.tensor([1])) == 2


def test_images_without_labels_are_measured_for_fidelity_only():
    a, b = doubles(0, 6, 3), doubles(1, 6, 3)
    meter = FidelityMeter().update(student_logits=b, teacher_logits=a)
    assert set(meter.compute()) == {"agreement", "kl"}


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_cka_is_blind_to_rotation_scale_and_shift_and_to_nothing_more(seed, scale):
    a = doubles(seed, 9, 4)
    rotation = torch.linalg.qr(doubles(seed + 1, 4, 4)).Q
    moved = scale * a @ rotation + doubles(seed + 2, 1, 4)
    for kernel in ("rbf", "linear"):
        assert cka(a, moved, kernel) == pytest.approx(1, abs=1e-9)
        b = doubles(seed + 3, 9, 6)
        assert cka(a, b, kernel) == pytest.approx(cka(b, moved, kernel), abs=1e-9)
    stretched = a * torch.tensor([100.0, 1, 1, 1])
    assert cka(a, stretched, "linear") < 0.99


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cka(doubles(0, 2, 3), doubles(1, 2, 3)), "examples must be at least 3; got 2"),
        (lambda: cka(doubles(0, 4, 3), doubles(1, 5, 3)), "same examples; got 4 and 5"),
        (lambda: cka(torch.ones(4, 3), doubles(1, 4, 3)), "differ between examples"),
        (lambda: cka(doubles(0, 4), doubles(1, 4)), r"must be \(n, features\) or .*got \(4,\)"),
        (lambda: cka(doubles(0, 4, 3), doubles(0, 4, 3), "poly"), "rbf, linear; got 'poly'"),
        (lambda: cka(doubles(0, 4, 3), doubles(0, 4, 3), sigma=0), "sigma must be greater than 0"),
        (lambda: agreement_bounds(1.2, 0.5), "accuracy must be between 0 and 1; got 1.2"),
        (lambda: FidelityMeter().compute(), "examples measured must be at least 1; got 0"),
        (
            lambda: FidelityMeter().update(
                student_logits=torch.nan * doubles(0, 2, 3), teacher_logits=doubles(0, 2, 3)
            ),
            "student logits must be finite; got NaN or infinity",
        ),
        (lambda: FidelityMeter(bins=0), "bins must be at least 1; got 0"),
        (
            lambda: calibration_bins(doubles(0, 2, 2), torch.tensor([0, 5])),
            "labels must be between 0 and 1",
        ),
        (
            lambda: sum(
                (calibration_bins(doubles(0, 2, 2), torch.tensor([0, 1]), n) for n in (3, 4)),
                start=calibration_bins(doubles(0, 2, 2), torch.tensor([0, 1]), 3),
            ),
            "equally many; got 3 and 4",
        ),
    ],
)
def test_wrong_inputs_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
