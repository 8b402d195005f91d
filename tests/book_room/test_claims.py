"""The rule: verdicts, the level that all comparisons share, and how often chance decides."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smallnets.book import Claim, Comparison
from smallnets.book.claims import common_level, counted, definitions, judge, rule

ABOVE = Comparison("above", [0.5, 0.6, 0.7], [0.1, 0.2, 0.29])
BELOW = Comparison("below", ABOVE.worse, ABOVE.better)
OPEN = Comparison("open", [0.5, 0.6, 0.7], [0.6, 0.5, 0.71])
EXACT = Comparison("bytes", [1.0, 1.0], [0.5, 0.5], exact=True)
REASONS = {"partly": "in part", "contradicted": "no", "inconclusive": "who knows"}


def claim(*comparisons, **changes):
    return Claim("text", "figure", comparisons, **{"reasons": REASONS, **changes})


@pytest.mark.parametrize(
    ("comparisons", "verdict"),
    [
        ((ABOVE,), "reproduced"),
        ((ABOVE, ABOVE), "reproduced"),
        ((ABOVE, EXACT), "reproduced"),
        ((ABOVE, OPEN), "partly"),
        ((ABOVE, BELOW), "partly"),
        ((BELOW,), "contradicted"),
        ((BELOW, ABOVE), "contradicted"),
        ((OPEN,), "inconclusive"),
        ((OPEN, BELOW), "inconclusive"),
        ((OPEN, ABOVE), "inconclusive"),
        ((), "inconclusive"),
    ],
)
def test_the_main_comparison_decides_and_the_others_qualify(comparisons, verdict):
    assert claim(*comparisons).verdict() == verdict


def test_a_premise_that_is_not_met_is_not_judged_and_says_why():
    row = claim(BELOW, not_here="other images").row()
    assert (row["verdict"], row["reason"]) == ("not at this scale", "other images")
    assert row["comparisons"][0]["outcome"] == "fails", "its numbers are shown"


@pytest.mark.parametrize(
    ("comparison", "reason"), [(ABOVE, ""), (BELOW, "no"), (OPEN, "who knows")]
)
def test_a_reason_is_printed_beside_the_verdict_that_it_was_written_for(comparison, reason):
    assert claim(comparison).row()["reason"] == reason
    assert claim(comparison, reasons={"reproduced": "yes"}).row()["reason"] == (
        "yes" if comparison is ABOVE else ""
    )


def test_a_single_sentence_explains_what_is_open_and_nothing_else():
    written = [
        Claim("text", "figure", pair, "seeds differ").row()["reason"]
        for pair in ([ABOVE], [ABOVE, OPEN], [OPEN], [BELOW])
    ]
    assert written == ["", "seeds differ", "seeds differ", ""]


def test_without_judgement_there_is_neither_verdict_nor_reason():
    row = claim(OPEN).row(judged=False)
    assert (row["verdict"], row["reason"]) == ("not judged", "")


def test_all_comparisons_of_a_record_share_five_per_cent():
    claims = [claim(ABOVE, OPEN), claim(BELOW, source="ours"), claim(EXACT)]
    assert counted([*claims, claim(OPEN, not_here="too small")]) == 3
    assert common_level(claims) == pytest.approx(1 - 0.05 / 3)
    assert common_level([]) == 0.95
    rows = judge(claims)
    assert {row["level"] for row in rows} == {common_level(claims)}
    shown = rows[0]["comparisons"][1]["interval"]
    assert shown == pytest.approx(OPEN.interval(1 - 0.05 / 3))
    assert "at 98.333% (5 % shared by 3 comparisons)" in rows[0]["rule"]
    assert "by 1 comparison)" in rule([claim(OPEN)])


def test_one_more_comparison_can_leave_a_claim_open():
    shaky = Comparison("shaky", [0.03, 0.05, 0.02, 0.04], [0.0, 0.0, 0.0, 0.0])
    assert judge([claim(shaky)])[0]["verdict"] == "reproduced"
    many = judge([claim(shaky), *[claim(OPEN)] * 40])
    assert many[0]["verdict"] == "inconclusive"


def test_rows_survive_a_record():
    rows = judge([claim(ABOVE, OPEN), claim(Comparison("one", [0.9], [0.1]))])
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0]["measured"].startswith("above: +40.3 [")
    assert rows[0]["measured"].count("; ") == 1
    assert (rows[0]["claim"], rows[0]["paper"], rows[0]["source"]) == ("text", "figure", "paper")


def test_the_worked_example_of_the_book_is_what_the_rule_gives():
    page = (Path(__file__).parents[2] / "book" / "how-to-read.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (\d(?: \| -?[\d.]+){5}) \|$", page, re.MULTILINE)
    table = np.array([[float(cell) for cell in line.split(" | ")] for line in lines])
    alone, a, b = table[:, 1:4].T / 100
    assert table[:, 4] == pytest.approx(100 * (a - alone))
    assert table[:, 5] == pytest.approx(100 * (a - b))
    compared = Comparison("A - alone", a, alone), Comparison("A - B", a, b, at_most=0.02)
    (row,) = judge([claim(*compared)])
    assert row["verdict"] == "partly"
    assert f"the claim is *{row['verdict']}* reproduced" in page
    for one, name in zip(row["comparisons"], ("**A - alone**", "A - B"), strict=True):
        line = f"- {name}: {one['text']} (claimed: {one['claimed']}), {one['outcome']}"
        assert line in page
    assert f"each interval has the level {row['level']:.1%}".replace("%", " %") in page


def test_unknown_sources_and_outcomes_are_refused():
    with pytest.raises(ValueError, match="source of 'text' must be one of paper, ours; got 'mine'"):
        claim(ABOVE, source="mine")
    with pytest.raises(ValueError, match=r"reason for 'text' must be one of .*; got 'open'"):
        claim(ABOVE, reasons={"open": "x"})


def test_definitions_are_what_is_claimed_and_nothing_else():
    before = definitions([claim(ABOVE, OPEN)])
    measured = replace(ABOVE, better=[1.0, 2.0], worse=[0.0, 0.0], unit=1, suffix="")
    reworded = replace(claim(measured, OPEN), published="other", reasons={})
    assert definitions([reworded]) == before
    assert len(before) == 16
    changes = [
        [claim(OPEN, ABOVE)],
        [claim(ABOVE)],
        [claim(ABOVE, OPEN), claim(ABOVE)],
        [claim(replace(ABOVE, margin=0.01), OPEN)],
        [claim(replace(ABOVE, at_most=0.0), OPEN)],
        [claim(replace(ABOVE, band=0.01), OPEN)],
        [claim(replace(ABOVE, name="other"), OPEN)],
        [claim(ABOVE, OPEN, source="ours")],
        [claim(ABOVE, OPEN, not_here="too small")],
        [replace(claim(ABOVE, OPEN), text="other")],
    ]
    assert len({before, *map(definitions, changes)}) == 1 + len(changes)


def simulated(chance, seeds, effect=0.0):
    """A record of six claims with one to three directional comparisons each; trainings of a seed
    have much in common, as those of one teacher have.
    """
    claims = []
    for number in range(6):
        shared = chance.standard_normal(seeds)
        compared = [
            Comparison(
                f"{number}, {other}",
                shared + chance.standard_normal(seeds) + effect,
                shared + chance.standard_normal(seeds),
            )
            for other in range(1 + number % 3)
        ]
        claims.append(claim(*compared))
    return claims


@pytest.mark.parametrize("seeds", [3, 8])
def test_where_there_is_nothing_one_record_of_twenty_says_something_at_most(seeds):
    chance = np.random.default_rng(seeds)
    decided = []
    for _ in range(600):
        claims = simulated(chance, seeds)
        level = common_level(claims)
        decided.append(any(one.verdict(level) != "inconclusive" for one in claims))
    # Of 600 records at exactly 5 %, more than 43 say something once in a hundred times.
    assert 10 < sum(decided) <= 43


def test_where_there_is_much_eight_seeds_find_it():
    chance = np.random.default_rng(0)
    rows = [row for _ in range(20) for row in judge(simulated(chance, 8, effect=4.0))]
    assert np.mean([row["verdict"] == "reproduced" for row in rows]) > 0.9
