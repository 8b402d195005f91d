"""What a chapter shows of its evidence: found, not found, damaged, stale; tables and figures."""

import json
import re
from dataclasses import dataclass, replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from smallnets.book import Claim, Comparison, Parameters, claims_table, save_record
from smallnets.book import evidence as found
from smallnets.book.freshness import plainly, read_record, result_name, write_record
from smallnets.book.proof import Evidence, changed, side_by_side

matplotlib.use("agg")
MEASURED = {"accuracy": {"SP": [0.5, 0.6, 0.7], "alone": [0.1, 0.2, 0.29]}}


@dataclass(frozen=True)
class Settings:
    epochs: int = 3
    widths: tuple[int, ...] = (4, 8)


def claims(measured=MEASURED, margin=0.0):
    accuracy = measured["accuracy"]
    compared = Comparison("SP - alone", accuracy["SP"], accuracy["alone"], margin)
    return [Claim("It works", "fully", [compared], {"reproduced": "as hoped"})]


def save(folder, scale="evidence", **changes):
    given = {"dataset": "npz:/some/where/cifar10.npz", "seeds": 3, "device": "cpu"}
    run = Parameters(scale=scale, precision="32-true", output_dir=str(folder), **given)
    about = {"measurements": MEASURED, "settings": Settings(), "seeds": 3, "precision": "32-true"}
    return save_record("02", run, **{"claims": claims(), **about, **changes})


@pytest.fixture
def book_folder(tmp_path):
    """A repository with evidence of chapter 02 on CIFAR-10."""
    record = {**save(tmp_path / "run"), "commit": "1234567890", "history": []}
    write_record(record, tmp_path / "book" / "results" / "02-cifar10-evidence.json")
    (tmp_path / "chapters").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("glyphs10", "02-glyphs10-evidence"),
        ("npz:/a/b/cifar10.npz", "02-cifar10-evidence"),
        ("npz:cifar10-16.npz", "02-cifar10-16-evidence"),
    ],
)
def test_a_record_is_named_by_chapter_and_data(dataset, name):
    assert result_name("02", dataset) == name


@pytest.mark.parametrize(
    ("scale", "verdict"),
    [
        ("smoke", "not judged"),
        ("small", "not judged"),
        ("evidence", "reproduced"),
        ("paper", "reproduced"),
    ],
)
def test_only_evidence_and_the_paper_s_scale_decide(tmp_path, scale, verdict):
    record = save(tmp_path, scale)
    assert record["claims"][0]["verdict"] == verdict
    assert record["claims"][0]["comparisons"][0]["outcome"] == "holds"
    assert len(record["definitions"]) == 16


def test_a_repetition_records_its_own_seeds(tmp_path):
    assert save(tmp_path)["seeds"] == [0, 1, 2]
    assert save(tmp_path, seeds=range(8, 11))["seeds"] == [8, 9, 10]


def test_evidence_is_found_from_the_chapters_and_holds_what_was_measured(book_folder):
    proof = found("2", "npz:cifar10.npz", book_folder / "chapters")
    assert proof.measurements == MEASURED
    assert proof.claims[0]["verdict"] == "reproduced"
    assert str(proof) == "3 seeds on npz:cifar10.npz, commit 1234567"
    assert str(Evidence({**proof.record, "commit": None})) == "3 seeds on npz:cifar10.npz"


def test_where_there_is_none_there_is_none(book_folder, tmp_path, monkeypatch):
    assert found("02", "glyphs10", book_folder) is None
    assert found("03", "cifar10", book_folder) is None
    monkeypatch.setattr("smallnets.book.proof.results_folder", lambda start: None)
    assert found("02", "cifar10", tmp_path) is None


def test_damaged_evidence_is_left_out_with_a_word(book_folder):
    path = book_folder / "book" / "results" / "02-cifar10-evidence.json"
    path.write_text('{"claims": []}', encoding="utf-8")
    with pytest.warns(UserWarning, match=r"02-cifar10-evidence\.json must hold .*left out"):
        assert found("02", "cifar10", book_folder) is None


def test_evidence_is_stale_when_claims_or_settings_change_and_only_then(book_folder):
    proof = found("02", "cifar10", book_folder)
    today = claims(proof.measurements)
    assert changed(proof, today, Settings()) == []
    assert changed(proof, claims(margin=0.01), Settings()) == ["claims"]
    assert changed(proof, today, Settings(epochs=4)) == ["settings"]
    assert changed(proof, [], Settings(widths=(4,))) == ["claims", "settings"]
    other = Evidence({**proof.record, "hashes": {"code cells": "0"}, "versions": {}})
    assert changed(other, today, Settings()) == []


def verdicts(table):
    return re.findall(r'<span class="verdict [^"]*">(.*?)</span>', table.data)


def test_without_evidence_a_claim_is_not_yet_judged_beside_its_numbers():
    table = claims_table(claims())
    assert verdicts(table) == ["not yet judged"]
    assert "SP - alone" in table.data
    assert "as hoped" not in table.data
    assert verdicts(claims_table(claims(), scale="smoke")) == ["not judged"]


@pytest.mark.parametrize("scale", ["evidence", "paper"])
def test_a_run_that_decides_shows_its_own_verdicts(book_folder, scale):
    older = found("02", "cifar10", book_folder)
    failed = [Claim("It works", "fully", [Comparison("SP - alone", [0, 0.1, 0], [1, 1, 1])])]
    assert verdicts(claims_table(failed, scale=scale, evidence=older)) == ["contradicted"]


def test_verdicts_are_those_of_the_evidence_with_this_run_below(book_folder):
    live = {"accuracy": {"SP": [0.3, 0.1], "alone": [0.2, 0.2]}}
    table = claims_table(claims(live), evidence=found("02", "cifar10", book_folder))
    assert verdicts(table) == ["reproduced"]
    assert "as hoped" in table.data
    assert "3 seeds on npz:cifar10.npz, commit 1234567" in table.data
    assert "this run: +0.0" in table.data


def test_a_claim_that_the_evidence_lacks_is_not_yet_judged(book_folder):
    new = [*claims(), replace(claims()[0], text="It is new")]
    table = claims_table(new, evidence=found("02", "cifar10", book_folder))
    assert verdicts(table) == ["reproduced", "not yet judged"]


def test_a_premise_that_is_not_met_is_said_before_there_is_evidence(book_folder):
    declared = [replace(claims()[0], text="Elsewhere", not_here="other images")]
    for proof in (None, found("02", "cifar10", book_folder)):
        table = claims_table(declared, evidence=proof)
        assert verdicts(table) == ["not at this scale"]
        assert "other images" in table.data


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="scale must be one of smoke, small, evidence, paper"):
        claims_table(claims(), scale="big")


def draw(axes, measured):
    for name, values in measured["accuracy"].items():
        axes.plot(values, label=name)
    axes.set_ylabel("accuracy")


def test_one_function_draws_this_run_and_the_evidence(book_folder):
    live = {"accuracy": {"SP": np.array([0.3, 0.5]), "alone": (0.2, 0.2)}}
    figure = side_by_side(draw, live, found("02", "cifar10", book_folder))
    left, right = figure.axes
    assert left.lines[0].get_ydata().tolist() == [0.3, 0.5]
    assert right.lines[0].get_ydata().tolist() == MEASURED["accuracy"]["SP"]
    assert left.get_title() == "this run"
    assert right.get_title() == "evidence, 3 seeds"
    assert (left.get_ylabel(), right.get_ylabel()) == ("accuracy", "")
    assert left.get_ylim() == right.get_ylim()
    assert plt.get_fignums() == []


@pytest.mark.parametrize("down", [False, True])
def test_limits_that_were_set_for_one_panel_show_the_data_of_both(book_folder, down):
    def draw(axes, numbers):
        values = numbers["accuracy"]["SP"]
        axes.plot(values, "o")
        axes.set_ylim((max(values), 0) if down else (0, max(values)))

    live = {"accuracy": {"SP": [5.0, 6.0]}}
    figure = side_by_side(draw, live, found("02", "cifar10", book_folder))
    for axes in figure.figure.axes:
        ends = axes.get_ylim()
        assert (ends[0] > ends[1]) == down
        assert min(ends) <= 0
        assert max(ends) > 6


def test_without_evidence_there_is_one_panel():
    (axes,) = side_by_side(draw, MEASURED, None, height=2).figure.axes
    assert axes.get_title() == "this run"


def test_measurements_are_drawn_as_a_record_holds_them(tmp_path):
    live = {"by bits": {4: np.arange(2), 8: (1, 2)}, "share": np.float64(0.5)}
    assert plainly(live) == {"by bits": {"4": [0, 1], "8": [1, 2]}, "share": 0.5}
    write_record(live, tmp_path / "r.json")
    assert read_record(tmp_path / "r.json") == plainly(live)
    assert json.loads((tmp_path / "r.json").read_bytes()) == plainly(live)
