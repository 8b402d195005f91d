import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from smallnets.book import Claim, Comparison, Parameters, save_record, stored_results
from smallnets.book.freshness import hashes, read_record, shown, write_record


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
    stored = read_record(tmp_path / "02_similarity_preserving.record.json")
    assert stored == json.loads(json.dumps(record))
    assert stored["dataset"] == "npz:set.npz"
    assert stored["seeds"] == [0, 1]
    assert stored["settings"] == {"epochs": 3}
    assert stored["measurements"] == {"accuracy": {"a": [0.9, 0.8]}}
    assert stored["claims"][0]["verdict"] == "not judged", "small decides nothing"
    assert stored["claims"][0]["comparisons"][0]["outcome"] == "open"
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
    (folder / "02-real.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "05-real.json").write_text(json.dumps({**record, "chapter": "05"}), encoding="utf-8")
    (tmp_path / "chapters").mkdir()
    table = stored_results("02", tmp_path / "chapters")
    cells = re.findall(r"<td [^>]*>(.*?)</td>", table.data)
    assert (cells[0], cells[1], cells[3]) == ("02-real", "It works", "not judged")
    assert len(cells) == 4


def test_stored_results_under_an_earlier_rule_say_so(tmp_path):
    claim = {
        "claim": "It works",
        "measured": "a - b: +1 (holds); c: +2 (open)",
        "verdict": "partly",
    }
    path = tmp_path / "book" / "results" / "02-old.json"
    write_record({"chapter": "02", "claims": [claim]}, path)
    cells = re.findall(r"<td [^>]*>(.*?)</td>", stored_results("02", tmp_path).data)
    assert cells[2:] == ["a - b: +1 (holds)<br>c: +2 (open)", "partly (earlier rule)"]


def test_without_stored_results_the_table_is_empty(tmp_path):
    assert "<td" not in stored_results("02", tmp_path).data


@pytest.mark.parametrize(
    ("value", "text"),
    [("npz:/a/b.npz", "npz:b.npz"), ("npz:b.npz", "npz:b.npz"), ("digits", "digits"), ("3", "3")],
)
def test_files_are_recorded_by_their_names(value, text):
    assert shown(value) == text


def test_measurements_are_kept_where_judging_them_fails(parameters, tmp_path):
    class Broken(Claim):
        def row(self, level, judged=True):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save_record(
            "02",
            parameters,
            claims=[Broken("It works", "fully", [], "unlucky")],
            measurements={"accuracy": [0.9, 0.8]},
            settings=Settings(),
            seeds=2,
            precision="32-true",
        )
    path = tmp_path / "02_similarity_preserving.record.json"
    record = read_record(path, "measurements", "claims")
    assert record["measurements"] == {"accuracy": [0.9, 0.8]}
    assert record["claims"] == []


def test_numpy_s_numbers_are_numbers_in_a_record(tmp_path):
    values = {"count": np.int64(3), "share": np.float32(0.5), "all": np.arange(2), "at": tmp_path}
    write_record(values, tmp_path / "r.json")
    read = read_record(tmp_path / "r.json")
    assert read == {"count": 3, "share": 0.5, "all": [0, 1], "at": str(tmp_path)}


WRITES = """
import pathlib, sys
from smallnets.book.freshness import hashes, read_record, write_record
record = {"measured": "0.9 \\u00b1 0.1, \\u03c4 = 4"}
write_record(record, pathlib.Path(sys.argv[1]))
assert read_record(pathlib.Path(sys.argv[1])) == record
print(hashes(pathlib.Path(sys.argv[2]), [])["code cells"])
"""


def test_records_are_the_same_bytes_in_every_locale(tmp_path):
    notebook = tmp_path / "book" / "chapters" / "one.ipynb"
    notebook.parent.mkdir(parents=True)
    cells = [{"cell_type": "code", "source": ["tau = 'τ'"]}]
    notebook.write_text(json.dumps({"cells": cells}, ensure_ascii=False), encoding="utf-8")
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", WRITES, tmp_path / "r.json", notebook]
    done = subprocess.run(command, env=plain, capture_output=True, encoding="utf-8", timeout=100)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.json").read_bytes() == (
        '{\n "measured": "0.9 ± 0.1, τ = 4"\n}\n'.encode()
    )
    assert done.stdout.strip() == hashes(notebook, [])["code cells"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"other": 1}', b"[" * 99999])
def test_a_damaged_record_is_named_in_one_line(tmp_path, content):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"r\.json (is damaged|must hold chapter)") as error:
        read_record(tmp_path / "r.json", "chapter")
    assert "\n" not in str(error.value)


def test_a_damaged_result_is_left_out_with_a_word(parameters, tmp_path):
    folder = tmp_path / "book" / "results"
    folder.mkdir(parents=True)
    write_record(save(parameters), folder / "02-real.json")
    (folder / "02-torn.json").write_bytes(b'{"chapter": "02", "cla')
    with pytest.warns(UserWarning, match=r"02-torn\.json is damaged: .*; it is left out"):
        table = stored_results("02", tmp_path)
    assert "02-real" in table.data
