"""The preset `evidence` of every chapter runs: one seed, on a tenth of its images and epochs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.chapters
CHAPTERS = Path(__file__).parents[2] / "chapters"
COMMAND = (sys.executable, "-c", "from smallnets.cli import main; main()", "run")

# Chapter: what makes a run of it short.
SHORT = {
    "01": {"train": 400, "epochs": 2, "network": "resnet-8-4", "table": False},
    "02": {"train": 448, "epochs": 2},
    "03": {"train": 320, "epochs": 2},
    "04": {"train": 300, "transfer": 50, "epochs": 32},
    "05": {"train": 200, "epochs": 6, "network": "resnet-8-4"},
    "06": {"train": 128, "epochs": 4, "solutions": 2},
    "07": {"train": 96, "size": 16, "ngf": 8, "epochs": 1},
    "08": {"train": 256, "test": 100, "epochs": 1, "network": "resnet-8-4"},
    "09": {
        "train": 224,
        "test": 100,
        "epochs": 2,
        "images": 32,
        "synthesis_steps": 10,
        "unit_steps": 10,
    },
    "10": {"iterations": 3, "epochs": 1, "network": "ConvNetW4"},
    "11": {"train": 144, "epochs": 1, "network": "convnet-4"},
    "12": {"train": 930, "epochs": 1, "network": "resnet-8-4", "sweep": False},
}


def test_evidence_runs_at_a_tenth_of_its_length(notebook, start):
    number = notebook.name[:2]
    record = start(notebook, scale="evidence", seeds=1, **SHORT[number])
    assert record["claims"]
    verdicts = {claim["verdict"] for claim in record["claims"]}
    assert verdicts <= {"inconclusive", "not at this scale"}, "one seed decides nothing"
    measured = record["measurements"]
    judged = measured["accuracy" if "accuracy" in measured else "distance"]
    assert np.isfinite(list(judged.values())).all()


def test_evidence_that_is_killed_and_started_again_ends_with_the_same_bits(tmp_path):
    def begin(name: str) -> subprocess.Popen:
        given = [f"-p{key}={value}" for key, value in {"seeds": 2, **SHORT["03"]}.items()]
        given += ["--scale", "evidence"]
        return subprocess.Popen(
            [*COMMAND, "03", *given, "--chapters", str(CHAPTERS), "--output-dir", name],
            cwd=tmp_path,
            env={**os.environ, "SMALLNETS_CACHE": str(tmp_path / name / "cache")},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def measured(name: str) -> dict:
        (record,) = (tmp_path / name).glob("03_*/*.record.json")
        return json.loads(record.read_text(encoding="utf-8"))["measurements"]

    assert begin("undisturbed").wait(timeout=600) == 0
    killed = begin("killed")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "killed").glob("cache/trainings/*.safetensors")):
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "killed").glob("03_*/*.record.json"))
    assert begin("killed").wait(timeout=600) == 0
    assert measured("killed") == measured("undisturbed")
