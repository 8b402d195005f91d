"""The comparison of stored with new outputs: strict with words, tolerant with numbers."""

import importlib.util
from pathlib import Path

import pytest
from nbformat import NotebookNode

SOURCE = Path(__file__).parents[2] / "chapters" / "conftest.py"


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("chapter_comparison", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tolerant(module):
    def build(text, rtol=1e-4, atol=1e-6):
        made = module.Tolerant(text)
        made.rtol, made.atol = rtol, atol
        return made

    return build


def test_rounding_is_forgiven_and_a_change_is_not(tolerant):
    assert tolerant("loss 0.51234") == "loss 0.51236"
    assert tolerant("loss 0.51234") != "loss 0.5133"


def test_words_are_compared_exactly(tolerant):
    assert tolerant("SP holds 1.0", atol=9) != "SP fails 1.0"
    assert tolerant("SP holds 1.0", rtol=9) == "SP fails 1.5", "the clock decides"
    assert tolerant("SP holds 1.0", rtol=9) != "KD holds 1.0"
    assert tolerant("1 2 3", atol=9) != "1 2"
    assert tolerant("something") != ""
    assert tolerant("") != "something"


def test_a_cell_may_state_its_tolerance(tolerant):
    assert tolerant("55 ± 4", rtol=0.25, atol=4) == "60 ± 1"
    assert tolerant("55 ± 4", rtol=0.05, atol=0) != "60 ± 4"


def test_layout_does_not_count(tolerant):
    assert tolerant("a   1\n b 2") == "a 1 b 2"


def test_counts_are_exact_unless_a_tolerance_is_stated(tolerant):
    assert tolerant("31,253,872 MACs") == "31,253,872 MACs"
    assert tolerant("31,253,872 MACs") != "31,253,873 MACs"
    assert tolerant("31,253,872 MACs", rtol=0.01) == "31,253,397 MACs"
    assert tolerant("31,253,872 MACs", rtol=0.01) != "32,253,872 MACs"
    assert tolerant("31,253,872 MACs", rtol=0.01) != "253,872 MACs"


@pytest.mark.parametrize(
    ("stored", "new", "same"),
    [
        ("full precision: 66 ± 6 %", "full precision: 67 ± 4 %", True),
        ("loss 0.5, holds", "loss 0.7, fails", True),
        ("trained on 400 images", "trained on 300 images", False),
        ("SP 0.5", "KD 0.5", False),
        ("<td>SP</td><td>0.5</td>", "<td>KD</td><td>0.5</td>", False),
    ],
)
def test_in_another_arithmetic_measured_numbers_are_masked_and_words_are_not(
    module, stored, new, same
):
    one, other = (module.comparable(text, False, {}) for text in (stored, new))
    assert (one == other) is same
    one, other = (module.comparable(text, True, {}) for text in (stored, new))
    assert one != other, "here all have to be equal"


def claims(verdict, outcome, number, claimed="+1"):
    """A table of claims as a chapter shows it."""
    from smallnets.book.verdicts import tables

    one = {
        "name": "SP - alone",
        "text": f"{number} [+1.1, +9.9] points",
        "claimed": f"more than {claimed} points",
        "outcome": outcome,
        "mean": float(number) / 100,
        "interval": [0.011, 0.099],
        "bounds": [0.01, None],
        "unit": 0.01,
        "suffix": " points",
    }
    reason = "seeds differ" if verdict == "partly" else ""
    row = {"claim": "It works", "paper": "91 %", "comparisons": [one]}
    return tables([{**row, "verdict": verdict, "reason": reason, "rule": "r"}])


@pytest.mark.parametrize("given", [{}, {"measured": True}])
def test_tables_of_claims_differ_in_verdicts_reasons_and_pictures_elsewhere(module, given):
    stored = claims("partly", "open", "+5.0")
    assert module.comparable(stored, False, given) != "a figure"
    for other in (claims("reproduced", "holds", "+7.1"), claims("inconclusive", "open", "+1.3")):
        one, two = (module.comparable(text, False, given) for text in (stored, other))
        assert one == two
        one, two = (module.comparable(text, True, given) for text in (stored, other))
        assert one != two
    renamed = stored.replace("SP - alone", "KD - alone")
    assert module.comparable(stored, False, given) != module.comparable(renamed, False, given)


def test_a_table_is_compared_by_its_html_and_other_text_as_it_is(module):
    data = {"text/html": "<p>1", "text/plain": "1"}
    table = NotebookNode(output_type="execute_result", data=data)
    plain = NotebookNode(output_type="execute_result", data={"text/plain": "    Spearman 0.5"})
    stream = NotebookNode(output_type="stream", text="    Spearman 0.5")
    found = module.unfolded([table, plain, stream])
    assert [one.output_type for one in found] == [one.output_type for one in (table, plain, stream)]
    assert found == [
        {"output_type": "execute_result", "data": {"text/html": "<p>1"}},
        plain,
        stream,
    ]
    assert set(table["data"]) == {"text/html", "text/plain"}, "left as it was"
