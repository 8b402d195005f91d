"""Stored evidence is that of today's claims and settings, and its verdicts follow from its numbers.

A chapter makes its claims in cells tagged `claims`, of nothing but the measurements, which they
call `measured`, the settings, the images, and what the chapter imports. So the claims of today can
be made of the measurements that a record holds.
"""

import ast
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from smallnets import data
from smallnets.book import CHAPTERS, Claim, Comparison, chapter
from smallnets.book.claims import definitions, judge
from smallnets.book.freshness import plainly, read_record, result_name
from smallnets.book.proof import NEEDED, Evidence, changed

ROOT = Path(__file__).parents[2]
KNOWN = (*data.names(), "scenes")  # what can be made here
RECORDS = sorted((ROOT / "book" / "results").glob("*-evidence.json"))


def claims_of(cells, measured, dataset, scale="evidence"):
    """The claims of a chapter's cells, made of measurements of a data set; and the settings.

    Claims may see the images and the settings of the run; those of a file, which is not here, are
    stood for by glyphs.
    """
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in code]
    names = {"measured": measured}
    for source in sources:
        if "%pip" not in source:
            tree = ast.parse(source)
            kept = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(kept, []), "imports", "exec"), names)
    if "study" in names:
        known = dataset if dataset in KNOWN else "glyphs10"
        names["images"], names["settings"] = names["study"].prepare(known, scale)[:2]
        names["domain"] = names["images"]  # as a chapter calls images that become others
    for source, cell in zip(sources, code, strict=True):
        if "claims" in cell["metadata"].get("tags", []):
            exec(source, names)
    return names["claims"], names.get("settings")


def faults(record, cells):
    """What is wrong with evidence: how it differs from what its chapter says today."""
    claims, settings = claims_of(cells, record["measurements"], record["dataset"])
    found = [] if definitions(claims) == record["definitions"] else ["claims"]
    if settings and record["dataset"] in KNOWN:
        found = changed(Evidence(record), claims, settings)
    rows = plainly(judge(claims))
    for name in ("verdict", "reason"):  # a reason is printed as the record holds it
        said, follow = ([(r["claim"], r[name]) for r in one] for one in (record["claims"], rows))
        found = found + ([f"{name}s"] if said != follow else [])
    return found


def test_stored_evidence_is_that_of_the_claims_and_settings_of_today():
    wrong = {}
    for path in RECORDS:
        record = read_record(path, *NEEDED, "commit", "arithmetic", "versions")
        assert path.stem == result_name(record["chapter"], record["dataset"])
        assert record["scale"] == "evidence"
        assert record["commit"], "made of a commit"
        notebook = ROOT / "chapters" / chapter(record["chapter"]).notebook
        wrong[path.name] = faults(record, read_record(notebook, "cells")["cells"])
    assert not any(wrong.values()), wrong


@pytest.mark.parametrize("one", CHAPTERS, ids=lambda one: one.number)
def test_a_chapters_claims_can_be_made_of_what_its_record_holds(one):
    notebook = ROOT / "chapters" / one.notebook
    record = read_record(notebook.with_suffix(".record.json"), "measurements")
    cells = read_record(notebook, "cells")["cells"]
    claims, _ = claims_of(cells, record["measurements"], record["dataset"], "small")
    assert definitions(claims) == record["definitions"]


def test_a_chapter_claims_what_its_evidence_judged():
    """Else the chapter would say, above its verdicts, that its claims have changed since."""
    for path in RECORDS:
        judged = json.loads(path.read_text())
        notebook = ROOT / "chapters" / chapter(judged["chapter"]).notebook
        shown = json.loads(notebook.with_suffix(".record.json").read_text())
        if shown["dataset"] == judged["dataset"]:
            assert shown["definitions"] == judged["definitions"], path.name


MADE = """
claims = [
    book.Claim(
        "It works", "fully", [book.Comparison("a - b", measured["a"], measured["b"], 0.1)]
    )
]
"""


@pytest.fixture
def cells():
    def code(source, *tags):
        return {"cell_type": "code", "source": [source], "metadata": {"tags": list(tags)}}

    return [
        {"cell_type": "markdown", "source": ["# Title"], "metadata": {}},
        code("from smallnets import book\nmeasured = train()"),
        code(MADE, "claims", "hide-input"),
    ]


@pytest.fixture
def record():
    measured = {"a": [0.9, 0.8, 0.9], "b": [0.1, 0.2, 0.1]}
    claims = [Claim("It works", "fully", [Comparison("a - b", *measured.values(), 0.1)])]
    made = {"claims": judge(claims), "definitions": definitions(claims), "measurements": measured}
    return json.loads(json.dumps({**made, "dataset": "npz:cifar10.npz", "settings": {}}))


def test_evidence_of_other_claims_or_verdicts_is_noticed(cells, record):
    assert faults(record, cells) == []
    cells[2]["source"] = [MADE.replace("0.1)", "0.2)")]
    assert faults(record, cells) == ["claims"]
    cells[2]["source"] = [MADE]
    record["claims"][0]["verdict"] = "partly"
    assert faults(record, cells) == ["verdicts"]
    record["measurements"]["a"] = [0.1, 0.2, 0.2]
    record["claims"][0]["verdict"] = "reproduced"
    assert faults(record, cells) == ["verdicts"]


def test_evidence_that_is_explained_otherwise_than_today_is_noticed(cells, record):
    cells[2]["source"] = [MADE.replace("0.1)]", '0.1)], {"reproduced": "as expected"}')]
    assert faults(record, cells) == ["reasons"]


@dataclass(frozen=True)
class Settings:
    epochs: int = 60


def test_evidence_of_other_settings_is_noticed(cells, record, monkeypatch):
    study = SimpleNamespace(prepare=lambda dataset, scale: (dataset, Settings()))
    monkeypatch.setitem(sys.modules, "some_study", study)
    cells[1]["source"] = ["import some_study as study\nfrom smallnets import book"]
    cells[2]["source"] = [MADE + "assert settings.epochs == 60"]
    record["dataset"] = "glyphs10"
    assert faults(record | {"settings": {"epochs": 60}}, cells) == []
    assert faults(record | {"settings": {"epochs": 40}}, cells) == ["settings"]
