"""What the book is made of: vendored files, the catalogue, the table of contents, the records."""

import ast
import hashlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from smallnets.book.catalogue import CHAPTERS

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
MATHJAX = BOOK / "static" / "vendor" / "mathjax"


def extension(name: str):
    """A local Sphinx extension as a module."""
    sys.path.insert(0, str(BOOK / "ext"))  # they import each other as Sphinx sees them
    spec = importlib.util.spec_from_file_location(name, BOOK / "ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


records = extension("book_records")
local = extension("book_local")

RECORD = {
    "chapter": "02",
    "slug": "similarity-preserving",
    "title": "A title",
    "scale": "small",
    "dataset": "glyphs10",
    "command": "smallnets run 02 --scale small",
    "parameters": {},
    "seeds": [0, 1],
    "seconds": 93.1,
    "peak_memory_mb": 1234,
    "cores": 2,
    "precision": "32-true",
    "versions": {"torch": "2.14"},
    "claims": [{"claim": "c", "paper": "p", "measured": "m", "verdict": "partly"}],
}


def private_names(source: str) -> list[str]:
    """Names of a module's own that its reference would have to link and does not know: private ones
    in the signature of what is public.
    """
    tree = ast.parse(source)
    own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    public = [node for node in tree.body if not getattr(node, "name", "_").startswith("_")]
    for one in [one for one in public if isinstance(one, ast.ClassDef)]:
        public += [node for node in one.body if not getattr(node, "name", "_").startswith("_")]
    said = []
    for one in public:
        if isinstance(one, ast.FunctionDef):
            given = one.args
            parts = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            said += [(one.name, part.annotation) for part in parts if part and part.annotation]
            said += [(one.name, one.returns)] if one.returns else []
    return [
        f"{name}: {word}"
        for name, annotation in said
        for word in re.findall(r"(?<![\w.])_\w+", ast.unparse(annotation))
        if word in own
    ]


def test_signatures_name_nothing_that_the_reference_does_not_have():
    library = ROOT / "src" / "smallnets"
    found = {str(path.relative_to(library)): private_names(path.read_text())
             for path in library.rglob("*.py")}  # fmt: skip
    assert {path: names for path, names in found.items() if names} == {}
    shy = "class _A: pass\nclass B:\n  def f(self) -> dict[str, '_A']: ...\ndef g(x: _A): ..."
    assert private_names(shy) == ["g: _A", "f: _A"]


def test_vendored_mathjax_is_the_published_one():
    lines = (MATHJAX / "SHA256SUMS").read_text().splitlines()
    expected = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {
        file.relative_to(MATHJAX).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in MATHJAX.rglob("*")
        if file.is_file() and file.name != "SHA256SUMS"
    }
    assert found == expected
    assert "Apache License" in (MATHJAX / "LICENSE").read_text()


def test_every_chapter_cites_a_paper_of_the_bibliography():
    keys = re.findall(r"^@\w+\{(.+),$", (BOOK / "references.bib").read_text(), re.MULTILINE)
    assert len(keys) == len(set(keys))
    assert {chapter.paper for chapter in CHAPTERS} <= set(keys)


def test_the_table_of_contents_lists_the_chapters_that_are_written_in_order():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    listed = [
        (part["caption"], entry["file"])
        for part in parts
        for entry in part["chapters"]
        if entry["file"].startswith("chapters/")
    ]
    written = [
        (chapter.part, f"chapters/{chapter.stem}")
        for chapter in CHAPTERS
        if (ROOT / "chapters" / chapter.notebook).exists()
    ]
    assert listed == written
    assert all(part.get("numbered") for part in parts if part["caption"] in dict(listed))


def test_no_source_of_the_book_loads_anything_from_elsewhere():
    loading = re.compile(r"""(?:src=|@import|url\()\s*["']?(?:https?:)?//""")
    for file in [*BOOK.rglob("*.md"), *BOOK.glob("static/*.css")]:
        assert not loading.search(file.read_text()), file


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (93.1, "93 s"),
        (99.6, "1 min 40 s"),
        (7199, "119 min 59 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, words):
    assert records.duration(seconds) == words


@pytest.mark.parametrize(
    ("seeds", "words"),
    [([0, 1, 2, 3], "0–3"), ([0, 1], "0, 1"), ([5], "5"), ([0, 2, 3], "0, 2, 3")],
)
def test_seeds_are_a_range_where_they_are_one(seeds, words):
    assert records.seed_list(seeds) == words


def test_a_record_is_read(tmp_path):
    path = tmp_path / "02.record.json"
    path.write_text(json.dumps(RECORD))
    assert records.read_record(path) == RECORD


def test_a_record_that_lacks_something_is_refused(tmp_path):
    path = tmp_path / "02.record.json"
    path.write_text(json.dumps({k: v for k, v in RECORD.items() if k not in ("seeds", "cores")}))
    with pytest.raises(ValueError, match=r"02\.record\.json: the record lacks cores, seeds"):
        records.read_record(path)


def test_an_unknown_verdict_is_refused(tmp_path):
    path = tmp_path / "02.record.json"
    path.write_text(json.dumps(RECORD | {"claims": [{"verdict": "maybe"}]}))
    with pytest.raises(ValueError, match="verdict 'maybe' is none of reproduced"):
        records.read_record(path)


JUDGED = {"claim": "c", "paper": "p", "source": "paper", "comparisons": [], "rule": "new"}


def evidence(*verdicts, **changes):
    """A record at the scale evidence whose last claim is our own."""
    claims = [{**JUDGED, "claim": f"c{n}", "verdict": v} for n, v in enumerate(verdicts)]
    claims.append({**JUDGED, "claim": "own", "source": "ours", "verdict": "contradicted"})
    data = "npz:cifar10.npz"
    return RECORD | {"scale": "evidence", "dataset": data, "claims": claims, **changes}


LIVE = RECORD | {"claims": [{**JUDGED, "verdict": "not judged"}]}


def test_only_evidence_is_counted_and_of_it_only_the_paper_s_claims():
    counted = records.verdict_counts(evidence("partly", "inconclusive", "partly"))
    assert re.findall(r"(\d) \[(.*?)\]", counted) == [("2", "partly"), ("1", "inconclusive")]
    assert records.verdict_counts(RECORD) == ""
    assert records.verdict_counts(LIVE) == ""
    old_evidence = RECORD | {"scale": "evidence"}
    assert records.verdict_counts(old_evidence) == "", "an earlier rule judged it"


def test_the_landing_page_says_what_evidence_says_or_that_there_is_none():
    all_records = [RECORD, LIVE, evidence("reproduced"), evidence("partly", chapter="03")]
    found = records.judged("02", all_records, True, RECORD)
    assert re.sub(r"\{.*?\}", "", found) == "cifar10: 1 [reproduced]"
    assert records.judged("02", [RECORD, LIVE], True, RECORD) == "not yet judged"
    assert records.judged("02", [], True, None) == "written"
    assert records.judged("02", [], False, None) == "planned"


def test_evidence_comes_first_and_titles_say_what_verdicts_are_worth():
    order = sorted([RECORD, LIVE, evidence("partly")], key=records.place)
    assert [records.run_title(one) for one in order] == [
        "Chapter 2: cifar10, evidence",
        "Chapter 2: glyphs10, live run",
        "Chapter 2: glyphs10, under an earlier rule",
    ]


def test_claims_are_shown_as_their_rule_had_them():
    old = "\n".join(records.claims(RECORD))
    assert "passed under an earlier rule, and are not counted" in old
    assert "list-table" in old
    new = "\n".join(records.claims(evidence("partly")))
    assert "earlier rule" not in new
    assert new.startswith('``````{raw} html\n<div class="verdicts">')
    assert "Hypotheses of our own" in new
    assert records.claims(LIVE | {"claims": []}) == []


def test_the_results_say_how_verdicts_moved():
    before = {
        "claims": [{"claim": "c0", "verdict": "partly"}],
        "rules": ["old"],
        "commit": "1" * 40,
    }
    moved = evidence("reproduced", history=[before])
    text = re.sub(r"\{\.verdict.*?\}", "", "\n".join(records.earlier(moved)))
    assert "- “c0” was [partly] and is [reproduced]." in text
    assert "Verdicts of run 1, commit 1111111\n*Rule: old.*\n\n- c0: [partly]" in text
    assert records.movement(moved) == "1 verdict moved"
    assert records.movement(evidence("partly", history=[before])) == "no verdict moved"
    assert records.movement(evidence("partly")) == "–"
    assert records.earlier(evidence("partly", history=[])) == []
    anonymous = evidence("partly", history=[{**before, "commit": None}])
    assert "run 1, an older commit" in "\n".join(records.earlier(anonymous))


def test_every_verdict_of_the_rule_is_known():
    from smallnets.book.claims import VERDICTS

    assert {*VERDICTS, "not judged"} == set(records.VERDICTS)


def test_stored_records_can_be_shown():
    for path in records.record_files():
        assert records.read_record(path)["chapter"] in {chapter.number for chapter in CHAPTERS}


def read_as_text(docstring: str) -> list[str]:
    lines = docstring.split("\n")
    local.read_docstring_as_text(None, "function", "name", None, None, lines)
    return lines


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("plain words", "plain words"),
        ("a * b, |x| and w_ too", r"a \* b, \|x\| and w\_ too"),
        ("the name `x * y_`", "the name ``x * y_``"),
        ("already ``x * y``", "already ``x * y``"),
        (":math:`a * b`", ":math:`a * b`"),
        ("* a point", "* a point"),
    ],
)
def test_only_backticks_are_markup_in_docstrings(written, read):
    assert read_as_text(written) == [read]


def test_an_indented_formula_is_shown_as_it_stands():
    assert read_as_text("It is\n\n    |x| * y_\n\nand so on.") == [
        "It is", "", "::", "", "    |x| * y_", "", "and so on.",
    ]  # fmt: skip


def test_a_property_may_have_a_colon_in_its_first_line():
    lines = ["Where to train: here."]
    local.read_docstring_as_text(None, "property", "name", None, None, lines)
    assert lines == [": Where to train: here."]


def test_sections_of_arguments_stay_sections():
    lines = ["Words.", "", "Args:", "    x: (n,) counts * 2.", "", "    y: more."]
    lines[3] = lines[3].replace("*", r"\*")
    assert read_as_text("Words.\n\nArgs:\n    x: (n,) counts * 2.\n\n    y: more.") == lines
