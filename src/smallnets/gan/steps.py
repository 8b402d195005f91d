"""The steps of GAN Compression, one function each, and each keeps its own result.

    teacher -> sorted -> supernet -> search -> fine-tuned -> exported

The full pipeline (CVPR 2020) begins with a mobile teacher, sorts its channels into the supernet and
searches by brute force; the Fast one (journal) has the original generator as teacher, starts the
supernet from nothing and evolves. Every step takes a folder: what is finished is read from it, what
was stopped goes on where it was.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.data.translation import Translation
from smallnets.gan.compression import Config, Student
from smallnets.gan.networks import (
    ConfigSpace,
    ResNetGenerator,
    SuperResNetGenerator,
    start_supernet,
)
from smallnets.gan.networks.calibration import calibrate
from smallnets.gan.playing import Game, GANTraining, play
from smallnets.gan.search import (
    PUBLISHED_EVOLUTION,
    Evolution,
    SearchResult,
    brute_force,
    evolution,
    random_search,
)
from smallnets.storage import atomic_path, source_digest
from smallnets.surgery import batch_norms
from smallnets.training.checkpoint import (
    History,
    cache_path,
    code_digest,
    load_finished,
    save_finished,
    weights_digest,
)

SEARCHES = ("evolution", "brute_force", "random")
COSTS = ("exact", "published", "parameters")


def train_teacher(
    game: Game,
    data: Translation,
    training: GANTraining,
    *,
    seed: int,
    cache_dir: Path | None = None,
) -> History:
    """Train a teacher's game in place; see `smallnets.gan.teachers` and `play`."""
    return play(game, data, training, seed=seed, cache_dir=cache_dir, label="teacher")


def sorted_supernet(
    mobile: ResNetGenerator, *, sort: bool = True, cache_dir: Path | None = None
) -> SuperResNetGenerator:
    """A supernet that starts as a trained mobile generator, its most important channels first.

    The widest configuration computes what the generator does; a narrow one consists of what
    mattered most.

    Args:
        mobile: of one width everywhere; left as it is.
        sort: whether channels are sorted.
        cache_dir: folder in which the result is kept.

    Raises:
        ValueError: a generator of several widths.
    """
    supernet = start_supernet(mobile, sort=sort)
    path = _path(cache_dir, "sorted", mobile=mobile, sort=sort)
    if path is not None and load_finished(path, supernet) is None:
        save_finished(path, supernet, [])
    return supernet


@dataclass(frozen=True, eq=False)
class Ends:
    """What a score says of the largest and of the smallest configuration, after every epoch.

    Attributes:
        score: configuration -> number, see `score_of`.
        space: of configurations.
    """

    score: Callable[[Config], float]
    space: ConfigSpace

    def __call__(self) -> Mapping[str, float]:
        return {
            "largest": self.score(self.space.largest()),
            "smallest": self.score(self.space.smallest()),
        }


def train_supernet(
    game: Student,
    data: Translation,
    training: GANTraining,
    *,
    seed: int,
    score: Callable[[Config], float] | None = None,
    cache_dir: Path | None = None,
) -> History:
    """Train a supernet in place: in every step one configuration drawn at random.

    Args:
        game: of its family, with a `space`.
        data, training, seed, cache_dir: see `play`.
        score: with which the largest and the smallest configuration are watched.

    Raises:
        ValueError: a game without a space, and as `play`.
    """
    if game.space is None:
        raise ValueError("a supernet is trained with a space of configurations; got None")
    _check_space(game.student, game.space)
    monitor = None if score is None else Ends(score, game.space)
    return play(
        game, data, training, seed=seed, monitor=monitor, cache_dir=cache_dir, label="supernet"
    )


def _check_space(supernet: Any, space: ConfigSpace) -> None:
    """Raise ValueError if the supernet does not have the space's widths."""
    supernet.check(space.largest())
    supernet.check(space.smallest())


def search_supernet(
    supernet: Any,
    space: ConfigSpace,
    score: Callable[[Config], float],
    budget: float,
    size: tuple[int, int],
    *,
    method: str = "evolution",
    settings: Evolution = PUBLISHED_EVOLUTION,
    evaluations: int | None = None,
    cost: str = "exact",
    seed: int = 0,
    probabilities: Sequence[Sequence[float]] | None = None,
    maximise: bool = False,
    cache_dir: Path | None = None,
) -> SearchResult:
    """The best configuration of a trained supernet within a budget.

    Args:
        supernet: left as it is.
        space: of configurations.
        score: how good one is, see `score_of`; less is better unless `maximise`.
        budget: of `cost`, for one image of this size.
        size: height and width.
        method: one of `SEARCHES`.
        settings: of evolution.
        evaluations: of random search, and the most of brute force.
        cost: one of `COSTS`: true or published multiply-accumulates, or parameters.
        seed: of the draws.
        probabilities: of the first draws, see `ConfigSpace.probabilities`.
        cache_dir: folder in which every score is kept as it comes. It is named by the supernet's
            weights and the score.

    Raises:
        ValueError: a budget below the smallest configuration's cost, before anything is evaluated;
            another method or cost; and as the searches.
    """
    checks.one_of("method", method, SEARCHES)
    checks.one_of("cost", cost, COSTS)
    _check_space(supernet, space)
    path = _path(cache_dir, "search", ".json", supernet=supernet, score=score)
    kept = KeptScores(score, path)

    def price(config: Config) -> float:
        return float(getattr(supernet.cost(config, size), cost))

    if method == "brute_force":
        return brute_force(
            space, kept, price, budget, seed=seed, most=evaluations, maximise=maximise
        )
    if method == "random":
        count = settings.population if evaluations is None else evaluations
        return random_search(
            space, kept, price, budget, evaluations=count, seed=seed,
            probabilities=probabilities, maximise=maximise,
        )  # fmt: skip
    return evolution(
        space, kept, price, budget, settings, seed=seed, probabilities=probabilities,
        maximise=maximise,
    )  # fmt: skip


class KeptScores:
    """A score that writes what it finds to a file, and never asks twice.

    Args:
        score: configuration -> number.
        path: of a JSON file; None keeps nothing.
    """

    def __init__(self, score: Callable[[Config], float], path: Path | None) -> None:
        self.score, self.path = score, path
        self.known: dict[str, float] = {}
        if path is not None and path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                self.known = {str(key): float(value) for key, value in found.items()}
            except (ValueError, AttributeError, TypeError, OSError):
                self.known = {}  # a damaged file is written anew

    def __call__(self, config: Config) -> float:
        name = "_".join(map(str, config))
        if name not in self.known:
            self.known[name] = float(self.score(config))
            if self.path is not None:
                with atomic_path(self.path) as temporary:
                    temporary.write_text(json.dumps(self.known), encoding="utf-8")
        return self.known[name]


def fine_tune(
    game: Student,
    config: Config,
    data: Translation,
    training: GANTraining,
    *,
    seed: int,
    cache_dir: Path | None = None,
) -> History:
    """Train one configuration of a supernet further, in place, by the same game.

    It is optional, and hurt where there are no pairs (horse to zebra). Other configurations lose
    by it.

    Args:
        game: with which the supernet was trained.
        config: which.
        data, training, seed, cache_dir: see `play`.
    """
    config = game.student.check(config)
    one = replace(game, space=ConfigSpace(tuple((width,) for width in config)), bias=None)
    return play(one, data, training, seed=seed, cache_dir=cache_dir, label="fine-tuned")


def export(
    supernet: Any,
    config: Config,
    *,
    calibration: Sequence[Tensor] = (),
    cache_dir: Path | None = None,
) -> nn.Module:
    """One configuration as a network of its own, in evaluation mode.

    Args:
        supernet: left as it is.
        config: which.
        calibration: batches of inputs, where it has BatchNorm.
        cache_dir: folder in which the weights are kept.

    Raises:
        ValueError: a configuration that does not fit, or BatchNorm and nothing to calibrate it.
    """
    config = supernet.check(config)
    normed = any(norm.track_running_stats for norm in batch_norms(supernet))
    if normed and not calibration:
        raise ValueError("a supernet with BatchNorm needs batches for calibration; got none")
    path = _path(
        cache_dir, "export", supernet=supernet, config=config, calibration=list(calibration)
    )
    network: nn.Module = supernet.export(config).eval()
    if path is not None and load_finished(path, network) is not None:
        return network
    if normed:
        wide = calibrate(copy.deepcopy(supernet), config, list(calibration))
        network = wide.export(config).eval()
    if path is not None:
        save_finished(path, network, [])
    return network


def _path(
    folder: Path | None, label: str, suffix: str = ".safetensors", **content: Any
) -> Path | None:
    """Where a step's result is kept, named by all that decides it."""
    if folder is None:
        return None
    for network in content.values():
        if isinstance(network, nn.Module):
            network.eval()
    digests = {
        key: weights_digest(value.state_dict())
        for key, value in content.items() if isinstance(value, nn.Module)
    }  # fmt: skip
    code = code_digest(), source_digest("gan"), str(torch.__version__)
    return cache_path(folder, label, suffix, **content, digests=digests, code=code)
