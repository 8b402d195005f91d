"""Candidates for LANA side by side against one at a time, and the integer programme's solvers.

Both ways train the same candidates on the same images in the same order and end with the same
weights. One at a time, the teacher and the augmentation run once for every candidate; side by side
they run once for all. The second table has the solvers of the integer programme, on 100 layers with
197 candidates each.
"""

import time
from dataclasses import replace

import numpy as np
import torch
from _race import race, report

from smallnets.search.lana import (
    Programme,
    build_pool,
    distil_candidates,
    relax,
    solve,
    solve_dynamic,
    solve_greedy,
    solve_lagrangian,
)
from smallnets.studies.lana.networks import replaceable
from smallnets.studies.lana.plan import Options, prepare
from smallnets.training import seeded

NAMES = ("conv3", "dwsep3", "ir_e1_k3", "bottleneck_r0.25_k3", "lowrank_r0.25_k3", "fused_e1_k3")


def candidates(images: int = 192) -> None:
    """Seconds of one epoch of phase 1, both ways, on one thread."""
    torch.set_num_threads(1)
    dataset, settings = prepare("glyphs10", "small", Options(train=images, device="cpu"))
    layered = replaceable(settings.teacher, dataset)
    brief = replace(settings.distilling, epochs=1, warmup_epochs=0.0)

    def train(together: bool) -> float:
        with seeded(0):
            pool = build_pool(layered, NAMES)
        began = time.perf_counter()
        distil_candidates(layered, pool, dataset, brief, seed=0, together=together)
        return time.perf_counter() - began

    train(True)
    seconds = {"side by side": train(True), "one at a time": train(False)}
    count = len(layered.names) * len(NAMES)
    report(f"{count} candidates, one epoch of {images} images", seconds, "side by side")


def solvers() -> None:
    """A random instance with the teacher in the first column."""
    generator = np.random.default_rng(0)
    cost = generator.uniform(0.05, 1.3, (100, 197))
    score = np.maximum(0, 1.2 - cost) * generator.uniform(0, 0.4, (100, 197))
    score += generator.normal(0, 0.01, score.shape)
    cost[:, 0], score[:, 0] = 1.0, 0.0
    programme = Programme(score, {"latency": cost}, {"latency": 50.0})
    rivals = {
        "milp, proven optimal": lambda: solve(programme),
        "dynamic programming, 10,000 bins": lambda: solve_dynamic(programme, bins=10_000),
        "Lagrangian": lambda: solve_lagrangian(programme),
        "greedy": lambda: solve_greedy(programme),
        "linear relaxation": lambda: relax(programme),
    }
    seconds = race(rivals, rounds=3)
    report(
        "100 layers of 197 candidates, half of the teacher's latency",
        seconds,
        "milp, proven optimal",
    )
    best = solve(programme).objective
    for name, run in list(rivals.items())[:4]:
        print(f"  {name:34} objective {run().objective:.6f}, {run().objective - best:+.2e}")


if __name__ == "__main__":
    candidates()
    solvers()
