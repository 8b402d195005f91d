"""Choosing a configuration of a trained supernet that costs no more than a budget (section 3.6).

A space has `smallest()`, `sample(generator, probabilities)`, `size` and an iteration over all
configurations; what a configuration costs and how good it is are functions of the user's. Nothing
is asked twice, and the same random numbers give the same search.

Scores come from images that are held out of the training part, never from test images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from smallnets import checks
from smallnets.gan.networks import ConfigSpace

Config = tuple[int, ...]
Score = Callable[[Config], float]
Cost = Callable[[Config], float]
ENUMERATED = 2_000_000  # configurations that brute force can put in random order
PATIENCE = 2_000  # draws that may be over budget in a row


@dataclass(frozen=True)
class Evolution:
    """How a population evolves; the defaults are the published ones.

    Attributes:
        population: configurations of a generation, all within the budget.
        generations: how many.
        parents: share of the best, which stay and have children.
        mutants: children that are changed copies, as a share of the population; crossovers fill it
            up to population + parents, as published.
        mutation: probability with which each width of a mutant is drawn anew; the scripts use 0.3
            or 0.4.

    Raises:
        ValueError: a field is out of range.
    """

    population: int = 100
    generations: int = 500
    parents: float = 0.25
    mutants: float = 0.5
    mutation: float = 0.2

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("population", self.population, 2)
        checks.whole("generations", self.generations, 1)
        checks.above("parents", self.parents, 0)
        checks.between("parents", self.parents, 0, 1)
        checks.between("mutants", self.mutants, 0, 1)
        checks.between("mutation", self.mutation, 0, 1)


PUBLISHED_EVOLUTION = Evolution()


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: the configuration.
        score, cost: its own.
        scores, costs: of every configuration that was evaluated, in the order of evaluation.
        history: the best score so far, after every evaluation (brute force, random) or generation.
    """

    best: Config
    score: float
    cost: float
    scores: dict[Config, float]
    costs: dict[Config, float]
    history: list[float]


@dataclass
class _Judge:
    """Asks for each cost and each score once, and remembers the best."""

    score: Score
    cost: Cost
    budget: float
    maximise: bool
    scores: dict[Config, float] = field(default_factory=dict)
    costs: dict[Config, float] = field(default_factory=dict)

    def fits(self, config: Config) -> bool:
        if config not in self.costs:
            self.costs[config] = float(self.cost(config))
        return self.costs[config] <= self.budget

    def __call__(self, config: Config) -> float:
        if config not in self.scores:
            found = float(self.score(config))
            if not math.isfinite(found):
                raise ValueError(f"every score must be finite; got {found} for {config}")
            self.scores[config] = found
        return self.scores[config]

    def order(self, config: Config) -> tuple[float, Config]:
        """Better ones first; ties by the widths."""
        return (-self(config) if self.maximise else self(config)), config

    @property
    def best(self) -> Config:
        return min(self.scores, key=self.order)

    def result(self, history: list[float]) -> SearchResult:
        best = self.best
        costs = {config: self.costs[config] for config in self.scores}
        return SearchResult(
            best, self.scores[best], self.costs[best], dict(self.scores), costs, history
        )


def _judge(space: ConfigSpace, score: Score, cost: Cost, budget: float, maximise: bool) -> _Judge:
    """Raises ValueError if nothing fits the budget, before anything is drawn."""
    checks.above("budget", budget, 0)
    judge = _Judge(score, cost, budget, maximise)
    smallest = space.smallest()
    if not judge.fits(smallest):
        raise ValueError(
            f"budget must be at least {judge.costs[smallest]:g}, the cost of the smallest "
            f"configuration; got {budget:g}"
        )
    return judge


def brute_force(
    space: ConfigSpace,
    score: Score,
    cost: Cost,
    budget: float,
    *,
    seed: int = 0,
    most: int | None = None,
    maximise: bool = False,
) -> SearchResult:
    """Evaluate all configurations within the budget, in random order, as in the CVPR version.

    Args:
        space: of configurations.
        score: configuration -> how good it is, less is better unless `maximise`.
        cost: configuration -> what it costs.
        budget: largest cost.
        seed: of the order.
        most: evaluations after which the search stops; None takes all.
        maximise: whether more is better.

    Raises:
        ValueError: a budget below the smallest configuration's cost, a space too large to be
            listed, or a score that is not finite.
    """
    judge = _judge(space, score, cost, budget, maximise)
    if space.size > ENUMERATED:
        raise ValueError(
            f"brute force needs a space of at most {ENUMERATED} configurations; got {space.size}: "
            "use evolution or random_search"
        )
    configs = list(space)
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(configs), generator=draw).tolist()
    history: list[float] = []
    most = len(configs) if most is None else checks.whole("most", most, 1)
    total = min(most, len(configs))
    with tqdm(total=total, desc="search", leave=False, delay=2) as bar:
        for place in order:
            if len(history) == most:
                break
            if judge.fits(configs[place]):
                _better(history, judge(configs[place]), maximise)
            bar.update()
    return judge.result(history)


def random_search(
    space: ConfigSpace,
    score: Score,
    cost: Cost,
    budget: float,
    *,
    evaluations: int,
    seed: int = 0,
    probabilities: Sequence[Sequence[float]] | None = None,
    maximise: bool = False,
) -> SearchResult:
    """The best of so many different random configurations within the budget: what any cleverer
    search has to beat with the same number of evaluations.

    Args:
        space, score, cost, budget, maximise: see `brute_force`.
        evaluations: how many; fewer if there are no more to be found.
        seed: of the draws.
        probabilities: see `ConfigSpace.sample`.

    Raises:
        ValueError: as `brute_force`.
    """
    checks.whole("evaluations", evaluations, 1)
    judge = _judge(space, score, cost, budget, maximise)
    draw = torch.Generator().manual_seed(seed)
    history: list[float] = []
    misses = 0
    with tqdm(total=evaluations, desc="search", leave=False, delay=2) as bar:
        while len(history) < evaluations and misses < PATIENCE:
            config = space.sample(draw, probabilities)
            if config in judge.scores or not judge.fits(config):
                misses += 1
                continue
            misses = 0
            _better(history, judge(config), maximise)
            bar.update()
    if not history:
        _better(history, judge(space.smallest()), maximise)
    return judge.result(history)


def _better(history: list[float], score: float, maximise: bool) -> None:
    choose = max if maximise else min
    history.append(choose([*history[-1:], score]))


def evolution(
    space: ConfigSpace,
    score: Score,
    cost: Cost,
    budget: float,
    settings: Evolution = PUBLISHED_EVOLUTION,
    *,
    seed: int = 0,
    probabilities: Sequence[Sequence[float]] | None = None,
    maximise: bool = False,
) -> SearchResult:
    """A population within the budget whose best have children (the Fast pipeline).

    Each generation keeps the best as parents and adds mutants and crossovers of them, each drawn
    again until it fits. The next population is parents and children, so the best never gets worse.
    Where a budget is so tight that `PATIENCE` draws in a row do not fit, the last one is narrowed,
    width by width at random, until it does.

    Args:
        space, score, cost, budget, maximise: see `brute_force`.
        settings: of the population.
        seed: of the draws.
        probabilities: of the first generation's widths, see `ConfigSpace.probabilities`; None is
            uniform.

    Raises:
        ValueError: as `brute_force`, but for the size of the space.
    """
    judge = _judge(space, score, cost, budget, maximise)
    draw = torch.Generator().manual_seed(seed)

    def fitting(make: Callable[[], Config]) -> Config:
        for _ in range(PATIENCE):
            config = make()
            if judge.fits(config):
                return config
        return _narrowed(space, config, judge, draw)

    population = [
        fitting(lambda: space.sample(draw, probabilities)) for _ in range(settings.population)
    ]
    kept = max(1, round(settings.parents * settings.population))
    mutants = round(settings.mutants * settings.population)
    history: list[float] = []
    for _ in tqdm(range(settings.generations), desc="search", leave=False, delay=2):
        parents = sorted(population, key=judge.order)[:kept]
        history.append(judge(parents[0]))

        def one(parents: list[Config] = parents) -> Config:
            return parents[int(torch.randint(len(parents), (), generator=draw))]

        def mutant(one: Callable[[], Config] = one) -> Config:
            change = torch.rand(len(space.widths), generator=draw) < settings.mutation
            pairs = zip(change.tolist(), one(), space.sample(draw), strict=True)
            return tuple(new if changed else old for changed, old, new in pairs)

        def crossover(one: Callable[[], Config] = one) -> Config:
            coins = torch.rand(len(space.widths), generator=draw) < 0.5
            return tuple(
                a if c else b for c, a, b in zip(coins.tolist(), one(), one(), strict=True)
            )

        population = parents + [fitting(mutant) for _ in range(mutants)]
        population += [fitting(crossover) for _ in range(settings.population - mutants)]
    history.append(judge(min(population, key=judge.order)))
    return judge.result(history)


def _narrowed(space: ConfigSpace, config: Config, judge: _Judge, draw: torch.Generator) -> Config:
    """A configuration with widths set to their smallest, in random order, until it fits."""
    widths, smallest = list(config), space.smallest()
    for place in torch.randperm(len(widths), generator=draw).tolist():
        widths[place] = smallest[place]
        if judge.fits(tuple(widths)):
            break
    return tuple(widths)
