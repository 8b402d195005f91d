"""The learning rate of every method, chosen before any method is compared.

With one rate for all, differences between methods would be differences in how far each of them
lets the weights move. Rates are judged on training images of all tasks that were held out. No
network is trained on these, neither here nor in the comparison, whose test images are not seen
here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from smallnets.data import Dataset
from smallnets.studies.replay.conditions import Condition, core_conditions, swept_conditions
from smallnets.studies.replay.learners import learn
from smallnets.studies.replay.plan import Settings
from smallnets.studies.replay.scenarios import scenario
from smallnets.synthesize import replay as r

HELD_OUT, KNOWN = "held out", "held out, task known"
Tried = dict[str, dict[str, float]]


def try_rates(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Tried:
    """Accuracy on the held-out training images of all tasks, at every rate.

    Returns:
        "held out", all classes competing, and "held out, task known" -> "near, lwf, 0.1" -> from 0
        to 1. The second is to be looked at; it chooses nothing. A training that diverged has 0.
    """
    found: Tried = {HELD_OUT: {}, KNOWN: {}}
    for name, condition in swept_conditions(settings).items():
        for rate in candidates(condition, settings):
            judged = judge(dataset, settings, seed, condition, rate, cache_dir)
            found[HELD_OUT][trial(name, rate)], found[KNOWN][trial(name, rate)] = judged
    return found


def judge(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    condition: Condition,
    rate: float,
    cache_dir: Path | None = None,
) -> tuple[float, float]:
    """Accuracy of a condition at a rate on the held-out images, task-agnostic and task-aware; 0 if
    the training diverged, be it in its last step.
    """
    judged = scenario(dataset, settings, condition.scenario).choosing
    try:
        found = r.evaluate(learn(dataset, settings, seed, condition, rate, cache_dir), judged)
    except r.DivergedError:
        return 0.0, 0.0
    return found.total, found.total_aware


def candidates(condition: Condition, settings: Settings) -> tuple[float, ...]:
    """The rates that are tried for a condition, see `Settings.lower`."""
    careful = condition.freeze_bn or r.METHODS[condition.method].penalty != "none"
    return (*settings.lower, *settings.rates) if careful else settings.rates


def trial(name: str, rate: float) -> str:
    """What a condition at a rate is called."""
    return f"{name}, {rate:g}"


def best_rates(
    tried: Mapping[str, Mapping[str, float | Sequence[float]]], settings: Settings
) -> dict[str, float]:
    """The rate of every condition of `core_conditions`: that with the best mean over the seeds of a
    sweep, the smallest of equals. Methods that were not swept have the rate that the settings say
    an earlier sweep chose, or else that of the settings' training; conditions that change something
    else have the rate of their method.

    Args:
        tried: what `try_rates` gives, of one seed or joined over several.
        settings: of the study.
    """
    chosen = dict(settings.chosen)
    for name, condition in swept_conditions(settings).items():
        scores = {
            rate: _mean(tried[HELD_OUT][trial(name, rate)])
            for rate in candidates(condition, settings)
        }
        chosen[name] = max(scores, key=lambda rate: (scores[rate], -rate))
    plain = {one.plain for one in core_conditions(settings).values()}
    return {name: chosen.get(name, settings.training.lr) for name in sorted(plain)}


def rate_of(condition: Condition, rates: Mapping[str, float], settings: Settings) -> float:
    """The rate of any condition, see `best_rates`; variants of the published method have its."""
    return rates.get(
        condition.plain, rates.get(f"{condition.scenario}, mfgr", settings.training.lr)
    )


def _mean(scores: float | Sequence[float]) -> float:
    values = [scores] if isinstance(scores, int | float) else list(scores)
    return sum(values) / len(values)
