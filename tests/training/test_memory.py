"""Workers are limited by memory as well as by cores."""

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


def test_as_many_as_fit_and_at_least_one(monkeypatch):
    for left, workers in ((0, 1), (1, 1), (2.5, 2), (100, 8)):
        monkeypatch.setattr(memory, "memory_left", lambda left=left: int(left * memory.PER_WORKER))
        assert memory.workers_that_fit(8) == workers


@pytest.mark.parametrize(
    "names",
    [
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_the_limit_of_a_container_counts(container, names):
    free = memory.memory_left()
    container({names[0]: 2_000_000_000, names[1]: 500_000_000})
    assert memory.memory_left() == min(free, 1_500_000_000)
    container({names[1]: 3_000_000_000})
    assert memory.memory_left() == 0


def test_a_container_without_a_limit_has_the_machines_memory(container):
    container({"memory.max": "max", "memory.current": 5})
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
