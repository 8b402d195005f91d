"""One supernet, many generators: a path from the largest to the smallest, and a cloud of others."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smallnets import gan
from smallnets.data.translation import as_levels
from smallnets.gan.networks import ConfigSpace
from smallnets.studies.gan.domain import Domain
from smallnets.studies.gan.learners import (
    Config,
    error_of,
    eyes,
    held_score,
    lesson,
    pairs_of,
    train_supernet,
)
from smallnets.studies.gan.plan import Settings
from smallnets.studies.seeds import teacher_seed

CLOUD = 99  # number of a seed's draws of random configurations


class Shown(NamedTuple):
    """A configuration, what it costs, what is said of its test images, and some of them."""

    config: Config
    exact: int
    published: int
    error: float
    distance: float
    images: Tensor  # uint8 (n, channels, height, width)


def gallery(
    domain: Domain,
    settings: Settings,
    seed: int,
    cache_dir: Path,
    count: int = 6,
    pictures: Sequence[int] = (0,),
) -> list[Shown]:
    """Configurations of the seed's supernet from the largest to the smallest, none trained further.

    Args:
        domain, settings, seed, cache_dir: see `learners.alone`.
        count: how many.
        pictures: numbers of the test inputs that are shown.
    """
    made = train_supernet(domain, settings, seed, cache_dir)
    data = pairs_of(domain, settings, cache_dir)
    inputs, truth = data.a(data.a_test), gan.Distance(data.b(data.b_test))
    error = error_of(data, eyes(domain, settings, cache_dir))
    found = []
    for config in path(made.space, count):
        images = gan.translated(made.network, inputs, config)
        cost = made.network.cost(config, domain.size)
        shown = as_levels(images[list(pictures)])
        found.append(Shown(config, cost.exact, cost.published, error(images), truth(images), shown))
    return found


def path(space: ConfigSpace, count: int) -> list[Config]:
    """Configurations from the largest to the smallest; from one to the next layers become narrower,
    one after the other.
    """
    steps: list[Config] = [space.largest()]
    ranked = [sorted(choices, reverse=True) for choices in space.widths]
    for rank in range(1, max(map(len, ranked))):
        for place, choices in enumerate(ranked):
            if rank < len(choices):
                steps.append((*steps[-1][:place], choices[rank], *steps[-1][place + 1 :]))
    places = np.linspace(0, len(steps) - 1, min(count, len(steps))).round().astype(int)
    return [steps[place] for place in places]


def random_configs(settings: Settings, space: ConfigSpace, seed: int, count: int) -> list[Config]:
    """So many different random configurations, beside the smallest and the largest; fewer if the
    space has no more. Half of them are drawn from lists in which small widths are likelier, so that
    costs lie apart.
    """
    draw = torch.Generator().manual_seed(teacher_seed(seed, CLOUD))
    biased = space.probabilities("geometric", 3.0)
    found = dict.fromkeys((space.smallest(), space.largest()))
    for number in range(20 * count):
        if len(found) >= min(count + 2, space.size):
            break
        found[space.sample(draw, biased if number % 2 else None)] = None
    return list(found)


def cloud(
    domain: Domain, settings: Settings, seed: int, cache_dir: Path, count: int = 40
) -> dict[str, np.ndarray]:
    """Random configurations of the seed's supernet: "exact" and "published" multiply-accumulates,
    and "held", the error on held-out images, one number each; and "config", its eight widths.

    Args:
        domain, settings, seed, cache_dir: see `learners.alone`.
        count: how many, beside the smallest and the largest.
    """
    made = train_supernet(domain, settings, seed, cache_dir)
    score = held_score(made.network, lesson(domain, settings, cache_dir))
    configs = random_configs(settings, made.space, seed, count)
    prices = [made.network.cost(config, domain.size) for config in configs]
    return _arrays(
        exact=[one.exact for one in prices],
        published=[one.published for one in prices],
        held=[score(config) for config in configs],
        config=configs,
    )


def _arrays(**values: Sequence[float] | Sequence[Config]) -> dict[str, np.ndarray]:
    return {name: np.asarray(one, dtype=float) for name, one in values.items()}
