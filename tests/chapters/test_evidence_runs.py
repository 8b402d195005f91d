"""The preset `evidence` of every chapter runs: one seed, on a tenth of its images and epochs."""

import numpy as np
import pytest

pytestmark = pytest.mark.chapters

# Chapter: what makes a run of it short.
SHORT = {
    "02": {"train": 448, "epochs": 2},
    "03": {"train": 320, "epochs": 2},
    "04": {"train": 300, "transfer": 50, "epochs": 32},
    "05": {"train": 200, "epochs": 6, "network": "resnet-8-4"},
    "06": {"train": 128, "epochs": 4, "solutions": 2},
    "08": {"train": 256, "test": 100, "epochs": 1, "network": "resnet-8-4"},
    "09": {
        "train": 224,
        "test": 100,
        "epochs": 2,
        "images": 32,
        "synthesis_steps": 10,
        "unit_steps": 10,
    },
    "11": {"train": 144, "epochs": 1, "network": "convnet-4"},
}


def test_evidence_runs_at_a_tenth_of_its_length(notebook, start):
    number = notebook.name[:2]
    record = start(notebook, scale="evidence", seeds=1, **SHORT[number])
    assert record["claims"]
    verdicts = {claim["verdict"] for claim in record["claims"]}
    assert verdicts <= {"inconclusive", "not at this scale"}, "one seed decides nothing"
    assert np.isfinite(list(record["measurements"]["accuracy"].values())).all()
