"""How much memory there is for processes that train side by side."""

import ctypes
import sys
from pathlib import Path

import psutil

PER_WORKER = 700 * 1024**2  # bytes, of a process that trains one of the chapters' small networks
CONTAINER = Path("/sys/fs/cgroup")


def workers_that_fit(most: int) -> int:
    """So many processes as `most` allows and memory holds; at least one."""
    return max(1, min(most, memory_left() // PER_WORKER))


def memory_left() -> int:
    """Bytes that are free on this machine, or within the limit of the container."""
    left = psutil.virtual_memory().available
    for limit, used in (
        ("memory.max", "memory.current"),  # cgroup version 2, then 1
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (int((CONTAINER / name).read_text()) for name in (limit, used))
        except (OSError, ValueError):  # no container, or one without a limit: "max"
            continue
        left = min(left, most - now)
    return max(left, 0)


def give_back() -> None:
    """Return freed memory to the system, which glibc would keep for later: some 200 MB of every
    process that has trained.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)
