"""Workers are limited by memory as well as by cores."""

import subprocess
import sys

import psutil
import pytest

from smallnets.training import memory


@pytest.fixture
def container(tmp_path, monkeypatch):
    """container(name=content, ...) writes the files with which Linux limits a container."""
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)

    def limit(files):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(f"{content}\n")

    return limit


@pytest.mark.parametrize("runs", [False, True])
def test_as_many_as_fit_and_at_least_one(monkeypatch, runs):
    monkeypatch.setattr(memory, "fork_server", lambda: "a process" if runs else None)
    for workers_left, workers in ((-3, 1), (0, 1), (1, 1), (2.5, 2), (100, 8)):
        left = int(workers_left * memory.PER_WORKER) + (0 if runs else memory.SERVER)
        monkeypatch.setattr(memory, "memory_left", lambda left=left: left)
        assert memory.workers_that_fit(8) == workers


@pytest.mark.skipif(sys.platform != "linux", reason="workers start afresh elsewhere")
def test_the_process_that_workers_start_from_ends_when_idle_and_comes_back():
    script = """
import os, time
from smallnets.training import run_parallel, workers
from smallnets.training.memory import fork_server
def server_of(job):
    return os.getppid()
workers.IDLE = 0.2
found = [fork_server()]
for _ in range(2):
    (one, other) = run_parallel(server_of, [{"job": 1}, {"job": 2}], workers=2)
    assert one == other
    found.append(one)
    while fork_server():
        time.sleep(0.1)
workers.IDLE = 60
for _ in range(2):
    found.append(run_parallel(server_of, [{"job": 1}, {"job": 2}], workers=2)[0])
print(found[0], len(set(found[1:4])), found[3] == found[4] == fork_server().pid)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.split() == ["None", "3", "True"], found.stderr


@pytest.mark.parametrize(
    "names",
    [
        ("memory.max", "memory.current", "memory.stat"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
        ),
    ],
)
def test_the_limit_of_a_container_counts_without_files_that_nothing_asks_for(container, names):
    limit, used, facts = names
    free = memory.memory_left()
    container({limit: 2_000_000_000, used: 500_000_000, facts: "anon 5\ninactive_file 0"})
    assert memory.memory_left() == min(free, 1_500_000_000)
    container({facts: "anon 5\ninactive_file 200000000"})
    assert memory.memory_left() == min(free, 1_700_000_000)
    container({used: 3_000_000_000})
    assert memory.memory_left() == 0


def test_a_container_without_a_limit_has_the_machines_memory(container):
    container({"memory.max": "max", "memory.current": 5, "memory.stat": "inactive_file 7"})
    assert memory.memory_left() > 100_000_000


def test_freed_memory_is_given_back():
    def held() -> int:
        return psutil.Process().memory_info().rss

    kept = [bytes(1000) for _ in range(300_000)]
    del kept[:-1]  # the last one keeps the heap from shrinking by itself
    before = held()
    memory.give_back()
    assert held() < before - 200_000_000
    assert kept
