"""LANA: Latency Aware Network Acceleration (Molchanov et al., ECCV 2022, arXiv:2107.10624).

A trained network is made fast by giving each of its layers one of very many stand-ins. Each is
taught to imitate that one layer; each is then judged by what it alone does to the network; and as
these judgements are assumed to add up, the best combination within a latency budget is the solution
of an integer linear programme.

- `Layered`, `build_pool`, `FULL_POOL`: any network by the names of its layers, and stand-ins.
- `distil_candidates`, `feature_loss`: phase 1.
- `score_pool`, `measure_table`, `sizes`: what every candidate costs, in loss, time and size.
- `Programme`, `solve`, `solve_diverse`, `relax`: the integer programme.
- `solve_all`, `solve_dynamic`, `solve_lagrangian`, `solve_greedy`, `random_choices`, `evolve`:
  what it is compared with.
- `fine_tune`, `recalibrated`, `judged`: from the solution to a network.
- `prepare` and the functions of `smallnets.search.lana.study`: the chapter's experiments.

There is no official code. The constants of the paper are partly known from its abstract alone; the
docstrings say which choices are ours.
"""

from smallnets.search.lana.candidates import (
    LayerwiseDistillation,
    distil_candidates,
    feature_loss,
    relative_error,
)
from smallnets.search.lana.latency import LatencyTable, Timing, in_turns, measure_table
from smallnets.search.lana.layers import Layered
from smallnets.search.lana.networks import layered_network, new_network
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
from smallnets.search.lana.plan import PRESETS, StudySettings, prepare, stored_table
from smallnets.search.lana.pool import Pool, build_pool, log10_space, restricted, sizes
from smallnets.search.lana.programme import InfeasibleError, Programme, Selection, overlap_of
from smallnets.search.lana.rivals import best_so_far, evolve, random_choices, random_search
from smallnets.search.lana.scores import SCORES, predicted_loss, rank_agreement, score_pool
from smallnets.search.lana.solve import relax, solve, solve_diverse
from smallnets.search.lana.study import (
    SHARES,
    budgets,
    checked_latency,
    chosen_table,
    families,
    searched,
    train_network,
    train_pool,
    train_pools,
    tune_all,
    tuning_plans,
)
from smallnets.search.lana.tuning import FineTuning, fine_tune, judged, recalibrated, tuning_loss

__all__ = [
    "FULL_POOL",
    "PRESETS",
    "SCORES",
    "SHARES",
    "TEACHER",
    "FineTuning",
    "ImpossibleError",
    "InfeasibleError",
    "LatencyTable",
    "Layered",
    "LayerwiseDistillation",
    "Pool",
    "Programme",
    "Selection",
    "Shape",
    "StudySettings",
    "Timing",
    "available",
    "best_so_far",
    "budgets",
    "build_pool",
    "checked_latency",
    "chosen_table",
    "distil_candidates",
    "evolve",
    "families",
    "feature_loss",
    "fine_tune",
    "in_turns",
    "judged",
    "layered_network",
    "log10_space",
    "measure_table",
    "new_network",
    "operation",
    "overlap_of",
    "predicted_loss",
    "prepare",
    "random_choices",
    "random_search",
    "rank_agreement",
    "recalibrated",
    "relative_error",
    "relax",
    "restricted",
    "score_pool",
    "searched",
    "sizes",
    "solve",
    "solve_all",
    "solve_diverse",
    "solve_dynamic",
    "solve_greedy",
    "solve_lagrangian",
    "stored_table",
    "train_network",
    "train_pool",
    "train_pools",
    "tune_all",
    "tuning_loss",
    "tuning_plans",
]
