import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import psutil
import pytest
import torch

from smallnets.training import for_seeds, run_parallel, seeded
from smallnets.training.workers import threads


def test_seeded_draws_are_repeatable_and_leave_no_trace():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with seeded(9):
        first = torch.rand(4)
    assert torch.equal(torch.rand(2), expected)
    with seeded(9):
        assert torch.equal(torch.rand(4), first)


def test_results_come_in_the_order_of_the_jobs_each_from_one_thread():
    def describe_job(number: int, scale: int) -> tuple[int, int]:
        return number * scale, torch.get_num_threads()

    jobs = [{"number": number, "scale": 10} for number in range(5)]
    assert run_parallel(describe_job, jobs, workers=2) == [(10 * n, 1) for n in range(5)]
    assert run_parallel(describe_job, jobs[:1], workers=1) == [(0, 1)]
    assert run_parallel(describe_job, []) == []


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_an_error_in_a_job_reaches_the_caller():
    def fail(seed: int) -> None:
        raise ValueError(f"seed {seed} is unlucky")

    with pytest.raises(ValueError, match="seed 0 is unlucky"):
        run_parallel(fail, for_seeds(1), workers=2)


def test_an_error_of_any_class_reaches_the_caller():
    class RefusedError(Exception):
        """One that only this place knows, as a class of a notebook's own."""

    def refuse(seed):
        raise RefusedError(seed)

    def hold(seed):
        error = ValueError("no")
        error.lock = threading.Lock()  # cannot be sent
        raise error

    with pytest.raises(Exception, match=r"^[01]") as error:
        run_parallel(refuse, for_seeds(2), workers=2)
    assert type(error.value).__name__ == "RefusedError"
    assert "in refuse" in error.value.__notes__[0], "where it was raised"
    with pytest.raises(RuntimeError, match=r"^ValueError: no"):
        run_parallel(hold, for_seeds(2), workers=2)
    with pytest.raises(ValueError, match="workers must be at least 1; got 0"):
        run_parallel(dict, for_seeds(2), workers=0)


def test_an_error_ends_the_other_jobs():
    def fail_or_wait(seed: int) -> None:
        if seed:
            raise ValueError(f"seed {seed} is unlucky")
        time.sleep(300)

    start = time.monotonic()
    with pytest.raises(ValueError, match="seed 1 is unlucky"):
        run_parallel(fail_or_wait, for_seeds(2), workers=2)
    assert time.monotonic() - start < 150
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_is_said_in_a_line():
    def killed(seed: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RuntimeError, match="one of 2 worker processes was ended from outside"):
        run_parallel(killed, for_seeds(2), workers=2)
    assert run_parallel(dict, for_seeds(2), workers=2) == for_seeds(2), "the next have others"


def test_workers_start_with_what_is_imported_and_see_no_main_module(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import os
import sys
import torch
from smallnets.training import run_parallel

class Answer:
    def __init__(self, job): self.job = job

def describe(job):
    torch.ones(2, requires_grad=True).sum().backward()
    inner = run_parallel(lambda number: os.getpid(), [{"number": 1}, {"number": 2}])
    loaded = "lightning_fabric" in sys.modules
    return Answer((job, inner == [os.getpid()] * 2, loaded, os.environ["OPENBLAS_NUM_THREADS"]))

print([answer.job for answer in run_parallel(describe, [{"job": 1}, {"job": 2}], workers=2)])
print(os.environ.get("OPENBLAS_NUM_THREADS"), len(sys.modules["__main__"].__file__) > 0)
"""
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    found = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment
    )
    linux = sys.platform == "linux"
    assert found.stdout.splitlines() == [
        str([(1, True, linux, "1"), (2, True, linux, "1")]),
        "None True",
    ], found.stderr


def test_workers_start_afresh_where_nothing_can_be_forked(monkeypatch):
    monkeypatch.setattr("smallnets.training.workers.sys.platform", "darwin")
    assert run_parallel(lambda seed: seed + 1, for_seeds(2), workers=2) == [1, 2]


def test_workers_end_with_the_process_that_wants_their_results():
    script = """
import os, time
from smallnets.training import for_seeds, run_parallel
def wait(seed):
    print(os.getpid(), flush=True)
    time.sleep(300)
run_parallel(wait, for_seeds(2), workers=2)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        workers = [psutil.Process(int(process.stdout.readline())) for _ in range(2)]
        process.kill()
    _, left = psutil.wait_procs(workers, timeout=60)
    assert not left


def test_jobs_for_seeds_share_the_rest():
    assert for_seeds(2, size=3) == [{"size": 3, "seed": 0}, {"size": 3, "seed": 1}]


@dataclass(frozen=True)
class Plan:
    seeds: int = 5
    side_seeds: int = 3
    epochs: int = 8
