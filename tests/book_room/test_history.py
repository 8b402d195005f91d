"""What is kept of a record that is replaced, and what is said of how verdicts moved."""

import pytest

from smallnets.book.freshness import read_record, write_record
from smallnets.book.history import disagreements, moved, moves, with_history


def record(verdict, commit="new", outcome="holds", **changes):
    compared = [{"name": "a - b", "outcome": outcome}]
    claim = {"claim": "It works", "verdict": verdict, "rule": "r", "comparisons": compared}
    return {"claims": [claim], "commit": commit, "seeds": [0, 1], "measurements": [1], **changes}


def test_a_first_record_has_no_history(tmp_path):
    assert with_history(record("partly"), tmp_path / "r.json")["history"] == []
    assert moved(with_history(record("partly"), tmp_path / "r.json")) == []


def test_verdicts_of_replaced_records_are_kept_oldest_first(tmp_path):
    path = tmp_path / "r.json"
    for verdict, commit in (("partly", "a"), ("inconclusive", "b"), ("reproduced", "c")):
        write_record(with_history(record(verdict, commit), path), path)
    last = read_record(path)
    assert last["commit"] == "c"
    assert last["history"] == [
        {
            "seeds": [0, 1],
            "commit": commit,
            "rules": ["r"],
            "claims": [{"claim": "It works", "verdict": verdict}],
        }
        for commit, verdict in (("a", "partly"), ("b", "inconclusive"))
    ]
    assert moved(last) == [("It works", "inconclusive", "reproduced")]


def test_what_was_not_judged_leaves_no_entry_and_loses_none(tmp_path):
    path = tmp_path / "r.json"
    for verdict in ("partly", "not judged", "not judged"):
        write_record(with_history(record(verdict), path), path)
    assert [one["claims"][0]["verdict"] for one in read_record(path)["history"]] == ["partly"]
    assert moved(read_record(path)) == []


def test_the_same_verdict_and_a_new_claim_have_not_moved():
    last = {**record("partly"), "history": [record("partly")]}
    last["claims"].append({"claim": "It is new", "verdict": "contradicted"})
    assert moved(last) == []


def test_a_damaged_record_is_not_replaced(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"r\.json is damaged"):
        with_history(record("partly"), path)
    assert path.read_text(encoding="utf-8") == "{"


def test_two_runs_are_compared_comparison_by_comparison():
    first, second = record("reproduced"), record("inconclusive", outcome="open")
    assert moves(first, first) == {}
    assert moves(first, second) == {"It works / a - b": ("holds", "open")}
    second["claims"][0]["comparisons"][0]["name"] = "other"
    with pytest.raises(ValueError, match="differ in It works / a - b, It works / other"):
        moves(first, second)


def many(*outcomes):
    compared = [{"name": f"c{number}", "outcome": one} for number, one in enumerate(outcomes)]
    return {"claims": [{"claim": "It works", "comparisons": compared}]}


def test_a_repetition_may_open_a_fifth_of_the_comparisons_and_turn_none():
    stored = many(*["holds"] * 5, *["fails"] * 4, "open")
    one, two = many(*["holds"] * 5, *["fails"] * 5), many("open", *["holds"] * 4, *["fails"] * 5)
    three = many("open", "open", *["holds"] * 3, *["fails"] * 5)
    turned = many(*["holds"] * 6, *["fails"] * 3, "open")
    assert disagreements(stored, stored) == []
    assert disagreements(stored, one) == disagreements(stored, two) == []
    assert len(disagreements(stored, three)) == 3
    assert disagreements(stored, turned) == ["It works / c5: fails became holds"]
