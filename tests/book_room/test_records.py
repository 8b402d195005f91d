import json
import re
from dataclasses import dataclass

import pytest

from smallnets.book import Claim, Comparison, Parameters, save_record, stored_results
from smallnets.book.freshness import shown


@dataclass(frozen=True)
class Settings:
    epochs: int = 3


@pytest.fixture
def parameters(tmp_path):
    return Parameters("npz:/some/where/set.npz", "small", 2, "cpu", "32-true", str(tmp_path))


def save(parameters):
    claim = Claim("It works", "fully", [Comparison("a - b", [0.9, 0.8], [0.1, 0.2])], "unlucky")
    return save_record(
        "02",
        parameters,
        claims=[claim],
        measurements={"accuracy": {"a": [0.9, 0.8]}},
        settings=Settings(),
        seeds=2,
        precision="32-true",
    )


def test_record_tells_what_was_run_and_measured(parameters, tmp_path):
    record = save(parameters)
    stored = json.loads((tmp_path / "02_similarity_preserving.record.json").read_text())
    assert stored == json.loads(json.dumps(record))
    assert stored["dataset"] == "npz:set.npz"
    assert stored["seeds"] == [0, 1]
    assert stored["settings"] == {"epochs": 3}
    assert stored["measurements"] == {"accuracy": {"a": [0.9, 0.8]}}
    assert stored["claims"][0]["verdict"] in ("reproduced", "not at this scale")
    assert stored["seconds"] > 0
    assert stored["peak_memory_mb"] > 50
    assert "distill/classic.py" not in stored["imports"] or "checks.py" in stored["imports"]
    assert "/some/where" not in json.dumps(stored)


def test_smoke_runs_are_not_judged(parameters, tmp_path):
    smoke = Parameters("digits", "smoke", 2, "cpu", "32-true", str(tmp_path))
    assert save(smoke)["claims"][0]["verdict"] == "not judged"


def test_stored_results_are_those_of_the_chapter(parameters, tmp_path):
    folder = tmp_path / "book" / "results"
    folder.mkdir(parents=True)
    record = save(parameters)
    (folder / "02-real.json").write_text(json.dumps(record))
    (folder / "05-real.json").write_text(json.dumps({**record, "chapter": "05"}))
    (tmp_path / "chapters").mkdir()
    table = stored_results("02", tmp_path / "chapters")
    cells = re.findall(r"<td>(.*?)</td>", table.data)
    assert (cells[0], cells[1], cells[3]) == ("02-real", "It works", record["claims"][0]["verdict"])
    assert len(cells) == 4


def test_without_stored_results_the_table_is_empty(tmp_path):
    assert "<td>" not in stored_results("02", tmp_path).data


@pytest.mark.parametrize(
    ("value", "text"),
    [("npz:/a/b.npz", "npz:b.npz"), ("npz:b.npz", "npz:b.npz"), ("digits", "digits"), ("3", "3")],
)
def test_files_are_recorded_by_their_names(value, text):
    assert shown(value) == text
