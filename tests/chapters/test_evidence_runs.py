"""The preset `evidence` of every chapter runs: one seed, on a tenth of its images and epochs."""

import numpy as np
import pytest

pytestmark = pytest.mark.chapters

# Chapter: what makes a run of it short.
SHORT = {
}


def test_evidence_runs_at_a_tenth_of_its_length(notebook, start):
    number = notebook.name[:2]
    record = start(notebook, scale="evidence", seeds=1, **SHORT[number])
    assert record["claims"]
    verdicts = {claim["verdict"] for claim in record["claims"]}
    assert verdicts <= {"inconclusive", "not at this scale"}, "one seed decides nothing"
    assert np.isfinite(list(record["measurements"]["accuracy"].values())).all()
