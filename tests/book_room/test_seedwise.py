"""Seed by seed: written as it comes, not measured again, the same bits after a break."""

import json

import pytest

from smallnets.book import Parameters, seed_by_seed
from smallnets.book.freshness import write_record
from smallnets.book.seedwise import joined


def measured(seed, slope, cache_dir=None):
    """Numbers with many digits."""
    return {"accuracy": {"a": slope / (seed + 3), "b": 0.1}, "curve": [seed, slope * seed / 7]}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """call(**arguments) -> what was measured, and the seeds that were, in this process."""
    monkeypatch.setattr("smallnets.training.seeds.workers_that_fit", lambda cores: 1)
    run = Parameters("digits", "evidence", None, "cpu", "32-true", str(tmp_path / "run"))
    folder = tmp_path / "run" / "seeds"

    def written():
        return {file: file.stat().st_mtime_ns for file in folder.glob("*/*")}

    def start(function=measured, seeds=3, **common):
        before = written()
        found = seed_by_seed(function, run, seeds=seeds, **common)
        return found, sorted(int(file.stem) for file, _ in written().items() - before.items())

    start.folder = folder
    return start


def test_every_seed_is_measured_once_and_the_seeds_are_joined(call):
    found, seeds = call(slope=1.0)
    assert seeds == [0, 1, 2]
    assert found == {
        "accuracy": {"a": [1 / 3, 1 / 4, 1 / 5], "b": [0.1] * 3},
        "curve": [[0, 0.0], [1, 1 / 7], [2, 2 / 7]],
    }
    assert call(slope=1.0) == (found, [])
    assert call(slope=1.0, seeds=4)[1] == [3]
    files = sorted(file.name for file in call.folder.glob("*/*"))
    assert files == ["0.json", "1.json", "2.json", "3.json"]


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bits(call, monkeypatch):
    whole, _ = call(slope=0.3)
    for file in call.folder.glob("*/*"):
        file.unlink()

    def stop_at_seed_1(record, file):
        if record["seed"] == 1:
            raise KeyboardInterrupt
        write_record(record, file)

    with monkeypatch.context() as patched:
        patched.setattr("smallnets.book.seedwise.write_record", stop_at_seed_1)
        with pytest.raises(KeyboardInterrupt):
            call(slope=0.3)
    assert [file.name for file in call.folder.glob("*/*")] == ["0.json"]
    resumed, seeds = call(slope=0.3)
    assert seeds == [1, 2]
    assert json.dumps(resumed) == json.dumps(whole)


def test_other_arguments_code_or_arithmetic_are_measured_anew(call, monkeypatch):
    call(slope=1.0)
    assert call(slope=2.0)[1] == [0, 1, 2]
    assert call(slope=1.0, cache_dir="elsewhere")[1] == []
    monkeypatch.setattr("smallnets.book.seedwise.arithmetic", lambda: {"torch": "other"})
    assert call(slope=1.0)[1] == [0, 1, 2]
    monkeypatch.setattr("smallnets.book.seedwise.source_digest", lambda part: "other")
    assert call(slope=1.0)[1] == [0, 1, 2]


def test_a_repetition_has_other_seeds(call):
    found, seeds = call(slope=1.0, seeds=2, first=8)
    assert seeds == [8, 9]
    assert found["accuracy"]["a"] == [1 / 11, 1 / 12]
    assert call(slope=1.0, seeds=1, first=9)[1] == []


def test_seeds_that_measure_otherwise_are_refused():
    with pytest.raises(ValueError, match="seeds 0 and 1 differ in b"):
        joined([{"a": 1}, {"a": 1, "b": 2}])


def test_fewer_than_one_seed_is_refused(call):
    with pytest.raises(ValueError, match="seeds must be at least 1; got 0"):
        call(slope=1.0, seeds=0)
    with pytest.raises(ValueError, match="first must be at least 0; got -1"):
        call(slope=1.0, first=-1)
