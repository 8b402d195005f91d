import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smallnets.book import Claim, Comparison, claims_table

ABOVE = Comparison("above", [0.5, 0.6, 0.7], [0.1, 0.2, 0.29])
BELOW = Comparison("below", ABOVE.worse, ABOVE.better)
COLUMNS = ["claim", "paper", "measured", "verdict", "reason"]
OPEN = Comparison("open", [0.5, 0.6, 0.7], [0.6, 0.5, 0.71])


def claim(*comparisons):
    return Claim("text", "figure", comparisons, "because")


def test_outcomes():
    assert [one.outcome for one in (ABOVE, BELOW, OPEN)] == ["holds", "fails", "open"]


def test_interval_is_students():
    interval = OPEN.interval
    expected = stats.ttest_rel(OPEN.better, OPEN.worse).confidence_interval(0.9)
    assert interval == pytest.approx((expected.low, expected.high))


def test_a_margin_must_be_exceeded():
    assert Comparison("c", ABOVE.better, ABOVE.worse, margin=0.3).outcome == "holds"
    assert Comparison("c", ABOVE.better, ABOVE.worse, margin=0.5).outcome == "fails"


def test_a_single_seed_decides_nothing():
    single = Comparison("one", [0.9], [0.1])
    assert single.outcome == "open"
    assert single.interval == (-math.inf, math.inf)
    assert "+80.0" in str(single)


@pytest.mark.parametrize(
    ("comparisons", "verdict"),
    [
        ((ABOVE,), "reproduced"),
        ((ABOVE, ABOVE), "reproduced"),
        ((ABOVE, OPEN), "partly"),
        ((ABOVE, BELOW), "partly"),
        ((OPEN, BELOW), "contradicted"),
        ((BELOW,), "contradicted"),
        ((OPEN,), "not at this scale"),
    ],
)
def test_verdicts(comparisons, verdict):
    assert claim(*comparisons).verdict == verdict


@given(st.lists(st.floats(0, 1), min_size=3, max_size=8), st.floats(0.001, 0.5))
def test_a_constant_gain_holds_and_its_opposite_fails(values, gain):
    better = [value + gain for value in values]
    assert Comparison("c", better, values).outcome == "holds"
    assert Comparison("c", values, better).outcome == "fails"


def test_reason_is_given_only_where_something_is_to_be_explained():
    assert claim(ABOVE).row()["reason"] == ""
    assert claim(OPEN).row()["reason"] == "because"
    unjudged = claim(OPEN).row(judged=False)
    assert (unjudged["verdict"], unjudged["reason"]) == ("not judged", "")


def test_table_shows_measurement_and_verdict():
    table = claims_table([claim(ABOVE), claim(OPEN)])
    rows = re.findall(r"<td>(.*?)</td>", table.data)
    assert re.findall(r"<th>(.*?)</th>", table.data) == COLUMNS
    assert (rows[0], rows[3], rows[8]) == ("text", "reproduced", "not at this scale")
    half = np.diff(ABOVE.interval)[0] / 2
    assert rows[2] == f"above: +40.3 ± {100 * half:.1f} points (holds)"


def test_table_gives_every_comparison_a_line_and_escapes_texts():
    table = claims_table([Claim("a < b", "", [ABOVE, OPEN], "one; two")])
    assert "a &lt; b" in table.data
    assert table.data.count("<br>") == 1
    assert "one; two" in table.data
