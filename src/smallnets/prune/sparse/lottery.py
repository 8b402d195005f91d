"""The lottery ticket: iterative magnitude pruning with a rewind (Frankle, Carbin, ICLR 2019).

    train; close a share of the smallest weights that are left; put the others, with all norms and
    their statistics, back to what they were after step k (0 is the start); train again; ...

Every round is the same training, from the same start with the same seed: its first k steps are made
without masks, so they lead to the same network as in every round, bit for bit, and then the masks
close. So the rewind needs no copies, everything is rewound, the optimiser's state and the learning
rate go on where they were, and all rounds take equal steps.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.data import TrainingData
from smallnets.prune.sparse.masks import (
    Masked,
    Masks,
    magnitude_masks,
)
from smallnets.prune.sparse.objectives import CROSS_ENTROPY, behind_fabric
from smallnets.prune.sparse.schedules import Round, close_more, steps_of
from smallnets.training import Batch, TrainSettings, fit
from smallnets.training.draws import global_draws_kept, seed_global
from smallnets.training.loop import Objective


@dataclass(frozen=True)
class ClosedFrom:
    """The objective of a `Ticket`: without masks before a step, with them from it on.

    Attributes:
        step: before which masks close, from 0.
        objective: what is learned.
    """

    step: int = 0
    objective: Objective = CROSS_ENTROPY

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("step", self.step, 0)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        ticket = behind_fabric(model, Ticket, self)
        if int(ticket.steps) == self.step:
            ticket.close()
        ticket.steps += 1
        return self.objective(model, batch)


class Ticket(Masked):
    """A network whose masks wait until `close`.

    Args:
        network: trained in place.
        masks: that will close.
    """

    def __init__(self, network: nn.Module, masks: Masks) -> None:
        open_ = {name: torch.ones_like(mask) for name, mask in masks.items()}
        super().__init__(network, open_)
        for place, (name, mask) in enumerate(masks.items()):
            self.register_buffer(f"waiting_{place}", mask.to(self.masks[name]).clone())
        Masked(network, masks)  # says what is wrong with them before any training

    def close(self) -> None:
        """Let the masks act."""
        places = enumerate(self.names)
        self.set_masks({name: self.get_buffer(f"waiting_{place}") for place, name in places})


def train_masked(
    network: nn.Module,
    masks: Masks,
    dataset: TrainingData,
    settings: TrainSettings,
    *,
    seed: int,
    rewind: int = 0,
    objective: Objective = CROSS_ENTROPY,
    cache_dir: Path | None = None,
    label: str = "masked",
) -> Round:
    """Train a copy of a network whose masks close before step `rewind`.

    Args:
        network: the start; left as it is.
        masks: of its weights.
        dataset, settings, seed, objective, cache_dir, label: as in `smallnets.training.fit`.
        rewind: the step k; with 0 masks are closed from the first step.

    Raises:
        ValueError: masks that do not fit, or a rewind beyond the training.
    """
    checks.whole("rewind", rewind, 0)
    if rewind and rewind >= (steps := steps_of(dataset, settings)):
        raise ValueError(f"rewind must be below the {steps} steps of the training; got {rewind}")
    ticket = Ticket(copy.deepcopy(network), masks)
    history = fit(
        ticket,
        dataset,
        settings,
        seed=seed,
        objective=ClosedFrom(rewind, objective),
        cache_dir=cache_dir,
        label=label,
    )
    return Round(float(ticket.closed), ticket, history)


def lottery_ticket(
    network: nn.Module,
    dataset: TrainingData,
    settings: TrainSettings,
    *,
    seed: int,
    rounds: int,
    share: float = 0.2,
    rewind: int = 0,
    scope: str = "global",
    layers: Sequence[str] | None = None,
    objective: Objective = CROSS_ENTROPY,
    cache_dir: Path | None = None,
) -> list[Round]:
    """Find a winning ticket.

    Args:
        network: at its random start; left as it is.
        dataset, settings, seed, objective, cache_dir: of every training, as in
            `smallnets.training.fit`. Batches of your own must come in one order for one seed, as
            those of a plain DataLoader do; else k steps lead elsewhere in every round.
        rounds: of pruning; there is one training more, of the whole network.
        share: of the weights left that every round closes, in [0, 1).
        rewind: the step k that weights are put back to.
        scope, layers: see `keep_largest` and `prunable_weights`.

    Returns:
        Rounds 0 (nothing closed) to `rounds`. The ticket itself is the start with the masks of the
        last: see `train_masked`, with `reinitialised` or `shuffled_masks` for the controls.
    """
    checks.whole("rounds", rounds, 1)
    checks.between("share", share, 0, 1)
    masks: Masks = magnitude_masks(network, 0.0, layers=layers)
    found: list[Round] = []
    for number in range(rounds + 1):
        if number:
            pruned = copy.deepcopy(found[-1].network)
            close_more(pruned, 1 - (1 - share) ** number, scope)
            masks = pruned.masks
        found.append(
            train_masked(
                network,
                masks,
                dataset,
                settings,
                seed=seed,
                rewind=rewind,
                objective=objective,
                cache_dir=cache_dir,
                label=f"ticket {number}",
            )
        )
    return found


def reinitialised(network: nn.Module, seed: int) -> nn.Module:
    """A copy of a network with another random start: every layer draws its own anew.

    Layers draw as PyTorch's do. A network that draws in its constructor is better built again.

    Args:
        network: left as it is.
        seed: of the draws; global random numbers are left alone.

    Raises:
        ValueError: a layer with parameters or buffers of its own that has no `reset_parameters`.
    """
    fresh = copy.deepcopy(network)
    with global_draws_kept():
        seed_global(checks.whole("seed", seed, 0))
        for name, module in fresh.named_modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                raise ValueError(
                    f"layer {name!r} must say how it starts; {type(module).__name__} has no "
                    "reset_parameters"
                )
    return fresh
