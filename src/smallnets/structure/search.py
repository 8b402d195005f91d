r"""A tiny architecture search: a supernet that learns which block to take, and random search.

FBNet (Wu et al., CVPR 2019) and its kin, as small as they can be. All candidates of a place compute
side by side, and their outputs are added with Gumbel-softmax weights,

.. math::

    w_{lk} = \mathrm{softmax}_k\big((\theta_{lk} + g_{lk}) / \tau\big),

with a temperature that falls. Weights learn on one half of the training images; :math:`\theta`, on
the other half, minimises cross-entropy plus :math:`\lambda` times a penalty on the expected
multiply-adds :math:`\sum_l \sum_k p_{lk} M_{lk}`. The likeliest architecture within the budget is
then trained from scratch. Random search trains as many, within the same budget, in the same way,
and is spared the supernet.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks, measure
from smallnets.batches import Batches, check_labelled
from smallnets.data import Dataset, TrainingData, as_batches
from smallnets.models.staged import pooled_classifier
from smallnets.structure.blocks import dense_block, make_block
from smallnets.structure.space import Choices, SearchSpace
from smallnets.training import Batch, TrainSettings, check_network, fit, seeded

PENALTIES = ("log", "hinge")
HELD_OUT = 5  # one training image in so many judges finished networks


@dataclass(frozen=True)
class ChoiceSettings:
    """How the supernet learns to choose; all but the learning rate and the temperatures are ours.

    Attributes:
        penalty: "log", the logarithm of expected cost over budget, or "hinge", the share by which
            it is above.
        weight: of the penalty, at least 0.
        lr: of theta, with Adam.
        hot, cold: first and last temperature; between them it falls exponentially.

    Raises:
        ValueError: a number is out of range, or the penalty unknown.
    """

    penalty: str = "log"
    weight: float = 0.5
    lr: float = 1e-2
    hot: float = 5.0
    cold: float = 0.5

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.one_of("penalty", self.penalty, PENALTIES)
        checks.at_least("weight", self.weight, 0)
        for name in ("lr", "hot", "cold"):
            checks.above(name, getattr(self, name), 0)

    def temperature(self, time: float) -> float:
        """The temperature at a time from 0 to 1."""
        return self.hot * (self.cold / self.hot) ** time


def gumbel_weights(
    theta: Tensor, temperature: float, generator: torch.Generator | None = None
) -> Tensor:
    """Random weights of candidates that tend to one of them as the temperature falls.

    Args:
        theta: (places, candidates); minus infinity where there is none.
        temperature: above 0.
        generator: of the Gumbel noise, on the device of `theta`.

    Returns:
        (places, candidates), rows that sum to 1.

    Raises:
        ValueError: the temperature is not above 0.
    """
    checks.above("temperature", temperature, 0)
    uniform = torch.rand(theta.shape, generator=generator, device=theta.device, dtype=theta.dtype)
    tiny = torch.finfo(theta.dtype).tiny
    noise = -(-(uniform.clamp_min(tiny)).log()).clamp_min(tiny).log()
    return ((theta + noise) / temperature).softmax(dim=1)


def expected_macs(theta: Tensor, costs: Tensor, fixed: float = 0.0) -> Tensor:
    """Multiply-adds that are expected of an architecture drawn with the probabilities of theta.

    Args:
        theta: (places, candidates).
        costs: of the candidates, of the same shape; 0 where there is none.
        fixed: of what is always there.
    """
    return fixed + (theta.softmax(dim=1) * costs).sum()


def mac_penalty(cost: Tensor, budget: float, kind: str = "log") -> Tensor:
    """log(cost / budget), or with "hinge" max(0, cost / budget - 1).

    Raises:
        ValueError: the budget is not above 0, or the kind is unknown.
    """
    checks.one_of("penalty", kind, PENALTIES)
    ratio = cost / checks.above("budget", budget, 0)
    return ratio.log() if kind == "log" else (ratio - 1).clamp_min(0)


class Supernet(nn.Module):
    """All architectures of a space at once."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.stem = dense_block(space.in_channels, space.width, space.stem_stride)
        self.places = nn.ModuleList(
            nn.ModuleList(make_block(name, *spot[:3]) for name in names)
            for spot, names in zip(space.places, space.options, strict=True)
        )
        self.head = nn.Sequential(pooled_classifier(space.places[-1].channels, space.num_classes))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Images (n, channels, h, w) and weights (places, candidates) -> logits (n, classes)."""
        x = self.stem(x)
        for row, candidates in zip(weights, self.places, strict=True):
            x = torch.stack(
                [weight * block(x) for weight, block in zip(row, candidates, strict=False)]
            ).sum(dim=0)
        return self.head(x)


class Choosing:
    """The objective of the supernet for `smallnets.training.fit`: a step of theta on a batch of the
    other half, then the loss of the weights.

    Attributes:
        theta: (places, candidates), on the CPU until the first step; minus infinity where a place
            lacks a candidate.
    """

    def __init__(
        self,
        space: SearchSpace,
        others: Iterator[tuple[Tensor, Tensor]],
        steps: int,
        budget: float,
        settings: ChoiceSettings,
    ) -> None:
        widest = max(map(len, space.options))
        self.theta = torch.zeros(len(space.options), widest)
        self.costs = torch.zeros_like(self.theta)
        for i, row in enumerate(space.macs):
            self.theta[i, len(row) :] = -torch.inf
            self.costs[i, : len(row)] = torch.tensor(row, dtype=torch.float32)
        self.fixed, self.budget = float(space.fixed_macs), budget
        self.others, self.steps, self.settings = others, steps, settings
        self.done = 0
        self.optimizer: torch.optim.Optimizer | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if self.optimizer is None:
            device = batch.images.device
            self.theta, self.costs = self.theta.to(device), self.costs.to(device)
            self.theta.requires_grad_()
            self.optimizer = torch.optim.Adam([self.theta], lr=self.settings.lr)
        tau = self.settings.temperature(min(self.done / max(self.steps - 1, 1), 1))
        images, labels = (one.to(batch.images.device) for one in next(self.others))
        weights = gumbel_weights(self.theta, tau, batch.noise)
        cost = expected_macs(self.theta, self.costs, self.fixed)
        penalty = mac_penalty(cost, self.budget, self.settings.penalty)
        chosen = F.cross_entropy(model(images, weights).float(), labels)
        objective = chosen + self.settings.weight * penalty
        (self.theta.grad,) = torch.autograd.grad(objective, self.theta)
        self.theta.grad.nan_to_num_(0.0)  # of what is not there
        self.optimizer.step()
        self.done += 1
        weights = gumbel_weights(self.theta.detach(), tau, batch.noise)
        loss = F.cross_entropy(model(batch.images, weights).float(), batch.labels)
        return {"loss": loss, "choice loss": chosen, "expected macs": cost}


@dataclass(frozen=True, eq=False)
class Trained:
    """An architecture that was trained from scratch."""

    choices: Choices
    macs: int
    accuracy: float  # 0 to 1, on images that trained nothing
    network: nn.Module
    history: list[dict[str, float]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a search found.

    Attributes:
        trained: all architectures that were trained.
        theta: (places, candidates); None of a random search.
        history: of the supernet, one dictionary an epoch: "loss" of the weights, "choice loss" of
            theta, and "expected macs".
    """

    trained: tuple[Trained, ...]
    theta: Tensor | None = None
    history: tuple[dict[str, float], ...] = ()

    @property
    def best(self) -> Trained:
        """The first one with the highest accuracy on images that trained nothing."""
        return max(self.trained, key=lambda one: one.accuracy)


def gradient_search(
    space: SearchSpace,
    data: TrainingData,
    settings: TrainSettings,
    *,
    budget: int,
    seed: int,
    choosing: TrainingData | None = None,
    count: int = 1,
    search_settings: TrainSettings | None = None,
    choice: ChoiceSettings = ChoiceSettings(),
    cache_dir: Path | None = None,
) -> Outcome:
    """Train a supernet, take its likeliest architectures within a budget, train them from scratch.

    Args:
        space: fits the images.
        data: a `Dataset`, one training image in five of which is held out to judge finished
            networks, and the others are halved for the supernet; or batches (inputs, labels) of
            your own.
        settings: of the trainings from scratch.
        budget: multiply-adds that no result exceeds.
        seed: of everything that is drawn.
        choosing: with batches of your own, others, on which theta learns and which judge.
        count: architectures that are trained, or as many as the budget allows.
        search_settings: of the supernet; None is `settings`.
        choice: how theta learns.
        cache_dir: where finished trainings from scratch are kept.

    Raises:
        ValueError: the budget is below the smallest network, the space does not fit the data, a
            number is out of range, or batches without such for choosing; and as `fit`.
    """
    space.check_budget(budget)
    checks.whole("count", count, 1)
    halves, training, judged = _parts(space, data, choosing, seed)
    recipe = search_settings or settings
    theta, history = search_theta(space, *halves, recipe, budget=budget, choice=choice, seed=seed)
    rows = [
        row[: len(names)].tolist()
        for row, names in zip(theta.log_softmax(dim=1), space.options, strict=True)
    ]
    chosen = space.likeliest(rows, budget, count)
    trained = _train(space, chosen, training, judged, settings, seed, cache_dir)
    return Outcome(trained, theta, tuple(history))


def random_search(
    space: SearchSpace,
    data: TrainingData,
    settings: TrainSettings,
    *,
    budget: int,
    seed: int,
    choosing: TrainingData | None = None,
    count: int = 1,
    cache_dir: Path | None = None,
) -> Outcome:
    """Train random architectures within a budget; on tiny data this is hard to beat.

    Args and Raises: as `gradient_search`, with the same images for the same purposes.
    """
    space.check_budget(budget)
    checks.whole("count", count, 1)
    _, training, judged = _parts(space, data, choosing, seed)
    drawn = space.at_random(budget, count, np.random.default_rng(seed))
    return Outcome(_train(space, drawn, training, judged, settings, seed, cache_dir))


def search_theta(
    space: SearchSpace,
    data: TrainingData,
    choosing: TrainingData,
    settings: TrainSettings,
    *,
    budget: int,
    seed: int,
    choice: ChoiceSettings = ChoiceSettings(),
) -> tuple[Tensor, list[dict[str, float]]]:
    """Train a supernet and return theta, on the CPU, and the history of the training.

    Args:
        space: fits the images.
        data: of the weights.
        choosing: of theta.
        settings: of the weights.
        budget: of multiply-adds.
        seed: of everything that is drawn.
        choice: how theta learns.

    Raises:
        ValueError: as `gradient_search`; and batches whose number nobody knows.
    """
    space.check_budget(budget)
    data, choosing = _fitting(space, data), _fitting(space, choosing)
    length = len(data.y_train) // settings.batch_size if isinstance(data, Dataset) else data.steps
    if length is None:
        raise ValueError(
            "a search needs the number of batches an epoch, which the data do not know: give "
            "Batches(data, length=...)"
        )
    with seeded(seed):
        supernet = Supernet(space)
    if isinstance(choosing, Batches):
        choosing = choosing.on(supernet)
    objective = Choosing(
        space, endless(choosing, settings.batch_size, seed), settings.epochs * length, budget,
        choice,
    )  # fmt: skip
    history = fit(supernet, data, settings, seed=seed, objective=objective, label="supernet")
    return objective.theta.detach().cpu(), history


def endless(data: Dataset | Batches, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end: of a data set in random order, normalised, full ones only; others as
    they come, from the beginning again and again.
    """
    if isinstance(data, Batches):
        while True:
            yield from data
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, len(data.y_train))
    while True:
        order = torch.randperm(len(data.y_train), generator=generator)
        for chosen in order[: len(order) // size * size].split(size):
            yield data.normalise(data.x_train[chosen]), data.y_train[chosen]


Judge = Callable[[nn.Module], float]


def _parts(
    space: SearchSpace, data: TrainingData, choosing: TrainingData | None, seed: int
) -> tuple[tuple[Any, Any], Any, Judge]:
    """The halves of the supernet, what finished networks are trained on, and what judges them."""
    data = _fitting(space, data)
    if isinstance(data, Dataset):
        if choosing is not None:
            raise ValueError(
                "choosing must be None with a Dataset, which is divided; got "
                f"{type(choosing).__name__}"
            )
        rest = data.held_out(max(1, len(data.y_train) // HELD_OUT), seed)
        halves = rest.divided(len(rest.y_train) // 2, seed)
        x, y = rest.normalise(rest.x_test), rest.y_test
        return halves, rest, lambda one: measure.accuracy(measure.predict(one, x), y.cpu())
    if choosing is None:
        raise ValueError(
            "with batches of your own, choosing must be others, on which architectures are chosen; "
            "got None"
        )
    others = _fitting(space, choosing)
    if isinstance(others, Dataset):
        raise ValueError("choosing must be batches, as data are; got a Dataset")
    if others.once:
        raise ValueError(
            "choosing must start anew again and again; got a "
            f"{type(others.source).__name__}, which can be read once"
        )
    return (
        (data, others),
        data,
        lambda one: measure.accuracy(*measure.predict_with_labels(one, others)),
    )


def _fitting(space: SearchSpace, data: TrainingData) -> Dataset | Batches:
    """Labelled data that networks of a space take, with labels of its classes."""
    given = as_batches(data)
    check_labelled(given)
    with seeded(0):
        network = space.network([names[0] for names in space.options])
    check_network("a network of the space", network, given.glance(), given.num_classes)
    return given.of_classes(space.num_classes)


def _train(
    space: SearchSpace,
    chosen: list[Choices],
    data: Dataset | Batches,
    judged: Judge,
    settings: TrainSettings,
    seed: int,
    cache_dir: Path | None,
) -> tuple[Trained, ...]:
    """Architectures from scratch, all with one seed."""
    found = []
    for choices in chosen:
        with seeded(seed):
            network = space.network(choices)
        history = fit(network, data, settings, seed=seed, cache_dir=cache_dir, label="architecture")
        found.append(Trained(choices, space.cost(choices), judged(network), network, history))
    return tuple(found)
