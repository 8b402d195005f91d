"""How much memory there is for processes that train side by side."""

import ctypes
import sys
from pathlib import Path

import psutil

# Bytes that a worker adds which trains a chapter's small networks, and those of the process that
# workers are forked from. Where there is no such process, each worker has its own imports.
LINUX = sys.platform == "linux"
PER_WORKER = (300 if LINUX else 800) * 1024**2
SERVER = (500 if LINUX else 0) * 1024**2
CONTAINER = Path("/sys/fs/cgroup")


def workers_that_fit(most: int) -> int:
    """So many processes as `most` allows and memory holds; at least one."""
    left = memory_left() - (0 if fork_server() else SERVER)
    return max(1, min(most, left // PER_WORKER))


def fork_server() -> psutil.Process | None:
    """The process that workers are forked from, where it runs."""
    for child in psutil.Process().children():
        try:
            if any("multiprocessing.forkserver" in word for word in child.cmdline()):
                return child
        except psutil.Error:  # it has just ended
            continue
    return None


def memory_left() -> int:
    """Bytes that are free on this machine, or within the limit of the container.

    Files that the system keeps in memory while nothing else asks for it count as free.
    """
    left = psutil.virtual_memory().available
    for folder, limit, used in (
        (CONTAINER, "memory.max", "memory.current"),  # cgroup version 2, then 1
        (CONTAINER / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            most, now = (int((folder / name).read_text(encoding="utf-8")) for name in (limit, used))
            lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):  # no container, or one without a limit: "max"
            continue
        facts = dict(line.split() for line in lines)
        left = min(left, most - now + int(facts.get("inactive_file", 0)))
    return max(left, 0)


def give_back() -> None:
    """Return freed memory to the system, which glibc would keep for later: some 200 MB of every
    process that has trained.
    """
    if LINUX:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)
