"""What a run was made on: its arithmetic, and the memory that it took."""

import os
import platform
import threading
from pathlib import Path

import psutil
import torch

from smallnets.training.settings import has_fast_bfloat16

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def arithmetic() -> dict[str, str | bool]:
    """What decides the last bits of a result: processor, instructions, bfloat16, torch's version.

    Two machines that agree in all of this give the same numbers; others drift apart in training.
    """
    limits = [f"{name}={os.environ[name].upper()}" for name in LIMITS if os.environ.get(name)]
    return {
        "processor": processor(),
        "instructions": " ".join([torch.backends.cpu.get_cpu_capability(), *limits]),
        "bfloat16": has_fast_bfloat16("cpu"),
        "torch": torch.__version__.split("+")[0],
    }


def processor() -> str:
    """Maker, family and model of the processor, as Linux tells them, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = dict(reversed([line.split("\t: ", 1) for line in lines if "\t: " in line]))
    facts = {name.strip(): value for name, value in facts.items()}
    named = [facts[name] for name in ("vendor_id", "cpu family", "model") if name in facts]
    return " ".join(named) or platform.processor() or platform.machine()


class MemoryMeter:
    """The most memory that this process and its children have held together, in MB.

    Once started, it looks every second from a thread of its own. Pages of files that several
    processes have mapped, as libraries, count once, as they do for the limit of a container.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to look, if that has not begun."""
        if not self._thread.is_alive():
            self._thread.start()

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            self.look()
            pause.wait(1)

    def look(self) -> int:
        """Measure now; the peak so far."""
        here = psutil.Process()
        found = [held(one) for one in (here, *here.children(recursive=True))]
        together = sum(own for own, _ in found) + max(shared for _, shared in found)
        self.peak = max(self.peak, together // 1024**2)
        return self.peak


def held(process: psutil.Process) -> tuple[int, int]:
    """Bytes that a process has for itself, and of files that it may share (0 but on Linux)."""
    try:
        memory = process.memory_info()
    except psutil.Error:  # it has just ended
        return 0, 0
    shared = getattr(memory, "shared", 0)
    return memory.rss - shared, shared


METER = MemoryMeter()
