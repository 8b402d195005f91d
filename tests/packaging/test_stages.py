"""`make test` comes to an end with a result, whatever its stages and its test processes do."""

import shutil
import sys

import pytest

pytestmark = pytest.mark.packaging

DEADLY = """
import os, pytest

def test_before():
    assert True

def test_that_kills_its_process():
    os.abort()

@pytest.mark.parametrize("i", range(3))
def test_after(i):
    assert i != 2
"""
HARMLESS = "def test_elsewhere():\n    assert True\n"


def test_a_test_that_kills_its_process_is_one_failure_and_the_others_run(root, run, tmp_path):
    """Two of them at the same time, which is where xdist's own scheduler gives up."""
    shutil.copy(root / "tests" / "conftest.py", tmp_path)
    for name, source in (("a", DEADLY), ("b", DEADLY), ("c", HARMLESS), ("d", HARMLESS)):
        (tmp_path / f"test_{name}.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-n2", "--dist=loadscope", "-p", "no:nbval"]
    done = run([*command, tmp_path], tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 1, done.stdout[-2000:]
    for name in ("a", "b"):
        assert f"crashed while running 'test_{name}.py::test_that_kills_its_process'" in (
            done.stdout.replace("\n", "")
        )
    assert "4 failed, 8 passed" in done.stdout
    assert "INTERNALERROR" not in done.stdout


def test_every_stage_runs_and_the_table_tells_the_result(root, run, tmp_path):
    stage = [sys.executable, root / "tests" / "stage.py"]
    for name, status in (("good", 0), ("bad", 3), ("last", 0)):
        done = run([*stage, name, "sh", "-c", f"echo {name} says; exit {status}"], tmp_path)
        assert done.returncode == 0
        assert f"{name} says" in done.stdout
    table = run(stage, tmp_path)
    assert table.returncode == 1
    lines = [line.split() for line in table.stdout.splitlines()]
    assert [line[0] for line in lines] == ["good", "bad", "last", "all"]
    assert [line[3] for line in lines[:3]] == ["passed", "FAILED", "passed"]
    assert run(stage, tmp_path).returncode == 1, "without a stage there is nothing that passed"
    run([*stage, "good", "true"], tmp_path)
    assert run(stage, tmp_path).returncode == 0
