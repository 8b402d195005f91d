"""Tables of claims as a reader meets them, and the pictures in them."""

import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from smallnets.book import Claim, Comparison
from smallnets.book.claims import judge
from smallnets.book.interval_plot import HEIGHT, WIDTH, interval_plot, limits, spoken
from smallnets.book.verdicts import COLUMNS, stored_table, tables

HOLDS = Comparison("SP - alone", [0.5, 0.6, 0.7], [0.1, 0.2, 0.29], margin=0.01)
FAILS = Comparison("alone - SP", HOLDS.worse, HOLDS.better)
OPEN = Comparison("a < b", [0.5, 0.6, 0.7], [0.6, 0.5, 0.71])
SHAPES = {"holds": "circle", "fails": "path", "open": "circle"}
OLD = {"claim": "c", "paper": "p", "measured": "a: +1; b: +2", "verdict": "partly", "reason": "r"}


def rows(*compared, **changes):
    return judge([Claim("It <works>", "91 %", compared, "seeds differ", **changes)])


class Balanced(HTMLParser):
    """Notes which elements were left open or closed twice."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("img", "br", "col"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_a_table_reads_claim_figure_comparisons_verdict():
    html = tables(rows(HOLDS, OPEN))
    assert re.findall(r"<th [^>]*>(.*?)</th>", html) == list(COLUMNS)
    cells = re.findall(r"<td [^>]*>(.*?)</td>", html)
    assert (cells[0], cells[1]) == ("It &lt;works&gt;", "91 %")
    assert cells[2].count("<div") == cells[2].count("<img") == 2
    assert "<strong>SP - alone</strong>: +40.3 [" in cells[2]
    assert "(claimed: more than +1 points)" in cells[2]
    assert "a &lt; b: " in cells[2]
    assert "verdict-partly" in cells[3]
    assert cells[4] == "seeds differ"
    assert "5 % shared by 2 comparisons" in html


def test_a_table_is_well_formed_and_shares_the_width_that_there_is():
    parser = Balanced()
    parser.feed(tables([*rows(HOLDS, FAILS, OPEN), OLD, *rows(OPEN, source="ours")]))
    assert (parser.open, parser.wrong) == ([], [])
    assert sum(COLUMNS.values()) == 100
    html = tables(rows(HOLDS))
    assert "table-layout:fixed;width:100%" in html
    assert html.count("overflow-wrap:anywhere") >= 8
    (least,) = re.findall(r"min-width:(\d+)rem", html)
    assert int(least) * 16 < 600, "the column of text in a window of 1,280 pixels is wider"
    assert COLUMNS["measured"] / 100 * int(least) * 16 > WIDTH, "a picture fits its column"


def test_claims_of_the_paper_and_our_own_stand_apart():
    html = tables([*rows(HOLDS), *rows(OPEN, source="ours")])
    assert re.findall(r"<caption[^>]*>(.*?)</caption>", html) == [
        "Claims of the paper",
        "Hypotheses of our own",
    ]
    assert tables(rows(HOLDS)).count("<table") == 1
    assert "<table" not in tables([])


def test_rows_of_an_earlier_rule_are_shown_as_they_were():
    html = tables([OLD])
    assert "a: +1<br>b: +2" in html
    assert "verdict-partly" in html
    stored = stored_table([{**OLD, "run": "02-old"}, {**rows(HOLDS)[0], "run": "02-new"}])
    assert "partly (earlier rule)" in stored
    assert "reproduced</td>" in stored


def test_numbers_of_this_run_stand_below_those_that_decided():
    live = rows(Comparison("SP - alone", [0.3, 0.4], [0.2, 0.2]), OPEN)
    html = tables(rows(HOLDS, FAILS), {live[0]["claim"]: live[0]})
    assert html.count('class="live"') == 1
    assert "this run: +15.0 points, two seeds" in html


def test_a_picture_says_in_words_what_it_shows():
    one = HOLDS.row()
    picture = interval_plot(one, limits([one]))
    (alternative,) = re.findall(r'alt="([^"]*)"', picture)
    assert unescape(alternative) == spoken(one)
    assert spoken(one) == (
        f"SP - alone: {one['text']}, claimed is more than +1 points, "
        "the interval lies above zero: holds"
    )
    assert "lies below zero: fails" in spoken(FAILS.row())
    assert "lies around zero: open" in spoken(OPEN.row())
    assert "zero" not in spoken(Comparison("c", [1.0], [0.0]).row()).replace("than 0", "")


def drawn(one, axis=None):
    picture = interval_plot(one, axis or limits([one]))
    return ElementTree.fromstring(unquote(picture.partition("svg+xml,")[2].rpartition('"')[0]))


@pytest.mark.parametrize("comparison", [HOLDS, FAILS, OPEN])
def test_outcomes_are_told_apart_by_shape_too(comparison):
    one = comparison.row()
    last = list(drawn(one))[-1]
    assert last.tag.endswith(SHAPES[one["outcome"]])
    if one["outcome"] == "open":
        assert last.get("fill") == "#ffffff", "a ring"


def test_zero_margin_and_interval_stand_where_they_are():
    one = {**HOLDS.row(), "mean": 0.5, "interval": [0.25, 0.75], "bounds": [0.25, None]}
    parts = list(drawn(one, (0.0, 1.0)))
    assert (float(parts[1].get("x")), float(parts[1].get("width"))) == (41.5, WIDTH - 41.5)
    assert [part.get("d") for part in parts[2:5]] == [
        f"M8.0 0V{HEIGHT}",
        f"M41.5 0V{HEIGHT}",
        f"M41.5 {HEIGHT // 2}H108.5",
    ]
    assert parts[3].get("stroke-dasharray")
    assert float(parts[5].get("cx")) == 75.0


def test_a_band_has_two_dashed_lines_and_nothing_leaves_the_picture():
    one = Comparison("c", [0.2, 0.3, 0.1], [0.0, 0.1, 0.2], band=0.05).row()
    dashed = [part for part in drawn(one) if part.get("stroke-dasharray")]
    assert len(dashed) == 2
    axis = limits([one])
    assert axis[0] == min(one["interval"])
    assert axis[1] == max(one["interval"])
    assert limits([Comparison("c", [1.0], [1.0]).row()]) == (-1.0, 1.0)


def test_a_single_seed_has_a_bar_as_wide_as_the_axis():
    one = Comparison("c", [0.9], [0.1]).row()
    (bar,) = [part for part in drawn(one) if "H" in part.get("d", "")]
    assert bar.get("d") == f"M8.0 {HEIGHT // 2}H{WIDTH - 8.0}"
