"""Paired differences: their intervals, their outcomes, and the numbers that are printed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smallnets.book import Comparison

ABOVE = Comparison("above", [0.5, 0.6, 0.7], [0.1, 0.2, 0.29])
BELOW = Comparison("below", ABOVE.worse, ABOVE.better)
OPEN = Comparison("open", [0.5, 0.6, 0.7], [0.6, 0.5, 0.71])


def near(differences, **asked):
    return Comparison("c", differences, [0.0] * len(differences), **asked)


def test_outcomes():
    assert [one.outcome() for one in (ABOVE, BELOW, OPEN)] == ["holds", "fails", "open"]


@pytest.mark.parametrize("level", [0.9, 0.95, 0.999])
def test_interval_is_students(level):
    expected = stats.ttest_rel(OPEN.better, OPEN.worse).confidence_interval(level)
    assert OPEN.interval(level) == pytest.approx((expected.low, expected.high))


def test_a_higher_level_leaves_more_open():
    narrow = Comparison("c", [0.03, 0.05, 0.02, 0.04], [0, 0, 0, 0.0])
    assert (narrow.outcome(0.95), narrow.outcome(0.9999)) == ("holds", "open")


def test_a_margin_must_be_exceeded():
    assert Comparison("c", ABOVE.better, ABOVE.worse, margin=0.3).outcome() == "holds"
    assert Comparison("c", ABOVE.better, ABOVE.worse, margin=0.5).outcome() == "fails"


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        ([0.01, 0.02, 0.015], "holds"),
        ([-0.5, -0.51, -0.49], "holds"),
        ([0.10, 0.11, 0.12], "fails"),
        ([0.04, 0.05, 0.06], "open"),
    ],
)
def test_an_upper_bound_is_kept_however_negative_the_difference(differences, outcome):
    assert near(differences, at_most=0.05).outcome() == outcome


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        ([0.001, -0.001, 0.002], "holds"),
        ([0.10, 0.11, 0.12], "fails"),
        ([-0.10, -0.11, -0.12], "fails"),
        ([0.03, -0.03, 0.02], "open"),
        ([0.01, 0.011, 0.012], "open"),
    ],
)
def test_nothing_changes_within_a_band_and_much_does_outside_of_it(differences, outcome):
    assert near(differences, band=0.01).outcome() == outcome


def test_a_single_seed_decides_nothing():
    single = Comparison("one", [0.9], [0.1])
    assert single.outcome() == "open"
    assert single.interval() == (-math.inf, math.inf)
    assert not single.exact
    assert single.row()["interval"] == [None, None]
    assert str(single) == "one: +80.0 points, one seed (open)"
    pair = Comparison("two", [0.9, 0.8], [0.1, 0.2])
    assert str(pair) == "two: +70.0 points, two seeds (open)", "an interval of two says nothing"


def test_what_is_not_a_number_is_open_and_no_number_in_a_record():
    broken = Comparison("broken", [0.9, math.nan], [0.1, 0.2])
    row = broken.row()
    assert (row["outcome"], row["mean"], row["interval"]) == ("open", None, [None, None])
    assert row["text"].startswith("+nan")


def test_no_seed_at_all_is_open_too():
    nothing = Comparison("none", [], [])
    assert nothing.outcome() == "open"
    assert nothing.row()["mean"] is None
    assert nothing.text() == "no seed"


def test_counts_are_declared_as_exact_and_measurements_without_spread_are_not_counts():
    count = Comparison("bytes", [0.5, 0.5], [0.3, 0.3], margin=0.1, exact=True)
    assert count.interval(0.999) == pytest.approx((0.2, 0.2), abs=1e-15)
    assert count.outcome() == "holds"
    assert count.text() == "+20.0 points, exact"
    with pytest.raises(ValueError, match="bytes must be the same in every seed to be exact"):
        Comparison("bytes", [0.5, 0.6], [0.3, 0.3], exact=True)
    saturated = Comparison("both at 1", [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert "exact" not in saturated.text(), "two networks that are right everywhere are no count"


def test_a_difference_at_the_bound_itself_is_open():
    assert near([0.0, 0.0], margin=0).outcome() == "open"
    assert near([0.25, 0.25], at_most=0.25).outcome() == "open"


@given(st.lists(st.floats(0, 1), min_size=3, max_size=8), st.floats(0.001, 0.5))
def test_a_constant_gain_holds_and_its_opposite_fails(values, gain):
    better = [value + gain for value in values]
    assert Comparison("c", better, values).outcome() == "holds"
    assert Comparison("c", values, better).outcome() == "fails"


@pytest.mark.parametrize(
    ("differences", "asked", "text"),
    [
        ([0.02, 0.03, 0.04], {}, "+3.0 [+0.5, +5.5] points"),
        ([0.0100, 0.0101, 0.0102], {"margin": 0.01}, "+1.01 [+0.99, +1.03] points"),
        ([0.30, 0.31, 0.32], {"unit": 1, "suffix": ""}, "+0.31 [+0.29, +0.33]"),
        ([-0.0001, 0.0, 0.0001], {}, "+0.00 [-0.02, +0.02] points"),
        # One decimal would print the lower end as the margin.
        ([0.0102, 0.0112, 0.0122], {"margin": 0.009}, "+1.12 [+0.87, +1.37] points"),
    ],
)
def test_numbers_have_the_digits_that_show_why(differences, asked, text):
    assert near(differences, **asked).text() == text


@given(
    st.lists(st.floats(-0.2, 0.2), min_size=3, max_size=8),
    st.sampled_from([0.0, 0.01, 0.05, -0.02]),
    st.sampled_from([0.95, 0.999]),
)
def test_printed_ends_lie_on_the_side_of_the_margin_where_the_ends_do(values, margin, level):
    comparison = near(values, margin=margin)
    if comparison.exact or min(abs(e - margin) for e in comparison.interval(level)) < 1e-7:
        return
    printed = comparison.text(level).partition("[")[2].partition("]")[0].split(", ")
    for word, end in zip(printed, comparison.interval(level), strict=True):
        assert np.sign(float(word) - margin / 0.01) == np.sign(end - margin)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "more than 0 points"),
        ({"margin": -0.01}, "more than -1 points"),
        ({"at_most": 0.05}, "less than +5 points"),
        ({"at_most": 0.0}, "less than 0 points"),
        ({"band": 0.01}, "between -1 and +1 points"),
        ({"margin": 0.6, "unit": 1, "suffix": ""}, "more than +0.6"),
    ],
)
def test_what_is_claimed_is_said(asked, words):
    assert near([0.1, 0.2], **asked).claimed == words


def test_a_row_is_what_a_record_holds():
    row = near([0.01, 0.02, 0.03], at_most=0.05).row(0.9)
    assert row["interval"] == pytest.approx(near([0.01, 0.02, 0.03]).interval(0.9))
    assert (row["mean"], row["bounds"], row["seeds"]) == (pytest.approx(0.02), [None, 0.05], 3)
    assert (row["outcome"], row["unit"], row["suffix"]) == ("holds", 0.01, " points")
    assert row["text"] == near([0.01, 0.02, 0.03], at_most=0.05).text(0.9)
    assert near([0.1, 0.2], band=0.5).row()["bounds"] == [-0.5, 0.5]


@pytest.mark.parametrize(
    ("better", "asked", "message"),
    [
        ([1.0], {}, "c: better and worse must have the same seeds; got 1 and 2 values"),
        (
            [1.0, 2.0],
            {"margin": 0.1, "band": 0.1},
            "c must have one of margin, at_most and band; got margin and band",
        ),
        ([1.0, 2.0], {"band": 0}, "band of 'c' must be greater than 0; got 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(better, asked, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        Comparison("c", better, [0.0, 0.0], **asked)
    assert str(error.value) == message
