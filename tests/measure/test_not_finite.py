"""Networks that say NaN or infinity have no accuracy and agree with nobody: one line says so."""

import numpy as np
import pytest
import torch

from smallnets import measure
from smallnets.distill.fidelity.losses import hard_cross_entropy
from smallnets.distill.fidelity.meter import FidelityMeter, brier_score, overlap
from smallnets.distill.matching.losses import agreement, logit_distance
from smallnets.distill.similarity.losses import class_block_contrast
from smallnets.measure import CalibrationBins
from smallnets.measure.alignment import hsic, kernel_matrix
from smallnets.measure.ranking import correlations
from smallnets.search.lana.scores import rank_agreement
from smallnets.studies.genie.experiments import classes_seen, diversity

GOOD = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(10) % 4
SQUARE = GOOD @ GOOD.T
MEASURES = {
    "accuracy": lambda bad: measure.accuracy(bad, LABELS),
    "negative_log_likelihood": lambda bad: measure.negative_log_likelihood(bad, LABELS),
    "calibration_bins": lambda bad: measure.calibration_bins(bad, LABELS),
    "calibration_error": lambda bad: measure.calibration_error(bad, LABELS),
    "agreement": lambda bad: measure.agreement(bad, bad.clone()),
    "agreement, first": lambda bad: measure.agreement(bad, GOOD),
    "agreement, second": lambda bad: measure.agreement(GOOD, bad),
    "predictive_kl, teacher": lambda bad: measure.predictive_kl(
        student_logits=GOOD, teacher_logits=bad
    ),
    "predictive_kl, student": lambda bad: measure.predictive_kl(
        student_logits=bad, teacher_logits=GOOD
    ),
    "cka, rbf": lambda bad: measure.cka(bad, GOOD),
    "cka, linear": lambda bad: measure.cka(GOOD, bad, "linear"),
    "kernel_matrix": lambda bad: kernel_matrix(bad.double()),
    "hsic, first": lambda bad: hsic(bad @ bad.T, SQUARE),
    "hsic, second": lambda bad: hsic(SQUARE, bad @ bad.T),
    "overlap, student": lambda bad: overlap(bad, GOOD, LABELS),
    "overlap, teacher": lambda bad: overlap(GOOD, bad, LABELS),
    "brier_score": lambda bad: brier_score(bad, LABELS),
    "FidelityMeter, teacher": lambda bad: FidelityMeter().update(
        student_logits=GOOD, teacher_logits=bad
    ),
    "FidelityMeter, student": lambda bad: FidelityMeter().update(
        student_logits=bad, teacher_logits=GOOD
    ),
    "hard_cross_entropy": lambda bad: hard_cross_entropy(student_logits=GOOD, teacher_logits=bad),
    "agreement of matching, student": lambda bad: agreement(bad, GOOD, 2),
    "agreement of matching, teacher": lambda bad: agreement(GOOD, bad, 2),
    "logit_distance, hard": lambda bad: logit_distance(GOOD, bad, "hard"),
    "class_block_contrast": lambda bad: class_block_contrast(bad @ bad.T, LABELS),
    "rank_agreement": lambda bad: rank_agreement(bad[3].tolist(), GOOD[3].tolist()),
    "rank_agreement, measured": lambda bad: rank_agreement(GOOD[3].tolist(), bad[3].tolist()),
    "correlations": lambda bad: correlations(bad[3], GOOD[3]),
    "classes_seen": lambda bad: classes_seen(lambda x: x, bad),
    "diversity": lambda bad: diversity(lambda x: x, bad),
}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", MEASURES)
def test_what_is_not_finite_is_refused_in_one_line(name, value):
    MEASURES[name](GOOD)
    bad = GOOD.clone()
    bad[3, 1] = value
    with pytest.raises(ValueError, match="must be finite; got") as error:
        MEASURES[name](bad)
    assert "\n" not in str(error.value)


def test_kernels_of_other_shapes_are_refused():
    for other in (SQUARE[:5, :5], SQUARE[:, :5], SQUARE[0]):
        with pytest.raises(ValueError, match="kernels must be square and of one shape; got"):
            hsic(other, SQUARE)
        with pytest.raises(ValueError, match="kernels must be square and of one shape; got"):
            hsic(other, other[:, :5] if other.ndim == 2 and len(other) > 5 else other[0])


def test_bins_without_examples_have_no_error():
    empty = CalibrationBins(*(torch.zeros(3, dtype=torch.float64) for _ in range(3)))
    with pytest.raises(ValueError, match="number of examples in the bins must be greater than 0"):
        empty.error()


def test_bins_of_one_example_have_one():
    one = torch.tensor([0.0, 1.0])
    assert CalibrationBins(one, one, 0.75 * one).error() == pytest.approx(0.25)
    assert np.isfinite(measure.calibration_error(GOOD, LABELS))
