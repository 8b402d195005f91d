"""Worker processes that start from what one process has imported for all of them.

A process that has imported PyTorch and this package holds 470 MB of its own, and takes some five
seconds to get there. On Linux one process does so, the "fork server"; workers are forked from it in
a hundredth of a second, see its memory, and add what they write. It ends when it has had nothing to
do for a while. Elsewhere each worker starts afresh.
"""

import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any

import cloudpickle
import psutil
import torch

from smallnets.training.memory import fork_server, give_back

IDLE = 20  # seconds after the last worker's end until the fork server's

ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ),
    "1",
)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_one_thread(function: Callable[..., Any], job: dict[str, Any]) -> Any:
    """`function(**job)`, computed by one thread."""
    with threads(1):
        result = function(**job)
    give_back()
    return result


def in_workers(
    function: Callable[..., Any], jobs: Sequence[dict[str, Any]], workers: int
) -> Iterator[tuple[int, Any]]:
    """A job's number and the result of `function(**job)`, as they come from `workers` processes.

    Each computes with one thread. The first error ends the other jobs.

    Args:
        function: anything that cloudpickle can send, as its arguments and its result.
        jobs: keyword arguments, one dictionary a call.
        workers: processes.

    Raises:
        RuntimeError: a process was ended from outside.
    """
    others = set(multiprocessing.active_children())
    _forget_idling()
    waiting = enumerate(jobs)
    running: dict[Future[bytes], int] = {}
    with ProcessPoolExecutor(workers, _context(), _end_with_parent) as pool:
        try:
            while True:
                # Each worker has one job and finds the next; more would only fill memory.
                for number, job in islice(waiting, 2 * workers - len(running)):
                    call = cloudpickle.dumps((function, job))
                    with _outset():
                        running[pool.submit(_work, call)] = number
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    result, error = cloudpickle.loads(done.result())
                    if error is not None:
                        raise error
                    yield running.pop(done), result
        except BrokenProcessPool:
            raise RuntimeError(
                f"one of {workers} worker processes was ended from outside, most likely for want "
                "of memory; fewer workers need less"
            ) from None
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
        finally:
            _end_when_idle()


_idling: list[threading.Timer] = []


def _forget_idling() -> None:
    while _idling:
        timer = _idling.pop()
        timer.cancel()
        timer.join()


def _end_when_idle() -> None:
    """End the fork server in a while; Python starts another when it is wanted."""

    def end() -> None:
        server = fork_server()
        if server is None or multiprocessing.active_children():
            return
        with suppress(psutil.NoSuchProcess):
            server.terminate()
            while server.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)  # Python finds out for itself that it has ended

    _forget_idling()
    timer = threading.Timer(IDLE, end)
    timer.daemon = True
    timer.start()
    _idling.append(timer)


def _end_with_parent() -> None:
    """Let a worker not outlive the process that wants its results, however that one ends."""
    parent = multiprocessing.parent_process()

    def wait_for_it() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_for_it, daemon=True).start()


def _work(call: bytes) -> bytes:
    """The result or the error of a call, so that an error may be of any class that can be sent."""
    try:
        function, job = cloudpickle.loads(call)
        return cloudpickle.dumps((in_one_thread(function, job), None))
    except Exception as error:
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        try:
            told = cloudpickle.dumps((None, error))
            cloudpickle.loads(told)
            return told
        except Exception:  # it holds what cannot be sent, as open files, or cannot be made again
            other = RuntimeError(f"{type(error).__name__}: {error}")
            other.__notes__ = error.__notes__
            return cloudpickle.dumps((None, other))


def _context() -> BaseContext:
    if sys.platform != "linux":  # macOS's own libraries do not survive a fork
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    mine = sorted(name for name in sys.modules if name.split(".")[0] == "smallnets")
    context.set_forkserver_preload([*mine, "lightning_fabric"])
    return context


@contextmanager
def _outset() -> Iterator[None]:
    """What new processes find: one thread for every library, and no main module.

    Python would run a script that is the main module again in each of them. They need nothing of
    it: cloudpickle sends whole what it defines.
    """
    main, before = sys.modules["__main__"], {name: os.environ.get(name) for name in ONE_THREAD}
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
