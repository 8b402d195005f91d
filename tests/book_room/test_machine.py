"""What a record says of the machine: arithmetic and memory."""

import subprocess
import sys

import numpy as np
import torch

from smallnets.book.machine import LIMITS, MemoryMeter, arithmetic, processor


def test_arithmetic_names_what_decides_the_last_bits(monkeypatch):
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)
    found = arithmetic()
    assert found["processor"] == processor() != ""
    assert found["instructions"].startswith(torch.backends.cpu.get_cpu_capability())
    assert found["torch"] == torch.__version__.split("+")[0]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
    assert arithmetic()["instructions"] == f"{found['instructions']} ONEDNN_MAX_CPU_ISA=AVX2"


def test_memory_of_this_process_and_of_children_is_met():
    meter = MemoryMeter()
    before = meter.look()
    held = np.ones(30 * 1024**2)  # 240 MB
    here = meter.look()
    assert before + 200 < here < before + 300
    script = (
        "import sys; x = bytearray(b'1') * 300_000_000; print('x', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert here + 250 < meter.look() < here + 400
        child.stdin.close()
    assert meter.peak >= here + 250
    del held
    assert meter.look() == meter.peak, "a peak stays"
