"""Learning tasks one after the other."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from smallnets.synthesize.replay.evaluation import StepAccuracies, evaluate
from smallnets.synthesize.replay.metrics import (
    average_incremental_accuracy,
    average_incremental_accuracy_without_first,
    forgetting,
    last_accuracy,
)
from smallnets.synthesize.replay.objective import PUBLISHED, IncrementalSettings
from smallnets.synthesize.replay.progress import Progress
from smallnets.synthesize.replay.steps import LearnedStep, learn_task, method_of
from smallnets.synthesize.replay.supervision import Method
from smallnets.synthesize.replay.tasks import Task, check_tasks


@dataclass(frozen=True, eq=False)
class IncrementalResult:
    """A sequence that was learned.

    Attributes:
        sizes: classes of each task.
        steps: what each left behind.
        accuracies: after each.
    """

    sizes: tuple[int, ...]
    steps: list[LearnedStep]
    accuracies: list[StepAccuracies]

    @property
    def agnostic(self) -> np.ndarray:
        """A[t, j], (T, T), all classes seen competing; NaN above the diagonal."""
        return self._matrix("agnostic")

    @property
    def aware(self) -> np.ndarray:
        """The same if only the classes of task j compete."""
        return self._matrix("aware")

    def _matrix(self, which: str) -> np.ndarray:
        count = len(self.accuracies)
        matrix = np.full((count, count), np.nan)
        for step, one in enumerate(self.accuracies):
            matrix[step, : step + 1] = getattr(one, which).numpy()
        return matrix

    def summary(self) -> dict[str, float]:
        """Every measure by its full name, task-aware beside task-agnostic, from 0 to 1.

        Averages and forgetting that need a second step are left out where there is one.
        """
        last, found = self.accuracies[-1], {}
        for kind, matrix in (("agnostic", self.agnostic), ("aware", self.aware)):
            found[f"last accuracy, {kind}"] = last_accuracy(matrix, self.sizes)
            found[f"average incremental accuracy, {kind}"] = average_incremental_accuracy(
                matrix, self.sizes
            )
            if len(self.steps) > 1:
                found[f"average incremental accuracy without the first step, {kind}"] = (
                    average_incremental_accuracy_without_first(matrix, self.sizes)
                )
                found[f"forgetting, {kind}"] = forgetting(matrix)
        found["new, agnostic"], found["new, aware"] = last.new, float(last.aware[-1])
        if len(self.steps) > 1:
            found["old, agnostic"], found["old, among old"] = last.old, last.old_among_old
        return found


def incremental_fit(
    model: nn.Module,
    tasks: Sequence[Task],
    method: str | Method = "mfgr",
    settings: IncrementalSettings = PUBLISHED,
    *,
    seed: int = 0,
    head: str | None = None,
    cache_dir: Path | None = None,
    progress_dir: Path | None = None,
) -> IncrementalResult:
    """Learn tasks one after the other.

    After step i nothing is kept but the model (and, for "ewc" and "mas", numbers for its weights):
    a memory-free method never reads training images of an earlier task again, also when it is
    resumed. "joint" and "real_replay" do; they start from the same model as all others.

    Args:
        model: with the classes of the first task, untrained or not; left as it is.
        tasks: see `task_split`.
        method: a name in `METHODS`, or a row of your own.
        settings: how.
        seed: of everything random.
        head: of the classifier, see `head_name`.
        cache_dir: see `learn_task`. Trainings in it are named by their data, too, so that the same
            training is never done twice, whoever asks.
        progress_dir: folder in which every finished step is kept. A run with the same model,
            method, settings, seed and sizes of tasks goes on after the last of them, bit for bit
            as if it had never stopped, and without reading what is past; so the folder belongs to
            one sequence of data.

    Raises:
        ValueError: tasks that `check_tasks` refuses, or as `learn_task`.
    """
    sizes = check_tasks(tasks)
    ask = method_of(method)
    start = copy.deepcopy(model).train()
    progress = Progress.of(progress_dir, start, ask, settings, seed, head)
    steps: list[LearnedStep] = []
    accuracies: list[StepAccuracies] = []
    for step, task in enumerate(tasks):
        kept = progress.load(sizes[: step + 1])
        if kept is None:
            learned = learn_task(
                steps[-1].model if steps else start, task, ask, settings, step=step, seed=seed,
                importance=steps[-1].importance if steps else None,
                earlier=() if ask.memory_free else tasks[:step], head=head, cache_dir=cache_dir,
            )  # fmt: skip
            kept = learned, evaluate(learned.model, tasks[: step + 1])
            progress.save(sizes[: step + 1], *kept)
        steps.append(kept[0])
        accuracies.append(kept[1])
    return IncrementalResult(tuple(sizes), steps, accuracies)
