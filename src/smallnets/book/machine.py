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
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = dict(reversed([line.split("\t: ", 1) for line in lines if "\t: " in line]))
    facts = {name.strip(): value for name, value in facts.items()}
    named = [facts[name] for name in ("vendor_id", "cpu family", "model") if name in facts]
    return " ".join(named) or platform.processor() or platform.machine()


class MemoryMeter:
    """The most memory that this process and its children have held together, in MB.

    Once started, it looks every two seconds from a thread of its own. What several of them share
    counts once, as it does for the limit of a container: files that all have mapped, as libraries,
    and what a forked process has not yet changed of its parent's.
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
            pause.wait(2)

    def look(self) -> int:
        """Measure now; the peak so far."""
        here = psutil.Process()
        found = [held(one) for one in (here, *here.children(recursive=True))]
        together = sum(own for own, _ in found) + max(files for _, files in found)
        self.peak = max(self.peak, together // 1024**2)
        return self.peak


def held(process: psutil.Process) -> tuple[int, int]:
    """Bytes that a process has for itself, with its part of those it shares, and bytes of files.

    Only Linux tells them apart; elsewhere all are the first.
    """
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8")
        lines = rollup.splitlines()[1:]
    except OSError:
        lines = []
    kilobytes = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    if {"Rss", "Anonymous", "Pss_Anon", "Pss_Shmem"} <= kilobytes.keys():
        own = kilobytes["Pss_Anon"] + kilobytes["Pss_Shmem"]
        return own * 1024, (kilobytes["Rss"] - kilobytes["Anonymous"]) * 1024
    try:
        return process.memory_info().rss, 0
    except psutil.Error:  # it has just ended
        return 0, 0


METER = MemoryMeter()
