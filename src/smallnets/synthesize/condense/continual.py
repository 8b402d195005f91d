"""Class-incremental learning with a condensed memory (section 4 of the paper, after GDumb).

Classes come in steps; at each step a fixed number of images a class is condensed or chosen from the
step's data and kept for ever; a fresh network is trained on the memory alone and tested on all
classes seen so far, among all classes, without masking those to come.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smallnets import checks
from smallnets.synthesize.condense.evaluation import (
    PUBLISHED_EVALUATION,
    EvalSettings,
    Factory,
    evaluate_set,
)
from smallnets.synthesize.condense.sets import (
    Data,
    ImageSet,
    SyntheticSet,
    merged,
    test_set,
    training_set,
)

Condenser = Callable[[ImageSet, Sequence[int], int], SyntheticSet]


@dataclass(frozen=True, eq=False)
class Continual:
    """What was measured, step by step.

    Attributes:
        accuracies: float64 (orders, networks, steps), 0 to 1, on the test images of all classes
            seen.
        memory: int64 (steps,), images kept.
    """

    accuracies: Tensor
    memory: Tensor

    @property
    def mean(self) -> Tensor:
        """(steps,), over orders and networks."""
        return self.accuracies.mean((0, 1))


def class_orders(classes: int, seeds: Sequence[int] = range(5)) -> np.ndarray:
    """Orders int64 (orders, classes), as published: NumPy's legacy generator, one permutation a
    seed.
    """
    checks.whole("classes", classes, 1)
    return np.stack([np.random.RandomState(seed).permutation(classes) for seed in seeds])


def continual(
    data: Data,
    test: Data,
    condenser: Condenser,
    factory: Factory,
    steps: int,
    settings: EvalSettings = PUBLISHED_EVALUATION,
    *,
    orders: Sequence[Sequence[int]] | np.ndarray | None = None,
    networks: int = 3,
    workers: int | None = None,
    after_step: Callable[[int, int, SyntheticSet], object] | None = None,
) -> Continual:
    """Learn classes step by step from a condensed memory.

    Args:
        data: training images of all classes.
        test: test images.
        condenser: (the step's images with their labels, the step's classes, number of the order) ->
            a set of these classes. It sees nothing of other steps; networks that it needs, as
            herding does, are trained on what it sees. See `condense(..., only=classes)` and
            `select(..., only=classes)`.
        factory: () -> a fresh network with all classes.
        steps: in how many equal steps the classes come.
        settings: of the training on the memory.
        orders: of the classes, one row an order; None is `class_orders`.
        networks: fresh networks a step and order.
        workers: see `smallnets.training.run_parallel`.
        after_step: (order, step, the memory), so that nothing finished is lost.

    Raises:
        ValueError: steps that do not divide the classes, orders that are none, or a condenser that
            returns other classes than it was given.
    """
    real, tested = training_set(data), test_set(test)
    count = real.num_classes
    checks.between("steps", checks.whole("steps", steps, 1), 1, count)
    if count % steps:
        raise ValueError(f"steps must divide the number of classes, {count}; got {steps}")
    checks.whole("networks", networks, 1)
    rows = np.asarray(class_orders(count) if orders is None else orders)
    if rows.ndim != 2 or any(sorted(row) != list(range(count)) for row in rows.tolist()):
        raise ValueError(f"every order must name the classes 0 to {count - 1} once; got {rows}")
    accuracies = torch.zeros(len(rows), networks, steps, dtype=torch.float64)
    memory = torch.zeros(steps, dtype=torch.int64)
    for number, order in enumerate(rows.tolist()):
        parts: list[SyntheticSet] = []
        for step in range(steps):
            each = count // steps
            classes = order[step * each : (step + 1) * each]
            part = condenser(real.of_classes(classes), classes, number)
            if set(part.labels.tolist()) != set(classes):
                raise ValueError(
                    f"the condenser must return images of the classes {sorted(classes)}; got "
                    f"{sorted(set(part.labels.tolist()))}"
                )
            parts.append(part)
            kept = merged(parts)
            if after_step is not None:
                after_step(number, step, kept)
            seen = tested.of_classes(order[: (step + 1) * each])
            seeds = [networks * (steps * number + step) + one for one in range(networks)]
            found = evaluate_set(kept, seen, factory, settings, seeds, workers=workers)
            accuracies[number, :, step] = found.accuracies[0]
            memory[step] = len(kept)
    return Continual(accuracies, memory)
