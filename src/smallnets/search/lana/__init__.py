"""LANA: Latency Aware Network Acceleration (Molchanov et al., ECCV 2022, arXiv:2107.10624).

A trained network is made fast by giving each of its layers one of very many stand-ins. Each is
taught to imitate that one layer; each is then judged by what it alone does to the network; and as
these judgements are assumed to add up, the best combination within a latency budget is the solution
of an integer linear programme.

- `ReplaceableLayers`, `build_pool`, `FULL_POOL`: any network by the names of its layers, and
  stand-ins.
- `distil_candidates`, `feature_loss`: phase 1.
- `score_pool`, `measure_table`, `sizes`: what every candidate costs, in loss, time and size.
- `Programme`, `solve`, `solve_diverse`, `relax`: the integer programme.
- `solve_all`, `solve_dynamic`, `solve_lagrangian`, `solve_greedy`, `random_choices`, `evolve`:
  what it is compared with.
- `fine_tune`, `evaluate_network`: from the solution to a network.

There is no official code. The constants of the paper are partly known from its abstract alone; the
docstrings say which choices are ours.
"""

from smallnets.search.lana.baselines import best_so_far, evolve, random_choices, random_search
from smallnets.search.lana.candidates import (
    LayerwiseDistillation,
    distil_candidates,
    feature_loss,
    relative_error,
)
from smallnets.search.lana.latency import LatencyTable, interleaved_latency, measure_table
from smallnets.search.lana.layers import ReplaceableLayers
from smallnets.search.lana.operations import (
    FULL_POOL,
    TEACHER,
    ImpossibleError,
    Shape,
    available,
    operation,
)
from smallnets.search.lana.other_solvers import (
    solve_all,
    solve_dynamic,
    solve_greedy,
    solve_lagrangian,
)
from smallnets.search.lana.pool import Pool, build_pool, log10_space, restricted, sizes
from smallnets.search.lana.programme import InfeasibleError, Programme, Selection, overlap_of
from smallnets.search.lana.scores import SCORES, predicted_loss, rank_agreement, score_pool
from smallnets.search.lana.solve import relax, solve, solve_diverse
from smallnets.search.lana.tuning import FineTuning, evaluate_network, fine_tune, tuning_loss

__all__ = [
    "FULL_POOL",
    "SCORES",
    "TEACHER",
    "FineTuning",
    "ImpossibleError",
    "InfeasibleError",
    "LatencyTable",
    "LayerwiseDistillation",
    "Pool",
    "Programme",
    "ReplaceableLayers",
    "Selection",
    "Shape",
    "available",
    "best_so_far",
    "build_pool",
    "distil_candidates",
    "evaluate_network",
    "evolve",
    "feature_loss",
    "fine_tune",
    "interleaved_latency",
    "log10_space",
    "measure_table",
    "operation",
    "overlap_of",
    "predicted_loss",
    "random_choices",
    "random_search",
    "rank_agreement",
    "relative_error",
    "relax",
    "restricted",
    "score_pool",
    "sizes",
    "solve",
    "solve_all",
    "solve_diverse",
    "solve_dynamic",
    "solve_greedy",
    "solve_lagrangian",
    "tuning_loss",
]
