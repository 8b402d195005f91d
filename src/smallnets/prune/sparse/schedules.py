"""When weights go: at once, in rounds, or little by little while the others learn.

The gradual schedule (Zhu, Gupta, 2018) closes a share of the weights that rises fast at first:

    s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3,   t = t_0, t_0 + dt, ..., t_0 + n dt
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from smallnets import checks
from smallnets.data import Dataset, TrainingData, as_batches
from smallnets.prune.sparse.masks import (
    SCOPES,
    Masked,
    keep_largest,
    magnitude_masks,
)
from smallnets.prune.sparse.objectives import CROSS_ENTROPY, behind_fabric
from smallnets.training import Batch, TrainSettings, fit
from smallnets.training.checkpoint import History
from smallnets.training.loop import Objective


def gradual_sparsity(
    t: float, start: float, end: float, begin: float, times: int, every: float
) -> float:
    """Share of the weights that is closed after step t (Zhu and Gupta, equation 1).

    Args:
        t: a step.
        start, end: the shares s_i and s_f, in [0, 1].
        begin: the step t_0; before it the share is `start`.
        times: how often masks change after the first time, n; later the share is `end`.
        every: steps from one change to the next, dt.

    Raises:
        ValueError: a number out of range.
    """
    checks.between("start", start, 0, 1)
    checks.between("end", end, 0, 1)
    checks.at_least("begin", begin, 0)
    checks.whole("times", times, 1)
    checks.above("every", every, 0)
    passed = min(max(checks.at_least("t", t, 0) - begin, 0) / (times * every), 1)
    return end + (start - end) * (1 - passed) ** 3


@dataclass(frozen=True)
class Gradual:
    """The objective of a `Masked` network whose masks close by the gradual schedule.

    Masks are nested: what has gone stays gone. They change before the steps begin, begin + every,
    ..., begin + times * every, counted since the masked network was made, and never after.

    Attributes:
        end: share of the weights that is closed in the end.
        begin, times, every: see `gradual_sparsity`, in steps.
        start: share that is closed at the first time.
        scope: see `keep_largest`.
        objective: what is learned.

    Raises:
        ValueError: a field is out of range, or it ends with fewer weights than it starts with.
    """

    end: float
    begin: int
    times: int
    every: int
    start: float = 0.0
    scope: str = "layer"
    objective: Objective = CROSS_ENTROPY

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("begin", self.begin, 0)
        checks.whole("every", self.every, 1)
        self.sparsity(self.begin)
        checks.between("start", self.start, 0, self.end)
        checks.one_of("scope", self.scope, SCOPES)

    @property
    def last(self) -> int:
        """The step before which masks change for the last time."""
        return self.begin + self.times * self.every

    def sparsity(self, step: int) -> float:
        """Share of the weights that is closed before a step."""
        return gradual_sparsity(step, self.start, self.end, self.begin, self.times, self.every)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The objective's terms, and "closed", the share of the weights that is."""
        masked = behind_fabric(model, Masked, self)
        step = int(masked.steps)
        masked.steps += 1
        if self.begin <= step <= self.last and (step - self.begin) % self.every == 0:
            close_more(masked, self.sparsity(step), self.scope)
        return self.objective(model, batch) | {"closed": masked.closed}


def close_more(masked: Masked, amount: float, scope: str) -> None:
    """Close the smallest weights of a masked network until a share of all is closed."""
    found = {name: weight.abs() for name, weight in masked.weights.items()}
    masked.set_masks(keep_largest(found, amount, scope, masks=masked.masks))


def prune_gradually(
    network: nn.Module,
    dataset: TrainingData,
    settings: TrainSettings,
    *,
    seed: int,
    amount: float,
    start: float = 0.0,
    first: float = 0.0,
    last: float = 0.75,
    times: int = 20,
    scope: str = "layer",
    layers: Sequence[str] | None = None,
    objective: Objective = CROSS_ENTROPY,
    cache_dir: Path | None = None,
) -> tuple[Masked, History]:
    """Train a network while its weights go by the gradual schedule.

    Args:
        network: trained in place, from its start or from a trained one.
        dataset, settings, seed, objective, cache_dir: as in `smallnets.training.fit`.
        amount, start: shares of the weights that are closed in the end and at first.
        first, last: parts of the training, in [0, 1], at which pruning begins and ends; what is
            left of it is for recovery.
        times: how often masks change after the first time, or every step if these are fewer.
        scope, layers: see `keep_largest` and `prunable_weights`.

    Raises:
        ValueError: a number out of range, batches whose number nobody knows, or a training that is
            too short to change a mask twice.
    """
    checks.between("last", last, 0, 1)
    checks.between("first", first, 0, last)
    checks.whole("times", times, 1)
    steps = steps_of(dataset, settings)
    begin, end = int(first * steps), int(last * (steps - 1))
    if end <= begin:
        raise ValueError(
            f"the training must have steps between first and last; it has {steps} in all, and "
            f"{first} and {last} of it lie in one"
        )
    every = max(1, (end - begin) // times)
    plan = Gradual(amount, begin, min(times, end - begin), every, start, scope, objective)
    masked = Masked(network, magnitude_masks(network, 0.0, layers=layers))
    history = fit(
        masked, dataset, settings, seed=seed, objective=plan, cache_dir=cache_dir, label="gradual"
    )
    return masked, history


def steps_of(dataset: TrainingData, settings: TrainSettings) -> int:
    """Steps of a whole training.

    Raises:
        ValueError: batches of one's own whose number nobody knows.
    """
    data = as_batches(dataset)
    if not isinstance(data, Dataset):
        if data.steps is None:
            raise ValueError(
                "the number of batches an epoch must be known; got batches that do not say: give "
                "Batches(data, length=...)"
            )
        return settings.epochs * data.steps
    if settings.across_epochs:
        return int(settings.epochs * len(data.y_train) / settings.batch_size + 0.5)
    return settings.epochs * (len(data.y_train) // settings.batch_size)


@dataclass(frozen=True)
class Round:
    """One round of pruning and training.

    Attributes:
        amount: share of the weights that was closed while it was trained.
        network: as it was afterwards.
        history: of its training.
    """

    amount: float
    network: Masked
    history: History


def prune_in_rounds(
    network: nn.Module,
    dataset: TrainingData,
    settings: TrainSettings,
    *,
    seed: int,
    amount: float,
    rounds: int = 1,
    scope: str = "global",
    layers: Sequence[str] | None = None,
    objective: Objective = CROSS_ENTROPY,
    cache_dir: Path | None = None,
) -> list[Round]:
    """Close the smallest weights of a trained network and train the others on, in rounds.

    One round is one-shot pruning. Of several (Han et al., 2015) each closes the same share of the
    weights that are left: after round r of R, 1 - (1 - amount)^(r / R) are closed.

    Args:
        network: trained; left as it is.
        dataset, settings, seed, objective, cache_dir: of the training after each round, as in
            `smallnets.training.fit`.
        amount: share of the weights that is closed in the end.
        rounds: how many.
        scope, layers: see `keep_largest` and `prunable_weights`.

    Returns:
        What every round left, the last of them with `amount` closed.
    """
    checks.between("amount", amount, 0, 1)
    checks.whole("rounds", rounds, 1)
    found: list[Round] = []
    masked = Masked(copy.deepcopy(network), magnitude_masks(network, 0.0, layers=layers))
    for number in range(1, rounds + 1):
        masked = copy.deepcopy(masked)
        share = amount if number == rounds else 1 - (1 - amount) ** (number / rounds)
        close_more(masked, share, scope)
        history = fit(
            masked,
            dataset,
            settings,
            seed=seed,
            objective=objective,
            cache_dir=cache_dir,
            label=f"round {number}",
        )
        found.append(Round(share, masked, history))
    return found
