"""What is searched in a supernet, and how: on held-out training images, never on test images."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from smallnets import gan
from smallnets.gan.networks import MOBILE, channels_of, resnet_cost
from smallnets.gan.search import SearchResult
from smallnets.studies.gan.domain import Domain
from smallnets.studies.gan.learners import (
    FIRST_SEARCH,
    REMEMBERED,
    Config,
    Super,
    alone,
    full_pipeline,
    held_score,
    lesson,
    train_supernet,
)
from smallnets.studies.gan.plan import Settings, space_of
from smallnets.studies.seeds import teacher_seed

METHODS = ("evolution", "random", "brute_force")


def allowance(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> float:
    """The budget in true multiply-accumulates: a share of the teacher's."""
    teacher = alone(domain, settings, seed, cache_dir).network
    return settings.budget * teacher.cost(domain.size).exact


@lru_cache(REMEMBERED)
def search(
    domain: Domain,
    settings: Settings,
    seed: int,
    cache_dir: Path,
    method: str = "evolution",
    repetition: int = 0,
    number: int = 0,
) -> SearchResult:
    """One search in a supernet of the seed.

    Args:
        domain, settings, seed, cache_dir: see `learners.alone`.
        method: one of `METHODS`. Random search has as many evaluations as the evolution of the same
            repetition; brute force takes all configurations of the coarse widths.
        repetition: which random numbers.
        number: of the supernet.
    """
    made = train_supernet(domain, settings, seed, cache_dir, number)
    evaluations = None
    if method == "random":
        evolved = search(domain, settings, seed, cache_dir, "evolution", repetition, number)
        evaluations = len(evolved.scores)
    return _searched(
        made, domain, settings, seed, cache_dir, method=method, evaluations=evaluations,
        draws=teacher_seed(seed, FIRST_SEARCH + repetition),
        coarse=method == "brute_force",
    )  # fmt: skip


def _searched(
    made: Super,
    domain: Domain,
    settings: Settings,
    seed: int,
    cache_dir: Path,
    *,
    method: str,
    evaluations: int | None,
    draws: int,
    coarse: bool = False,
) -> SearchResult:
    space = space_of(settings, settings.coarse) if coarse else made.space
    return gan.search_supernet(
        made.network, space, held_score(made.network, lesson(domain, settings, cache_dir)),
        allowance(domain, settings, seed, cache_dir), domain.size, method=method,
        settings=settings.search, evaluations=evaluations, seed=draws, cache_dir=cache_dir,
    )  # fmt: skip


def search_full_pipeline(
    domain: Domain, settings: Settings, seed: int, cache_dir: Path
) -> tuple[Super, SearchResult]:
    """The supernet of the CVPR version and the best of it within the budget."""
    made = full_pipeline(domain, settings, seed, cache_dir)
    found = _searched(
        made, domain, settings, seed, cache_dir, method="evolution", evaluations=None,
        draws=teacher_seed(seed, FIRST_SEARCH),
    )  # fmt: skip
    return made, found


def so_far(found: SearchResult, count: int) -> list[float]:
    """The best score after every evaluation, `count` numbers: what comes after the last one is as
    good as that.
    """
    best = np.minimum.accumulate(list(found.scores.values())).tolist()
    return (best + best[-1:] * count)[:count]


def most_evaluations(settings: Settings) -> int:
    """How many configurations an evolution can ask for."""
    how = settings.search
    return how.population * (how.generations + 1)


def widest_uniform(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> Config:
    """The widest uniform configuration within the budget, of any width."""
    data, allowed = domain.pairs or domain.loose, allowance(domain, settings, seed, cache_dir)

    def cost(width: int) -> int:
        channels = channels_of((width,) * 8, settings.n_blocks)
        return resnet_cost(
            channels, domain.size, data.a_channels, data.b_channels, separable=MOBILE,
            kernel_size=settings.kernel_size,
        ).exact  # fmt: skip

    fitting = [width for width in range(1, settings.ngf + 1) if cost(width) <= allowed]
    return (max(fitting),) * 8
