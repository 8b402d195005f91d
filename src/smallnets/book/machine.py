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

    Looks once a second from a thread of its own. A page that several processes share counts once,
    as it does for the limit of a container.
    """

    def __init__(self, interval: float = 1.0) -> None:
        self.peak = 0
        self.interval = interval
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            self.look()
            pause.wait(self.interval)

    def look(self) -> int:
        """Measure now; the peak so far."""
        here = psutil.Process()
        held = sum(_held(one) for one in (here, *here.children(recursive=True)))
        self.peak = max(self.peak, held // 1024**2)
        return self.peak


def _held(process: psutil.Process) -> int:
    """Bytes of a process; those that it shares are divided among the sharers where Linux tells."""
    try:
        memory = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0
    return getattr(memory, "pss", memory.uss)
