"""The learning rate of each method, chosen before any method is compared.

With one rate for all, differences between methods are differences in how much each of them lets
the weights move.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from smallnets import checks
from smallnets.synthesize.replay.incremental import IncrementalResult, incremental_fit
from smallnets.synthesize.replay.metrics import average_incremental_accuracy, last_accuracy
from smallnets.synthesize.replay.objective import PUBLISHED, IncrementalSettings
from smallnets.synthesize.replay.supervision import DivergedError, Method
from smallnets.synthesize.replay.tasks import HeldOut

MEASURES = ("last accuracy", "average incremental accuracy")


@dataclass(frozen=True)
class LearningRates:
    """What a sweep found.

    Attributes:
        scores: rate -> accuracy on the held-out images of all tasks, task-agnostic; NaN where the
            training diverged.
        aware: rate -> the same, task-aware, to look at; it chooses nothing.
        best: the rate with the highest score, the smallest of equals.
        at_edge: whether that is the smallest or largest that was tried, so that a wider sweep may
            find a better one.
    """

    scores: dict[float, float]
    aware: dict[float, float]
    best: float
    at_edge: bool


def choose_learning_rate(
    model: nn.Module,
    held: HeldOut,
    rates: Sequence[float],
    method: str | Method = "mfgr",
    settings: IncrementalSettings = PUBLISHED,
    *,
    measure: str = "last accuracy",
    seed: int = 0,
    head: str | None = None,
    cache_dir: Path | None = None,
) -> LearningRates:
    """Try learning rates of the later steps; step 0 is the same for all of them.

    Run it for every method, with the settings that are to be compared, and compare on
    `held.training`.

    Args:
        model, method, settings, seed, head, cache_dir: see `incremental_fit`.
        held: from `hold_out`. Its held-out images are looked at here, and never trained on.
        rates: to be tried.
        measure: one of `MEASURES`.

    Raises:
        ValueError: no rate, one that is not above 0, all rates diverge, or as `incremental_fit`.
    """
    checks.each("rates", rates, checks.above, 0)
    checks.one_of("measure", measure, MEASURES)
    tried = sorted({float(rate) for rate in rates})
    scores: dict[float, float] = {}
    aware: dict[float, float] = {}
    for rate in tried:
        own = replace(
            settings,
            first=settings.first_training,
            training=replace(
                settings.training, lr=rate, final_lr=min(settings.training.final_lr, rate)
            ),
        )
        try:
            result = incremental_fit(
                model, held.choosing, method, own, seed=seed, head=head, cache_dir=cache_dir
            )
        except DivergedError:
            scores[rate] = aware[rate] = math.nan
            continue
        scores[rate], aware[rate] = _score(result, measure)
    sound = {rate: score for rate, score in scores.items() if not math.isnan(score)}
    if not sound:
        raise ValueError(f"rates must hold one at which training is stable; got {tried}")
    best = max(sound, key=lambda rate: (sound[rate], -rate))
    return LearningRates(scores, aware, best, best in (tried[0], tried[-1]))


def _score(result: IncrementalResult, measure: str) -> tuple[float, float]:
    of = last_accuracy if measure == "last accuracy" else average_incremental_accuracy
    return of(result.agnostic, result.sizes), of(result.aware, result.sizes)
